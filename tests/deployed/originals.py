"""The networks that files are made of."""

from __future__ import annotations

from tests.deployed.networks import CLASSIFIER, DECODER, DENOISER, DETECTOR, EVEN_DECODER, TAGGER
from tests.deployed.pretrained import BART, BERT, CLIP, CLIP_VISION, GPT2, SWIN, T5, VIT

ORIGINALS = (
    CLASSIFIER,
    DETECTOR,
    TAGGER,
    DECODER,
    DENOISER,
    EVEN_DECODER,
    BERT,
    GPT2,
    VIT,
    CLIP,
    CLIP_VISION,
    T5,
    BART,
    SWIN,
)

"""Models of the transformers package with random weights: the layouts that the optimizer knows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.exports.case import Case, Input, floats, prefix_mask, tokens

VOCABULARY = 60
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


class Wrapped(nn.Module):
    """A model that is called with tensors in order, and returns tensors."""

    def __init__(self, model: nn.Module, names: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names, self.outputs = model, names, outputs

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        found = self.model(**dict(zip(self.names, tensors, strict=True)), return_dict=True)
        return tuple(found[name] for name in self.outputs)


def positions(shape: tuple[int, ...], *_: Any) -> Tensor:
    return torch.arange(shape[1]).expand(shape).contiguous()


def everything(shape: tuple[int, ...], *_: Any) -> Tensor:
    return torch.ones(shape, dtype=torch.long)


IDS = Input("input_ids", ("n", "t"), tokens(VOCABULARY))
MASK = Input("attention_mask", ("n", "t"), prefix_mask)
SEGMENTS = Input("token_type_ids", ("n", "t"), tokens(2))
PLACES = Input("position_ids", ("n", "t"), positions)
PIXELS = Input("pixel_values", ("n", 3, 16, 16), floats)
TARGET = Input("decoder_input_ids", ("n", "s"), tokens(VOCABULARY))
TEXTS = ({"n": 2, "t": 6, "s": 4}, {"n": 1, "t": 9, "s": 3})
IMAGES = ({"n": 2}, {"n": 1})


def model(kind: str, config: dict[str, Any]) -> nn.Module:
    """Return a model of a class of transformers, in the form that exporters want."""
    import transformers  # takes seconds; not when the tests are collected

    chosen = getattr(transformers, kind)
    settings = chosen.config_class(**config, attn_implementation="eager")
    return chosen(settings)


def case(
    name: str, kind: str, inputs: tuple[Input, ...], sizes: Any, *outputs: str, **config: Any
) -> Case:
    names = tuple(i.name for i in inputs)
    return Case(
        name,
        lambda: Wrapped(model(kind, config), names, outputs),
        inputs,
        outputs,
        sizes,
        (),
        (17,),
        (),
    )


BERT = case(
    "bert",
    "BertModel",
    (IDS, MASK, SEGMENTS),
    TEXTS,
    "last_hidden_state",
    vocab_size=VOCABULARY,
    max_position_embeddings=16,
    **SMALL,
)
BERT_FULL = case(
    "bert_full",
    "BertModel",
    (IDS, Input("attention_mask", ("n", "t"), everything), SEGMENTS),
    TEXTS,
    "last_hidden_state",
    vocab_size=VOCABULARY,
    max_position_embeddings=16,
    **SMALL,
)
"""Without padding: what packed attention leaves in the rows of padding is not the original's."""
GPT2 = case(
    "gpt2",
    "GPT2LMHeadModel",
    (IDS, PLACES, MASK),
    TEXTS,
    "logits",
    vocab_size=VOCABULARY,
    n_positions=16,
    n_embd=32,
    n_layer=2,
    n_head=4,
    use_cache=False,
)
VIT = case(
    "vit", "ViTModel", (PIXELS,), IMAGES, "last_hidden_state", image_size=16, patch_size=4, **SMALL
)
CLIP = case(
    "clip",
    "CLIPTextModel",
    (IDS, MASK),
    TEXTS,
    "last_hidden_state",
    vocab_size=VOCABULARY,
    max_position_embeddings=16,
    eos_token_id=2,
    **SMALL,
)
CLIP_VISION = case(
    "clip_vision",
    "CLIPVisionModel",
    (PIXELS,),
    IMAGES,
    "last_hidden_state",
    image_size=16,
    patch_size=4,
    **SMALL,
)
T5 = case(
    "t5",
    "T5ForConditionalGeneration",
    (IDS, MASK, TARGET),
    TEXTS,
    "logits",
    vocab_size=VOCABULARY,
    d_model=32,
    d_kv=8,
    d_ff=48,
    num_layers=2,
    num_heads=4,
    use_cache=False,
)
BART = case(
    "bart",
    "BartForConditionalGeneration",
    (IDS, MASK, TARGET),
    TEXTS,
    "logits",
    vocab_size=VOCABULARY,
    d_model=32,
    encoder_layers=2,
    decoder_layers=2,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    encoder_ffn_dim=48,
    decoder_ffn_dim=48,
    max_position_embeddings=16,
    use_cache=False,
)
SWIN = case(
    "swin",
    "SwinModel",
    (PIXELS,),
    IMAGES,
    "last_hidden_state",
    image_size=16,
    patch_size=2,
    embed_dim=16,
    depths=[2, 2],
    num_heads=[2, 4],
    window_size=4,
)
WHISPER = case(
    "whisper",
    "WhisperForConditionalGeneration",
    (
        Input("input_features", ("n", 8, 24), floats),
        TARGET,
        Input("decoder_attention_mask", ("n", "s"), prefix_mask),
        Input("decoder_position_ids", ("n", "s"), positions),
    ),
    TEXTS,
    "logits",
    vocab_size=VOCABULARY,
    d_model=32,
    encoder_layers=2,
    decoder_layers=2,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    encoder_ffn_dim=48,
    decoder_ffn_dim=48,
    num_mel_bins=8,
    max_source_positions=12,
    max_target_positions=16,
    use_cache=False,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
    decoder_start_token_id=1,
)

"""Files of `onnxruntime.transformers.optimizer`: networks of transformers in fused operators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.onnx_model import OnnxModel
from onnxruntime.transformers.optimizer import optimize_model

from tests.deployed.files import Deployed, Judge, original
from tests.deployed.judging import HALF
from tests.deployed.networks import DENOISER
from tests.deployed.older import GPT2_PAST
from tests.deployed.pretrained import (
    BART,
    BERT,
    BERT_FULL,
    CLIP,
    CLIP_VISION,
    GPT2,
    SWIN,
    T5,
    VIT,
    WHISPER,
)
from tests.exports.case import Case

HEADS, WIDTH = 4, 32


def optimize(
    source: Path,
    path: Path,
    kind: str,
    half: dict[str, Any] | None = None,
    fusions: dict[str, Any] | None = None,
    **options: Any,
) -> None:
    """Write the optimizer's file for a model type."""
    chosen = FusionOptions(kind)
    for name, value in (fusions or {}).items():
        assert hasattr(chosen, name), name
        setattr(chosen, name, value)
    sizes = {"num_heads": HEADS, "hidden_size": WIDTH} if kind not in ("unet", "swin") else {}
    made = optimize_model(str(source), kind, optimization_options=chosen, **{**sizes, **options})
    if half is not None:
        made.convert_float_to_float16(**half)
    made.save_model_to_file(str(path))


def optimized(
    name: str,
    case: Case,
    kind: str,
    half: dict[str, Any] | None = None,
    fusions: dict[str, Any] | None = None,
    judge: Judge = "the file",
    **options: Any,
) -> Deployed:
    def write(path: Path) -> None:
        optimize(original(case), path, kind, half, fusions, **options)

    said = {**options, **(fusions or {}), **(half or {})}
    words = [f"{k}={v}" for k, v in said.items()]
    words = [f"model_type={kind}", *words, *(["float16"] if half is not None else [])]
    return Deployed(
        f"optimized_{name}",
        "transformers.optimizer",
        ", ".join(words),
        case,
        write,
        __name__,
        judge,
        tolerance=None if half is None else HALF,
    )


GPU: dict[str, Any] = {"use_gpu": True, "opt_level": 0, "judge": "the original"}
"""Fusions for GPUs: onnxruntime has no kernels of these operators for a processor."""


def unet(name: str, **fusions: bool) -> Deployed:
    return optimized(f"unet_{name}", DENOISER, "unet", fusions=fusions, **GPU)


def packed(name: str, **fusions: bool) -> Deployed:
    """Return the optimizer's file after convert_to_packing_mode, which removes padding."""

    def write(path: Path) -> None:
        from onnxruntime.transformers.convert_to_packing_mode import PackingMode  # and sympy

        optimize(original(BERT_FULL), path, "bert", fusions=fusions)
        model = PackingMode(OnnxModel(onnx.load(path)))
        model.convert(use_symbolic_shape_infer=True)
        model.model.save_model_to_file(str(path))

    return Deployed(
        f"packed_{name}",
        "convert_to_packing_mode",
        ", ".join(["model_type=bert", *(f"{k}={v}" for k, v in fusions.items())]),
        BERT_FULL,
        write,
        __name__,
        "the original",
    )


FILES = (
    optimized("bert", BERT, "bert"),
    optimized("bert_level_0", BERT, "bert", opt_level=0),
    optimized("bert_level_2", BERT, "bert", opt_level=2),
    optimized("bert_level_99", BERT, "bert", opt_level=99),
    optimized("bert_half", BERT, "bert", half={}),
    optimized("bert_half_keep_io", BERT, "bert", half={"keep_io_types": True}),
    optimized("bert_multi_head", BERT, "bert", fusions={"use_multi_head_attention": True}),
    optimized("bert_raw_mask", BERT, "bert", fusions={"use_raw_attention_mask": True}),
    optimized("bert_gelu_approximation", BERT, "bert", fusions={"enable_gelu_approximation": True}),
    optimized("gpt2", GPT2, "gpt2"),
    optimized("gpt2_half", GPT2, "gpt2", half={"keep_io_types": True}),
    optimized("gpt2_past", GPT2_PAST, "gpt2"),
    optimized("gpt2_past_half", GPT2_PAST, "gpt2", half={"keep_io_types": True}),
    optimized("whisper", WHISPER, "bart"),
    optimized("whisper_multi_head", WHISPER, "bart", fusions={"use_multi_head_attention": True}),
    optimized("clip_bert", CLIP, "bert"),
    optimized("vit", VIT, "vit"),
    optimized("clip", CLIP, "clip"),
    optimized("clip_vision", CLIP_VISION, "clip"),
    optimized("t5", T5, "t5"),
    optimized("bart", BART, "bart"),
    optimized("swin", SWIN, "swin"),
    unet("packed"),
    unet("unpacked", enable_packed_qkv=False, enable_packed_kv=False),
    unet("channels_first", enable_nhwc_conv=False, group_norm_channels_last=False),
    unet("plain", enable_bias_add=False, enable_bias_splitgelu=False, enable_skip_group_norm=False),
    optimized("unet_half", DENOISER, "unet", half={"keep_io_types": True}, **GPU),
    packed("attention"),
    packed("multi_head", use_multi_head_attention=True),
)

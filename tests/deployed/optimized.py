"""Files of `onnxruntime.transformers.optimizer`: networks of transformers in fused operators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.optimizer import optimize_model

from tests.deployed.files import Deployed, Judge
from tests.deployed.judging import HALF
from tests.deployed.networks import DENOISER
from tests.deployed.pretrained import BART, BERT, CLIP, CLIP_VISION, GPT2, SWIN, T5, VIT
from tests.exports.case import Case

HEADS, WIDTH = 4, 32


def optimize(
    original: Path,
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
    made = optimize_model(str(original), kind, optimization_options=chosen, **{**sizes, **options})
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
    def write(original: Path, path: Path) -> None:
        optimize(original, path, kind, half, fusions, **options)

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
    optimized("vit", VIT, "vit"),
    optimized("clip", CLIP, "clip"),
    optimized("clip_vision", CLIP_VISION, "clip"),
    optimized("t5", T5, "t5"),
    optimized("bart", BART, "bart"),
    optimized("swin", SWIN, "swin"),
    optimized("unet", DENOISER, "unet", judge="the original", use_gpu=True, opt_level=0),
    optimized(
        "unet_nhwc",
        DENOISER,
        "unet",
        judge="the original",
        use_gpu=True,
        opt_level=0,
        fusions={"enable_nhwc_conv": True, "group_norm_channels_last": True},
    ),
)

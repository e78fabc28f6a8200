"""Upsample, and Resize as it began.

History: Upsample 1 (two scale attributes), 7 (scales), 9 (scales are an input), 10 (deprecated).
Resize 10 (it shrinks, too).
"""

from __future__ import annotations

from torch import Tensor

from onnxinterp.ops.resampling import Method, resample
from onnxinterp.ops.resizing import drawn_image, drawn_scales, from_scales
from onnxinterp.registry import op, sample
from onnxinterp.sampling import Call, Draw, call


@op("Resize", since=10, any_type=True, frozen=("scales",))
def resize_10(X: Tensor, scales: list[float], *, mode: str = "nearest") -> Tensor:
    """The nearest element: the next one behind where an axis shrinks (as onnxruntime has it)."""
    axes = from_scales(X.shape, range(X.ndim), scales, [])
    for a in axes:
        rounding = "ceil" if a.scale is not None and a.scale < 1 else "floor"
        X = resample(X, [a], Method(mode, "asymmetric", rounding))
    return X


@op("Upsample", since=9, any_type=True, frozen=("scales",))
def upsample(X: Tensor, scales: list[float], *, mode: str = "nearest") -> Tensor:
    return resize_10(X, scales, mode=mode)


@op("Upsample", since=7, any_type=True)
def upsample_7(X: Tensor, *, mode: str = "nearest", scales: list[float]) -> Tensor:
    return resize_10(X, scales, mode=mode)


@op("Upsample", since=1, any_type=True)
def upsample_1(
    X: Tensor, *, height_scale: float, mode: str = "nearest", width_scale: float
) -> Tensor:
    """Of images; the mode that is linear later is called bilinear here."""
    later = "linear" if mode == "bilinear" else mode
    return resize_10(X, [1.0, 1.0, height_scale, width_scale], mode=later)


@sample(resize_10, upsample)
def _(d: Draw) -> Call:
    mode = d.choice([None, "nearest", "linear"])
    x = drawn_image(d, mode != "linear")
    scales = [s if d.opset >= 10 else max(s, 1.5) for s in drawn_scales(d, x)[2:]]
    return call(x, [1.0, 1.0, *scales], mode=mode)


@sample(upsample_7)
def _(d: Draw) -> Call:
    mode = d.choice([None, "nearest", "linear"])
    x = drawn_image(d, mode != "linear")
    return call(x, scales=[1.0, 1.0, *[max(s, 1.5) for s in drawn_scales(d, x)[2:]]], mode=mode)


@sample(upsample_1)
def _(d: Draw) -> Call:
    scales = d.choice([2.0, 3.0]), d.choice([2.0, 3.0])  # others, and bilinear, nobody judges
    x, mode = drawn_image(d, True), d.maybe("nearest")
    return call(x, height_scale=scales[0], width_scale=scales[1], mode=mode)

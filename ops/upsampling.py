"""Upsample, and the first version of Resize.

History: Upsample 1 (two scale attributes), 7 (scales), 9 (scales are an input), 10 (deprecated).
Resize 10 (may also shrink).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from onnxinterp.ops.resampling import Method, Mode, NearestMode, resample
from onnxinterp.ops.resizing import (
    draw_elements,
    draw_image,
    draw_mode,
    draw_scales,
    from_scales,
)
from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.versions import older


@op("Resize", since=10, any_type=True, frozen=("scales",))
def resize_10(X: Tensor, scales: list[float], *, mode: Mode = "nearest") -> Tensor:
    """The nearest element: rounded up if an axis shrinks, as in onnxruntime."""
    axes = from_scales(X.shape, range(X.ndim), scales, [])
    for a in axes:
        rounding: NearestMode = "ceil" if a.scale is not None and a.scale < 1 else "floor"
        X = resample(X, [a], Method(mode, "asymmetric", rounding))
    return X


@op("Upsample", since=9, any_type=True, frozen=("scales",))
def upsample(X: Tensor, scales: list[float], *, mode: Mode = "nearest") -> Tensor:
    return resize_10(X, scales, mode=mode)


upsample_7 = older(upsample, since=7, attributes=["scales"])


@op("Upsample", since=1, any_type=True)
def upsample_1(
    X: Tensor,
    *,
    height_scale: float,
    mode: Literal["nearest", "bilinear", "linear"] = "nearest",
    width_scale: float,
) -> Tensor:
    """Images only; the later mode linear is called bilinear."""
    later: Mode = "linear" if mode == "bilinear" else mode
    return resize_10(X, [1.0, 1.0, height_scale, width_scale], mode=later)


@sample(resize_10, upsample)
def _(d: Draw) -> Call:
    """Any tensor for the nearest element; images for interpolation. Resize also shrinks."""
    mode = draw_mode(d, "linear")
    x, resized = draw_image(d, mode)
    if mode != "linear" and d.boolean():
        x = draw_elements(d, d.shape(min_dims=1, max_dims=5, min_side=2))
        resized = [axis % x.ndim for axis in d.axes(x.ndim, 1)]
    least = 0.0 if d.opset >= 10 else 1.5
    scales = [max(s, least) if s != 1 else s for s in draw_scales(d, x.ndim, resized)]
    return call(x, scales, mode=mode) if d.opset >= 9 else call(x, scales=scales, mode=mode)


@sample(upsample_1)
def _(d: Draw) -> Call:
    """Images: no oracle supports other scales or bilinear."""
    shape = (d.integer(1, 2), d.integer(1, 2), d.integer(2, 6), d.integer(2, 6))
    scales, mode = (d.choice([2.0, 3.0]), d.choice([2.0, 3.0])), d.maybe("nearest")
    x = draw_elements(d, shape)
    return call(x, height_scale=scales[0], width_scale=scales[1], mode=mode)

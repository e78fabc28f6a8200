"""Upsample, and Resize as it began.

History: Upsample 1 (two scale attributes), 7 (scales), 9 (scales are an input), 10 (deprecated).
Resize 10 (it shrinks, too).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from onnxinterp.ops.resampling import Method, Mode, NearestMode, resample
from onnxinterp.ops.resizing import (
    drawn_elements,
    drawn_image,
    drawn_mode,
    drawn_scales,
    from_scales,
)
from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.versions import older


@op("Resize", since=10, any_type=True, frozen=("scales",))
def resize_10(X: Tensor, scales: list[float], *, mode: Mode = "nearest") -> Tensor:
    """The nearest element: the next one behind where an axis shrinks (as onnxruntime has it)."""
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
    """Of images; the mode that is linear later is called bilinear here."""
    later: Mode = "linear" if mode == "bilinear" else mode
    return resize_10(X, [1.0, 1.0, height_scale, width_scale], mode=later)


@sample(resize_10, upsample)
def _(d: Draw) -> Call:
    x, scales, mode = _drawn(d)
    return call(x, scales, mode=mode)


@sample(upsample_7)
def _(d: Draw) -> Call:
    x, scales, mode = _drawn(d)
    return call(x, scales=scales, mode=mode)


def _drawn(d: Draw) -> tuple[Tensor, list[float], str | None]:
    """Anything, where an element is the nearest; images for interpolation. Resize also shrinks."""
    mode = drawn_mode(d, "linear")
    x, resized = drawn_image(d, mode)
    if mode != "linear" and d.boolean():
        x = drawn_elements(d, d.shape(min_dims=1, max_dims=5, min_side=2))
        resized = [axis % x.ndim for axis in d.axes(x.ndim, 1)]
    least = 0.0 if d.opset >= 10 else 1.5
    return x, [max(s, least) if s != 1 else s for s in drawn_scales(d, x.ndim, resized)], mode


@sample(upsample_1)
def _(d: Draw) -> Call:
    """Images: of other scales, and of bilinear, there is no judge."""
    shape = (d.integer(1, 2), d.integer(1, 2), d.integer(2, 6), d.integer(2, 6))
    scales, mode = (d.choice([2.0, 3.0]), d.choice([2.0, 3.0])), d.maybe("nearest")
    x = drawn_elements(d, shape)
    return call(x, height_scale=scales[0], width_scale=scales[1], mode=mode)

"""Resize, from opset 11 on.

History: 11 (roi, sizes, coordinate transformations, cubic), 13 (roi and scales optional;
tf_half_pixel_for_nn is gone), 18 (antialias, axes, keep_aspect_ratio_policy), 19
(half_pixel_symmetric). Version 10 stands in upsampling.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from onnxinterp.ops.resampling import Axis, Method, resample
from onnxinterp.registry import op, sample
from onnxinterp.sampling import Call, Draw, call
from onnxinterp.values import round_to

TRANSFORMATIONS = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
)
NEAREST_MODES = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def _whole(size: int, scale: float) -> int:
    """floor(size * scale), the product rounded to float32; a whole scale keeps to integers."""
    if scale == int(scale):
        return size * int(scale)
    rounded: float = round_to(torch.float32, size * scale)
    return math.floor(rounded)


def from_scales(
    shape: Sequence[int], axes: Sequence[int], scales: Sequence[float], roi: Sequence[float]
) -> list[Axis]:
    """The axes to resample, from their scales."""
    resampled, n = [], len(axes)
    for i, (axis, scale) in enumerate(zip(axes, scales, strict=True)):
        start, end = (roi[i], roi[n + i]) if roi else (0.0, 1.0)
        if roi or scale != 1:
            out = _whole(shape[axis], scale)
            resampled.append(Axis(axis, shape[axis], out, scale, start, end))
    return resampled


def from_sizes(
    shape: Sequence[int],
    axes: Sequence[int],
    sizes: Sequence[int],
    roi: Sequence[float],
    policy: str,
) -> list[Axis]:
    """The axes to resample, from the sizes they shall have.

    Batch and channels are left out where they stay; sizes of the other axes may be symbolic and
    are not compared.
    """
    n, regions = len(axes), [(0.0, 1.0)] * len(axes)
    if roi:
        regions = list(zip(roi[:n], roi[n:], strict=True))
    if policy != "stretch":
        ratios = [out / shape[axis] for axis, out in zip(axes, sizes, strict=True)]
        choose: Any = torch.sym_min if policy == "not_larger" else torch.sym_max
        scale = reduce(choose, ratios)
        outs = [math.floor(round_to(torch.float32, scale * shape[axis]) + 0.5) for axis in axes]
        scales: Sequence[float | None] = [scale] * n
    else:
        outs, scales = list(sizes), [None] * n
    return [
        Axis(axis, shape[axis], out, scale, *region)
        for axis, out, scale, region in zip(axes, outs, scales, regions, strict=True)
        if roi or not (len(shape) > 2 and axis < 2 and out == shape[axis])
    ]


@op("Resize", since=18, any_type=True, frozen=("roi", "scales"))
def resize(
    X: Tensor,
    roi: list[float] | None = None,
    scales: list[float] | None = None,
    sizes: list[int] | None = None,
    *,
    antialias: int = 0,
    axes: list[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Tensor:
    """An empty roi, scales or sizes is an absent one; roi counts for tf_crop_and_resize only."""
    positions = [a % X.ndim for a in axes] if axes else list(range(X.ndim))
    region = (roi or []) if coordinate_transformation_mode == "tf_crop_and_resize" else []
    resampled = (
        from_scales(X.shape, positions, scales, region)
        if scales
        else from_sizes(X.shape, positions, sizes or [], region, keep_aspect_ratio_policy)
    )
    how = Method(
        mode,
        coordinate_transformation_mode,
        nearest_mode,
        cubic_coeff_a,
        bool(exclude_outside),
        extrapolation_value,
        bool(antialias),
    )
    return resample(X, sorted(resampled, key=lambda a: a.index), how)


@op("Resize", since=11, any_type=True, frozen=("roi", "scales"))
def resize_11(
    X: Tensor,
    roi: list[float] | None = None,
    scales: list[float] | None = None,
    sizes: list[int] | None = None,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Tensor:
    return resize(
        X,
        roi,
        scales,
        sizes,
        coordinate_transformation_mode=coordinate_transformation_mode,
        cubic_coeff_a=cubic_coeff_a,
        exclude_outside=exclude_outside,
        extrapolation_value=extrapolation_value,
        mode=mode,
        nearest_mode=nearest_mode,
    )


def drawn_image(d: Draw, nearest: bool) -> Tensor:
    """Batch, channels and an image. Integers only where no rounding is judged."""
    shape = (d.integer(1, 2), d.integer(1, 2), d.integer(2, 6), d.integer(2, 6))
    if nearest and d.boolean():
        return d.ints(shape, 0, 100, d.choice([torch.int32, torch.int8, torch.uint8]))
    return d.floats(shape)


def drawn_scales(d: Draw, images: Tensor) -> list[float]:
    """Such that sizes of images change: onnxruntime copies an axis that stays."""
    options = [2.0, 3.0, 0.5, 1.5, 2.5]
    return [1.0, 1.0, *[d.choice(options) for _ in images.shape[2:]]]


@sample(resize, resize_11)
def _(d: Draw) -> Call:
    mode = d.choice([None, "nearest", "linear", "cubic"])
    nearest, transformations = mode in (None, "nearest"), list(TRANSFORMATIONS)
    if d.opset < 19:
        transformations.remove("half_pixel_symmetric")
    transformation = d.choice([None, *transformations])
    crops = transformation == "tf_crop_and_resize"
    x = drawn_image(d, nearest)
    sizes = [*x.shape[:2], *[n + d.integer(1, 6) for n in x.shape[2:]]]
    by_scale = d.boolean()
    starts, ends = [d.real(-0.25, 0.375) for _ in "hw"], [d.real(0.625, 1.25) for _ in "hw"]
    roi = d.floats((8,)).new_tensor([0, 0, *starts, 1, 1, *ends]) if crops else None
    empty = d.floats((0,)) if d.opset < 13 else None
    axes = d.maybe([2, 3]) if d.opset >= 18 and not crops else None
    if axes:
        sizes = sizes[2:]
    scales = drawn_scales(d, x)[2 if axes else 0 :]
    return call(
        x,
        roi if crops else empty,
        scales if by_scale else empty,
        None if by_scale else sizes,
        antialias=d.maybe(d.integer(0, 1)) if d.opset >= 18 and not nearest and not crops else None,
        axes=axes,
        coordinate_transformation_mode=transformation,
        cubic_coeff_a=d.maybe(-0.5) if mode == "cubic" else None,
        exclude_outside=d.maybe(d.integer(0, 1)) if mode == "cubic" and not crops else None,
        extrapolation_value=d.maybe(d.real(0, 2)) if crops else None,
        keep_aspect_ratio_policy=d.maybe(d.choice(["not_larger", "not_smaller"]))
        if axes and not by_scale
        else None,
        mode=mode,
        nearest_mode=d.maybe(d.choice(NEAREST_MODES)) if nearest else None,
    )

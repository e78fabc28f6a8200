"""Resize, from opset 11 on.

History: 11 (roi, sizes, coordinate transformations, cubic), 13 (roi and scales optional;
without tf_half_pixel_for_nn), 18 (antialias, axes, keep_aspect_ratio_policy), 19
(half_pixel_symmetric). Version 10 is in upsampling.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from onnxinterp.dtypes import onnx_name
from onnxinterp.ops.resampling import Axis, Coordinates, Method, Mode, NearestMode, resample
from onnxinterp.ops.shapes import axes_from_front
from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag, is_known, is_surely, round_to, sym_max, sym_min
from onnxinterp.versions import older


def _scaled_size(size: int, scale: float) -> int:
    """floor(size * scale), the product rounded to float32; exact if the scale is an integer."""
    if scale == int(scale):
        return size * int(scale)
    rounded: float = round_to(torch.float32, size * scale)
    return math.floor(rounded)


def from_scales(
    shape: Sequence[int], axes: Sequence[int], scales: Sequence[float], roi: Sequence[float]
) -> list[Axis]:
    """The axes to resample, from their scales."""
    resampled, n = [], len(axes)
    if any(is_known(s) and not 0 < s < math.inf for s in scales):
        raise ValueError(f"scales must be positive and finite, got {list(scales)}")
    for i, (axis, scale) in enumerate(zip(axes, scales, strict=True)):
        start, end = (roi[i], roi[n + i]) if roi else (0.0, 1.0)
        if roi or scale != 1:
            out = _scaled_size(shape[axis], scale)
            resampled.append(Axis(axis, shape[axis], out, scale, start, end))
    return resampled


def from_sizes(
    shape: Sequence[int],
    axes: Sequence[int],
    sizes: Sequence[int],
    roi: Sequence[float],
    policy: str,
) -> list[Axis]:
    """The axes to resample, from the sizes of the output.

    Batch and channels are omitted if their sizes do not change; the sizes of the other axes may be
    symbolic and are not compared.
    """
    n, regions = len(axes), [(0.0, 1.0)] * len(axes)
    if roi:
        regions = list(zip(roi[:n], roi[n:], strict=True))
    if policy != "stretch":
        ratios = [out / shape[axis] for axis, out in zip(axes, sizes, strict=True)]
        choose: Any = sym_min if policy == "not_larger" else sym_max
        scale = reduce(choose, ratios)
        outs = [math.floor(round_to(torch.float32, scale * shape[axis]) + 0.5) for axis in axes]
        scales: Sequence[float | None] = [scale] * n
    else:
        outs, scales = list(sizes), [None] * n
    return [
        Axis(axis, shape[axis], out, scale, *region)
        for axis, out, scale, region in zip(axes, outs, scales, regions, strict=True)
        if roi or not (len(shape) > 2 and axis < 2 and is_surely(out == shape[axis]))
    ]


@op("Resize", since=18, any_type=True, frozen=("roi", "scales"))
def resize(
    X: Tensor,
    roi: list[float] | None = None,
    scales: list[float] | None = None,
    sizes: list[int] | None = None,
    *,
    antialias: Flag = 0,
    axes: list[int] | None = None,
    coordinate_transformation_mode: Coordinates = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: Flag = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: Literal["stretch", "not_larger", "not_smaller"] = "stretch",
    mode: Mode = "nearest",
    nearest_mode: NearestMode = "round_prefer_floor",
) -> Tensor:
    """Empty roi, scales or sizes count as absent; roi is used for tf_crop_and_resize only."""
    if bool(scales) == bool(sizes):
        raise ValueError("either scales or sizes must be given, got both or none")
    positions = axes_from_front(axes, X.ndim) if axes else list(range(X.ndim))
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


resize_11 = older(resize, since=11, without=["antialias", "axes", "keep_aspect_ratio_policy"])


FRACTIONAL = ("align_corners", "pytorch_half_pixel", "tf_crop_and_resize", "tf_half_pixel_for_nn")
SCALES = (2.0, 3.0, 0.5, 1.5, 2.5, 0.6, 0.75)  # they change each size from 2 on


def draw_mode(d: Draw, *interpolating: str) -> str | None:
    """A mode; that of the nearest element for types that cannot be interpolated."""
    floating = onnx_name(d.elem_type(_type(d))) in ("float", "double", "float16", "bfloat16")
    return d.choice([None, "nearest", *(interpolating if floating else ())])


def draw_elements(d: Draw, shape: Sequence[int]) -> Any:
    return d.tensor(shape, _type(d))


def _type(d: Draw) -> str:
    """The type parameter of Upsample, and of Resize, which changed at opset 11."""
    return "T1" if d.opset >= 11 else "T"


def draw_image(d: Draw, mode: str | None) -> tuple[Tensor, list[int]]:
    """An image with one to three spatial axes (two if cubic), and these axes."""
    rank = 2 if mode == "cubic" else d.choice([2, 1, 3])
    shape = (d.integer(1, 2), d.integer(1, 2), *[d.integer(2, 6) for _ in range(rank)])
    return draw_elements(d, shape), list(range(2, rank + 2))


def draw_scales(d: Draw, rank: int, resized: Sequence[int]) -> list[float]:
    """Scales that change the sizes: onnxruntime copies an axis whose size does not change."""
    return [d.choice(SCALES) if axis in resized else 1.0 for axis in range(rank)]


def _draw_sizes(d: Draw, shape: Sequence[int], resized: Sequence[int]) -> list[int]:
    """Sizes that differ from the current ones, for the same reason."""
    sizes = [d.choice([n + d.integer(1, 6), n // 2]) for n in shape]
    return [sizes[axis] if axis in resized else n for axis, n in enumerate(shape)]


def _draw_region(d: Draw, places: Sequence[int], resized: Sequence[int]) -> list[float]:
    """Starts and ends of a region of interest; it is mirrored if the end comes first."""
    ends = [[d.real(-0.25, 0.375), d.real(0.625, 1.25)] for _ in places]
    ends = [e[::-1] if d.boolean() else e for e in ends]
    ends = [e if axis in resized else [0.0, 1.0] for axis, e in zip(places, ends, strict=True)]
    return [e[0] for e in ends] + [e[1] for e in ends]


def _draw_policy(d: Draw, shape: Sequence[int], sizes: Sequence[int]) -> str | None:
    """A policy with which all sizes change, without ties of rounding."""
    allowed = [None, "stretch"]
    ratios = [out / n for n, out in zip(shape, sizes, strict=True)]
    for policy, ratio in (("not_larger", min(ratios)), ("not_smaller", max(ratios))):
        outs = [ratio * n for n in shape]
        tied = any(0.49 < out % 1 < 0.51 for out in outs)
        if not tied and all(round(out) not in (0, n) for n, out in zip(shape, outs, strict=True)):
            allowed.append(policy)
    return d.choice(allowed)


def _draw_method(d: Draw, mode: str | None, plain: bool) -> dict[str, str | float | None]:
    """The attributes of a mode; `plain` if onnxruntime allows exclude_outside for cubic only."""
    smooth = mode in ("linear", "cubic")
    antialias = d.maybe(d.integer(0, 1)) if smooth and d.opset >= 18 else None
    excludes = mode == "cubic" or (mode == "linear" and (antialias or not plain))
    return {
        "antialias": antialias,
        "cubic_coeff_a": d.maybe(-0.5) if mode == "cubic" else None,
        "exclude_outside": d.maybe(d.integer(0, 1)) if excludes else None,
        "mode": mode,
        "nearest_mode": None if smooth else d.maybe(d.choice(get_args(NearestMode))),
    }


@sample(resize)
def _(d: Draw) -> Call:
    """Images, for onnxruntime, or any axes, for the reference evaluator.

    The reference evaluator has no negative axes and does not round sizes. onnxruntime confuses
    negative axes with others if there is a policy.
    """
    mode, known = draw_mode(d, "linear", "cubic"), list(get_args(Coordinates))
    if d.opset < 19:
        known.remove("half_pixel_symmetric")
    if d.opset > 11:
        known.remove("tf_half_pixel_for_nn")
    if onnx_name(d.elem_type("T1")) in ("bool", "complex64", "complex128"):
        known.remove("tf_crop_and_resize")  # it fills with a real number
    transformation = d.choice([None, *known])
    x, resized = draw_image(d, mode)
    by_reference = mode in ("linear", "cubic") and transformation not in FRACTIONAL and d.boolean()
    if by_reference or (mode in (None, "nearest") and d.boolean()):
        x = draw_elements(d, d.shape(min_dims=1, max_dims=5, min_side=2))
        resized = [axis % x.ndim for axis in d.axes(x.ndim, 1)]
    axes = d.maybe(resized) if d.opset >= 18 else None
    places, crops = axes or list(range(x.ndim)), transformation == "tf_crop_and_resize"
    scales, sizes = draw_scales(d, x.ndim, resized), _draw_sizes(d, x.shape, resized)
    scales, sizes = [scales[p] for p in places], [sizes[p] for p in places]
    by_scale, empty = d.boolean(), d.floats((0,)) if d.opset < 13 else None
    shape, has_policy = [x.shape[p] for p in places], axes and not by_scale
    policy = _draw_policy(d, shape, sizes) if has_policy else None
    if axes and not by_reference and policy in (None, "stretch"):
        axes = [axis - x.ndim if d.boolean() else axis for axis in axes]
    region = d.floats((0,)).new_tensor(_draw_region(d, places, resized))
    return call(
        x,
        region if crops or d.boolean() else empty,
        scales if by_scale else empty,
        None if by_scale else sizes,
        axes=axes,
        coordinate_transformation_mode=transformation,
        extrapolation_value=d.maybe(d.real(0, 2)) if crops else None,
        keep_aspect_ratio_policy=policy,
        **_draw_method(d, mode, not by_reference),
    )

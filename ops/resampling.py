"""Resampling along axes, for Resize and Upsample.

The axes are resampled one after the other: coordinates of the output elements in the input, the
elements around them (taps) and their weights. Coordinates are float32 as in onnxruntime, because
rounding decides which element is nearest. Torch's own resampling is used where its results are the
same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from onnxinterp.values import is_traced, sym_max, sym_min

Mode: TypeAlias = Literal["nearest", "linear", "cubic"]
NearestMode: TypeAlias = Literal["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
Coordinates: TypeAlias = Literal[
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
]
aten = torch.ops.aten
# spatial rank -> resampling, as fn(x, output sizes, align_corners, *scales)
LINEAR: dict[int, Any] = {
    1: aten.upsample_linear1d,
    2: aten.upsample_bilinear2d,
    3: aten.upsample_trilinear3d,
}
CUBIC: dict[int, Any] = {2: aten.upsample_bicubic2d}
# the same without align_corners
NEAREST: dict[int, Any] = {
    1: aten._upsample_nearest_exact1d,
    2: aten._upsample_nearest_exact2d,
    3: aten._upsample_nearest_exact3d,
}


@dataclass(frozen=True)
class Axis:
    """One axis to resample.

    Attributes:
        index: which axis.
        size: of the input.
        out: of the output.
        scale: in the file; None if the file has the size of the output.
        start: of the region of interest, as a fraction of the axis.
        end: of the region of interest, as a fraction of the axis.
    """

    index: int
    size: int
    out: int
    scale: float | None
    start: float = 0.0
    end: float = 1.0

    @property
    def keeps_size(self) -> bool:
        """Whether the axis grows by less than one element."""
        return self.scale is not None and 1 < self.scale < 2 and self.size < 1 / (self.scale - 1)

    def scale_like(self, x: Tensor) -> Tensor:
        """The scale as a tensor: dividing by a number may multiply by its rounded inverse."""
        if self.scale is not None:
            return x.new_full((), self.scale)
        return x.new_full((), self.out) / x.new_full((), self.size)


@dataclass(frozen=True)
class Method:
    """The attributes of Resize for the method, with the same names."""

    mode: Mode = "nearest"
    coordinates: Coordinates = "half_pixel"
    nearest_mode: NearestMode = "round_prefer_floor"
    cubic_coeff_a: float = -0.75
    exclude_outside: bool = False
    extrapolation_value: float = 0.0
    antialias: bool = False


def _coordinates(a: Axis, transformation: str, like: Tensor) -> Tensor:
    """Coordinates of the output elements in the input; `like` has the device and the dtype."""
    x, scale = torch.arange(a.out, device=like.device, dtype=like.dtype), a.scale_like(like)
    if transformation == "asymmetric":
        return x / scale
    if transformation == "align_corners":
        return x * (a.size - 1) / like.new_full((), sym_max(a.out - 1, 1))
    if transformation == "tf_crop_and_resize":
        start, end = like.new_full((), a.start), like.new_full((), a.end)
        if a.out == 1:
            return x + 0.5 * (start + end) * (a.size - 1)
        span = x * (end - start) * (a.size - 1)
        return start * (a.size - 1) + span / like.new_full((), a.out - 1)
    if transformation == "tf_half_pixel_for_nn":
        return x if a.out == a.size else (x + 0.5) / scale
    if transformation == "pytorch_half_pixel" and a.out == 1:
        return x
    if transformation == "half_pixel_symmetric":  # the last steps in float64, as in onnxruntime
        offset = a.size / 2 * (1 - like.new_full((), a.out) / (scale * a.size))
        return (offset + (x.double() + 0.5) / scale - 0.5).to(x.dtype)
    return (x + 0.5) / scale - 0.5


def _nearest(x: Tensor, mode: str) -> Tensor:
    """Round coordinates to indices."""
    if mode == "round_prefer_floor":
        return torch.ceil(x - 0.5)
    if mode == "round_prefer_ceil":
        return torch.floor(x + 0.5)
    return torch.ceil(x) if mode == "ceil" else torch.floor(x)


def cubic(t: Tensor, a: float = -0.75) -> Tensor:
    """The cubic kernel of Keys (1981) at distance t; NaN at NaN."""
    t = t.abs()
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return torch.where(t <= 1, near, torch.where(t >= 2, 0, far))


def linear(t: Tensor) -> Tensor:
    """The kernel of linear interpolation at distance t."""
    return (1 - t.abs()).clamp(min=0)


def _taps(x: Tensor, size: int, how: Method) -> tuple[Tensor, Tensor]:
    """Indices and weights of the elements around each coordinate, [taps, out]."""
    if how.mode == "linear":
        x, offsets = x.clamp(0, size - 1), torch.arange(0, 2, device=x.device)
    else:
        offsets = torch.arange(-1, 3, device=x.device)
    places = x.floor() + offsets[:, None]
    distance = x - places
    weights = linear(distance) if how.mode == "linear" else cubic(distance, how.cubic_coeff_a)
    if how.exclude_outside:
        weights = weights * ((places >= 0) & (places <= size - 1))
        weights = weights / weights.sum(0)
    return places.clamp(0, size - 1).long(), weights


def _antialias_matrix(x: Tensor, a: Axis, how: Method) -> Tensor:
    """The matrix [out, size] of a filter that is as much wider as the axis shrinks."""
    shrink = a.scale_like(x).clamp(max=1)
    radius = 1 if how.mode == "linear" else 2
    beyond = (radius * a.size) // sym_min(a.out, a.size) + 2 if a.scale is None else 0
    if a.scale is not None:
        beyond = math.ceil(radius / min(a.scale, 1.0)) + 1
    places = torch.arange(-beyond, a.size + beyond, device=x.device)
    distance = (x[:, None] - places) * shrink
    weights = linear(distance) if how.mode == "linear" else cubic(distance, how.cubic_coeff_a)
    if how.exclude_outside:
        weights = weights * ((places >= 0) & (places < a.size))
    weights = weights / weights.sum(1, keepdim=True)
    inside = places.clamp(0, a.size - 1)
    return weights.new_zeros(a.out, a.size).index_add(1, inside, weights)


def _resample(x: Tensor, a: Axis, how: Method, coordinates: Tensor) -> Tensor:
    """Resample one axis of x."""
    if how.mode == "nearest":
        index = _nearest(coordinates, how.nearest_mode).clamp(0, a.size - 1)
        return x.index_select(a.index, index.long())
    if how.antialias and (a.scale is None or a.scale < 1):
        matrix = _antialias_matrix(coordinates, a, how).to(x.dtype)
        return torch.matmul(x.movedim(a.index, -1), matrix.T).movedim(-1, a.index)
    indices, weights = _taps(coordinates, a.size, how)
    along = (-1, *[1] * (x.ndim - 1 - a.index))
    terms: list[Tensor] = [
        x.index_select(a.index, index) * weight.to(x.dtype).reshape(along)
        for index, weight in zip(indices, weights, strict=True)
    ]
    return sum(terms[1:], terms[0])


def _by_torch(x: Tensor, axes: Sequence[Axis], how: Method) -> Tensor | None:
    """Resample with torch's own functions; None if none has the same result."""
    rank = x.ndim - 2
    if not x.is_floating_point() or [a.index for a in axes] != list(range(2, x.ndim)):
        return None
    sizes, scales = [a.out for a in axes], [a.scale for a in axes]
    if 0 in sizes or 0 in x.shape:
        return None  # torch raises for these
    if how.mode == "nearest":
        whole = all(s is not None and s == int(s) for s in scales)
        floors = (how.coordinates, how.nearest_mode) in FLOORS
        serves = whole and floors and rank in NEAREST
        if serves and is_traced():  # torch's exporter of traces and OpenVINO know this one alone
            return interpolate(x, scale_factor=[float(s) for s in scales if s], mode="nearest")
        return cast(Tensor, NEAREST[rank](x, sizes, *scales)) if serves else None
    if any(a.keeps_size for a in axes):
        return None  # torch copies such an axis for each scale
    corners = how.coordinates == "align_corners"
    if how.exclude_outside or not (corners or how.coordinates == "half_pixel"):
        return None
    if how.antialias and any(s is None or s < 1 for s in scales):
        return None
    table = LINEAR if how.mode == "linear" else CUBIC if how.cubic_coeff_a == -0.75 else {}
    return cast(Tensor, table[rank](x, sizes, corners, *scales)) if rank in table else None


# methods that are floor(x / scale) if the scale is an integer
FLOORS = {
    ("asymmetric", "floor"),
    ("half_pixel", "round_prefer_floor"),
    ("half_pixel", "round_prefer_ceil"),
    ("tf_half_pixel_for_nn", "floor"),
}


def resample(x: Tensor, axes: Sequence[Axis], how: Method) -> Tensor:
    """Resample the given axes of x."""
    if not axes:
        return x
    if (y := _by_torch(x, axes, how)) is not None:
        return y
    wide, narrow = x, x.dtype
    if how.mode != "nearest" and not narrow.is_floating_point:
        wide = x.to(torch.float64 if narrow.itemsize > 2 else torch.float32)
    elif how.mode != "nearest" and narrow.itemsize == 2:
        wide = x.float()
    exact = wide.dtype is torch.float64 and narrow.is_floating_point and how.mode != "nearest"
    like = torch.empty((), dtype=torch.float64 if exact else torch.float32, device=x.device)
    coordinates = [_coordinates(a, how.coordinates, like) for a in axes]
    for a, places in zip(axes, coordinates, strict=True):
        wide = _resample(wide, a, how, places)
    if how.coordinates == "tf_crop_and_resize":
        for a, places in zip(axes, coordinates, strict=True):
            outside = (places < 0) | (places > a.size - 1)
            along = outside.reshape(-1, *[1] * (x.ndim - 1 - a.index))
            fill = torch.full((), how.extrapolation_value, dtype=wide.dtype, device=wide.device)
            wide = torch.where(along, fill, wide)
    if narrow.is_floating_point or how.mode == "nearest":
        return wide.to(narrow)
    return _to_integer(wide, narrow, how)


def _to_integer(x: Tensor, dtype: torch.dtype, how: Method) -> Tensor:
    """Truncate linear results, as in onnxruntime; round and saturate those that may overshoot."""
    if how.mode == "linear" and not how.antialias:
        return x.to(dtype)
    info = torch.iinfo(dtype)
    return torch.floor(x + 0.5).clamp(info.min, info.max).to(dtype)

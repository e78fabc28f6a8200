"""Sampling at given positions: GridSample and AffineGrid.

History: GridSample 16 (images; modes bilinear, nearest, bicubic), 20 (any rank; linear, nearest,
cubic), 22 (bfloat16). AffineGrid 20.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.ops.resampling import cubic, linear
from onnxinterp.ops.spatial import at_least
from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call, draw_integers
from onnxinterp.values import Flag, is_known

PaddingMode: TypeAlias = Literal["zeros", "border", "reflection"]
Mode: TypeAlias = Literal["linear", "nearest", "cubic"]
TORCH_MODES = {"linear": "bilinear", "nearest": "nearest", "cubic": "bicubic"}
LATER_MODES: dict[str, Mode] = {"bilinear": "linear", "nearest": "nearest", "bicubic": "cubic"}


@op("GridSample", since=20, strings=False)
def grid_sample(
    X: Tensor,
    grid: Tensor,
    *,
    align_corners: Flag = 0,
    mode: Mode = "linear",
    padding_mode: PaddingMode = "zeros",
) -> Tensor:
    """Positions are in [-1, 1], last axis first; integers are sampled as floats and truncated."""
    batch, *_, numbers = grid.shape
    if grid.ndim != X.ndim or batch != X.shape[0] or numbers != X.ndim - 2:
        raise ValueError(f"grid must fit X {list(X.shape)}, got {list(grid.shape)}")
    if X.is_complex():
        sample_part = partial(
            grid_sample,
            grid=grid,
            align_corners=align_corners,
            mode=mode,
            padding_mode=padding_mode,
        )
        return torch.complex(sample_part(X.real), sample_part(X.imag))
    wide = torch.promote_types(grid.dtype, _weight_dtype(X.dtype))
    x, grid, corners = X.to(wide), grid.to(wide), bool(align_corners)
    if X.ndim == 3:  # a row is an image of height 1
        x, grid = x.unsqueeze(2), torch.stack([grid, torch.zeros_like(grid)], -1).flatten(-2)
        grid = grid.unsqueeze(1)
    if x.ndim == 4 or (x.ndim == 5 and mode != "cubic"):
        y = functional.grid_sample(x, grid, TORCH_MODES[mode], padding_mode, corners)
    else:
        y = _separable_sample(x, grid, mode, corners, padding_mode)
    return (y.squeeze(2) if X.ndim == 3 else y).to(X.dtype)


def _weight_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype for weighting elements of `dtype`; halves are too coarse for positions."""
    if dtype.is_floating_point:
        return dtype if dtype.itemsize > 2 else torch.float32
    return torch.float64 if dtype.itemsize > 2 else torch.float32


@op("GridSample", since=16, strings=False)
def grid_sample_16(
    X: Tensor,
    grid: Tensor,
    *,
    align_corners: Flag = 0,
    mode: Literal["bilinear", "nearest", "bicubic"] = "bilinear",
    padding_mode: PaddingMode = "zeros",
) -> Tensor:
    later = LATER_MODES[mode]
    return grid_sample(X, grid, align_corners=align_corners, mode=later, padding_mode=padding_mode)


def _separable_sample(
    x: Tensor, grid: Tensor, mode: str, corners: bool, padding_mode: str
) -> Tensor:
    """Sample volumes in cubic mode and higher ranks, which torch lacks: taps along each axis."""
    sizes, outputs = x.shape[2:], grid.shape[1:-1]
    flat, batch = x.flatten(2), torch.arange(x.shape[0], device=x.device)[:, None]
    taps = []
    for axis, size in enumerate(sizes):
        place = grid[..., len(sizes) - 1 - axis].flatten(1)
        place = (place + 1) / 2 * (size - 1) if corners else ((place + 1) * size - 1) / 2
        if mode != "cubic":
            place = _move_inside(place, size, corners, padding_mode)
        first, kernel = place.round() if mode == "nearest" else place.floor(), KERNELS[mode]
        steps = [first + k for k in kernel.offsets]
        weights = [kernel.weight(place - step) for step in steps]
        pairs = zip(steps, weights, strict=True)
        taps.append([_inside(s, w, size, corners, padding_mode) for s, w in pairs])
    terms = []
    for chosen in itertools.product(*taps):
        index, weight = torch.zeros_like(chosen[0][0]), torch.ones_like(chosen[0][1])
        for (place, factor), size in zip(chosen, sizes, strict=True):
            index, weight = index * size + place, weight * factor
        terms.append(flat[batch, :, index].movedim(-1, 1) * weight[:, None])
    return sum(terms[1:], terms[0]).reshape(*x.shape[:2], *outputs)


class _Kernel(NamedTuple):
    """The elements around a position, as offsets from the one before it, and their weights."""

    offsets: range
    weight: Callable[[Tensor], Tensor]


KERNELS = {
    "nearest": _Kernel(range(1), torch.ones_like),
    "linear": _Kernel(range(2), linear),
    "cubic": _Kernel(range(-1, 3), cubic),
}


def _move_inside(place: Tensor, size: int, corners: bool, padding_mode: str) -> Tensor:
    """Move positions into the tensor unless it is padded with zeros."""
    if padding_mode == "zeros":
        return place
    if padding_mode == "reflection":
        low, span = (0.0, at_least(size - 1, 1)) if corners else (-0.5, size)
        place = low + span - (torch.remainder(place - low, 2 * span) - span).abs()
    return place.clamp(0, size - 1)


def _inside(
    place: Tensor, weight: Tensor, size: int, corners: bool, padding_mode: str
) -> tuple[Tensor, Tensor]:
    """Integer positions moved into the tensor, and weights, 0 in a padding of zeros."""
    inside = (place >= 0) & (place <= size - 1)
    if padding_mode == "zeros":
        weight = torch.where(inside | place.isnan(), weight, 0)
    place = _move_inside(place, size, corners, padding_mode)
    return torch.where(place.isnan(), 0, place).clamp(0, size - 1).long(), weight


@op("AffineGrid", since=20)
def affine_grid(theta: Tensor, size: list[int], *, align_corners: Flag = 0) -> Tensor:
    """With align_corners, the position of an axis of one element is -1, the start of other axes.

    The function of the specification does this; torch uses the middle, onnxruntime the other end.
    """
    if not align_corners:
        return functional.affine_grid(theta, size, False)
    images, channels, *sides = size
    if any(is_known(n) and n < 1 for n in sides):
        raise ValueError(f"size must be positive, got {size}")
    wider = [images, channels, *(at_least(n, 2) for n in sides)]
    grid = functional.affine_grid(theta, wider, True)
    index = (slice(None), *(slice(n) for n in sides))
    return grid[index]


@sample(grid_sample, grid_sample_16)
def _(d: Draw) -> Call:
    """Positions without ties of `nearest` and without borders, where rounding decides."""
    rank = d.choice([2, 1, 3, 4]) if d.opset >= 20 else 2
    modes = list(TORCH_MODES if d.opset >= 20 else LATER_MODES)
    x = d.tensor((*draw_integers(d, 2, 1, 2), *draw_integers(d, rank, 2, 5)), "T1")
    outputs = (x.shape[0], *draw_integers(d, rank, 1, 4))
    places = torch.cat([d.floats((*outputs, 1), -1.2, 1.2) for _ in x.shape[2:]], -1)
    exact = not isinstance(x, Tensor) or not x.is_floating_point()  # cannot be interpolated
    mode, paddings = d.maybe(d.choice(modes)), ["zeros", "reflection", "border"]
    mode = "nearest" if exact else mode
    if mode == "cubic" and x.ndim != 4:
        paddings.pop()  # only the reference evaluator has cubic borders, with its own results
    return call(
        x,
        places,
        align_corners=d.maybe(d.integer(0, 1)),
        mode=mode,
        padding_mode=d.maybe(d.choice(paddings)),
    )


@sample(affine_grid)
def _(d: Draw) -> Call:
    rank, batch = d.integer(2, 3), d.integer(1, 3)
    theta = d.tensor((batch, rank, rank + 1), "T1", -2, 2)
    size = [batch, d.integer(1, 2), *[d.integer(2, 4) for _ in range(rank)]]
    return call(theta, size, align_corners=d.maybe(d.integer(0, 1)))

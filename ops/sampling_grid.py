"""Sampling at given places: GridSample and AffineGrid.

History: GridSample 16 (images; modes bilinear, nearest, bicubic), 20 (any rank; linear, nearest,
cubic), 22 (bfloat16). AffineGrid 20.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.ops.spatial import at_least
from onnxinterp.registry import op, sample
from onnxinterp.sampling import Call, Draw, call

TORCH_MODES = {
    "bilinear": "bilinear",
    "linear": "bilinear",
    "nearest": "nearest",
    "bicubic": "bicubic",
    "cubic": "bicubic",
}


@op("GridSample", since=20, strings=False)
def grid_sample(
    X: Tensor,
    grid: Tensor,
    *,
    align_corners: int = 0,
    mode: str = "linear",
    padding_mode: str = "zeros",
) -> Tensor:
    """Places are in [-1, 1], the last axis first; integers are computed as floats and truncated."""
    x = X if X.is_floating_point() else X.to(grid.dtype)
    grid = grid.to(x.dtype)
    corners = bool(align_corners)
    if X.ndim == 3:  # a row is an image of height 1
        image_grid = torch.stack([grid[..., 0], torch.zeros_like(grid[..., 0])], -1).unsqueeze(1)
        image = functional.grid_sample(
            x.unsqueeze(2), image_grid, TORCH_MODES[mode], padding_mode, corners
        )
        return image.squeeze(2).to(X.dtype)
    if X.ndim > 4 and mode == "cubic":
        return _cubic_sample(x, grid, corners, padding_mode).to(X.dtype)
    return functional.grid_sample(x, grid, TORCH_MODES[mode], padding_mode, corners).to(X.dtype)


@op("GridSample", since=16, strings=False)
def grid_sample_16(
    X: Tensor,
    grid: Tensor,
    *,
    align_corners: int = 0,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
) -> Tensor:
    return grid_sample(X, grid, align_corners=align_corners, mode=mode, padding_mode=padding_mode)


def _cubic_sample(x: Tensor, grid: Tensor, corners: bool, padding_mode: str) -> Tensor:
    """Cubic sampling of volumes, which torch has of images only: 4 taps along each axis."""
    sizes, outputs = x.shape[2:], grid.shape[1:-1]
    flat, batch = x.flatten(2), torch.arange(x.shape[0], device=x.device)[:, None]
    taps = []
    for axis, size in enumerate(sizes):
        place = grid[..., len(sizes) - 1 - axis].flatten(1)
        place = (place + 1) / 2 * (size - 1) if corners else ((place + 1) * size - 1) / 2
        first = place.floor()
        steps = [first + k for k in range(-1, 3)]
        weights = [_keys(place - step) for step in steps]
        taps.append(
            [
                _inside(s, w, size, corners, padding_mode)
                for s, w in zip(steps, weights, strict=True)
            ]
        )
    total = None
    for chosen in itertools.product(*taps):
        index, weight = torch.zeros_like(chosen[0][0]), torch.ones_like(chosen[0][1])
        for (place, factor), size in zip(chosen, sizes, strict=True):
            index, weight = index * size + place, weight * factor
        term = flat[batch, :, index].movedim(-1, 1) * weight[:, None]
        total = term if total is None else total + term
    assert total is not None, "there is at least one axis"
    return total.reshape(*x.shape[:2], *outputs)


def _keys(t: Tensor) -> Tensor:
    """Keys' cubic kernel (1981) with a = -0.75, for distances up to 2."""
    t = t.abs()
    near = (1.25 * t - 2.25) * t * t + 1
    far = ((-0.75 * t + 3.75) * t - 6) * t + 3
    return torch.where(t <= 1, near, far)


def _inside(
    place: Tensor, weight: Tensor, size: int, corners: bool, padding_mode: str
) -> tuple[Tensor, Tensor]:
    """Whole places brought into the tensor, and weights that are 0 for padding with zeros."""
    if padding_mode == "zeros":
        weight = weight * ((place >= 0) & (place <= size - 1))
    elif padding_mode == "reflection":
        low, span = (0.0, at_least(size - 1, 1)) if corners else (-0.5, size)
        place = low + span - (torch.remainder(place - low, 2 * span) - span).abs()
    return place.clamp(0, size - 1).long(), weight


@op("AffineGrid", since=20)
def affine_grid(theta: Tensor, size: list[int], *, align_corners: int = 0) -> Tensor:
    return functional.affine_grid(theta, size, bool(align_corners))


def _grid_call(d: Draw, x: Tensor, outputs: tuple[int, ...], modes: Sequence[str]) -> Call:
    """Places stay off the ties of `nearest` and the borders, where a rounding decides."""
    places = torch.cat([d.floats((*outputs, 1), -1.2, 1.2) for _ in x.shape[2:]], -1)
    return call(
        x,
        places,
        align_corners=d.maybe(d.integer(0, 1)),
        mode=d.maybe(d.choice(modes)),
        padding_mode=d.maybe(d.choice(["zeros", "border", "reflection"])),
    )


@sample(grid_sample)
def _(d: Draw) -> Call:
    rank = d.integer(2, 3)
    x = d.floats((d.integer(1, 2), d.integer(1, 2), *[d.integer(2, 5) for _ in range(rank)]))
    outputs = (x.shape[0], *[d.integer(1, 4) for _ in range(rank)])
    return _grid_call(d, x, outputs, ["linear", "nearest", "cubic"][: 5 - rank])


@sample(grid_sample_16)
def _(d: Draw) -> Call:
    x = d.floats((d.integer(1, 2), d.integer(1, 2), d.integer(2, 5), d.integer(2, 5)))
    outputs = (x.shape[0], d.integer(1, 4), d.integer(1, 4))
    return _grid_call(d, x, outputs, ["bilinear", "nearest", "bicubic"])


@sample(affine_grid)
def _(d: Draw) -> Call:
    rank, batch = d.integer(2, 3), d.integer(1, 3)
    theta = d.floats((batch, rank, rank + 1), -2, 2)
    size = [batch, d.integer(1, 2), *[d.integer(2, 4) for _ in range(rank)]]
    return call(theta, size, align_corners=d.maybe(d.integer(0, 1)))

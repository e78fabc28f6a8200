"""Moved, selected and compared elements: operators that onnxruntime had before ONNX had them.

Inverse, Trilu, Range, ExpandDims, Pad, GatherND, GridSample, Unique, CDist, UnfoldTensor,
IsAllFinite.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from onnxinterp.ops import gathering, padding, ranges, sampling_grid, selecting
from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.ops.linear_algebra import HALF
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag, Host, Operand


@contrib_op("Inverse")
def inverse(X: Tensor) -> Tensor:
    """The inverse of a singular matrix is nan and inf, not an error."""
    y: Tensor = torch.linalg.inv_ex(X.float() if X.dtype in HALF else X).inverse
    return y.to(X.dtype)


@contrib_op("Trilu", uint64="bits")
def trilu(X: Tensor, k: int | None = None, *, upper: int = 1) -> Tensor:
    return (torch.triu if upper else torch.tril)(X, 0 if k is None else k)


@contrib_op("Range")
def range_(start: Host, limit: Host, delta: Host | None = None, *, device: torch.device) -> Tensor:
    """The step is 1 if it is absent."""
    step = Host(1, start.dtype) if delta is None else delta
    return ranges.range_(start, limit, step, device=device)


@contrib_op("ExpandDims", uint64="bits")
def expand_dims(X: Tensor, axis: int) -> Tensor:
    """The axis is one of the result."""
    return X.unsqueeze(axis)


@contrib_op("Pad", uint64="bits", frozen=("value",))
def pad(
    data: Tensor,
    pads: Host,
    value: Operand | None = None,
    *,
    mode: Literal["constant", "reflect", "edge", "wrap"] = "constant",
) -> Tensor:
    """Pads may be [1, 2 * rank]. The mode "wrap" exists without being documented."""
    if pads.rank > 1 and (pads.rank > 2 or pads.shape[0] != 1):
        raise ValueError(f"pads must have the shape [n] or [1, n], got {list(pads.shape)}")
    return padding.pad(data, pads.numbers, value, mode=mode)


@contrib_op("GatherND", uint64="bits")
def gather_nd(data: Tensor, indices: Tensor) -> Tensor:
    return gathering.gather_nd(data, indices)


@contrib_op("GridSample", strings=False)
def grid_sample(
    X: Tensor,
    Grid: Tensor,
    *,
    align_corners: int = 0,
    mode: Literal["bilinear", "nearest", "bicubic"] = "bilinear",
    padding_mode: Literal["zeros", "border", "reflection"] = "zeros",
) -> Tensor:
    """The grid has the type of X."""
    if not X.is_floating_point():
        raise ValueError("X must be floating-point numbers: the result is, too")
    corners: Flag = 1 if align_corners else 0
    return sampling_grid.grid_sample_16(
        X, Grid, align_corners=corners, mode=mode, padding_mode=padding_mode
    )


@contrib_op("Unique", data_shaped=True, uint64="order")
def unique(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """In the order of the first occurrences."""
    if x.ndim != 1:
        raise ValueError(f"x must be 1-D, got {list(x.shape)}")
    y, _, index, counts = selecting.unique(x, sorted=0)
    return y, index, counts


@contrib_op("CDist")
def cdist(
    A: Tensor, B: Tensor, *, metric: Literal["sqeuclidean", "euclidean"] = "sqeuclidean"
) -> Tensor:
    """Distances of all pairs of rows. onnxruntime has two of the metrics that it documents."""
    if A.ndim != 2 or B.ndim != 2:
        raise ValueError(f"A and B must be 2-D, got {list(A.shape)} and {list(B.shape)}")
    a, b = (A.float(), B.float()) if A.dtype in HALF else (A, B)
    distance = torch.cdist(a, b).to(A.dtype)
    return distance if metric == "euclidean" else distance.square()


@contrib_op("UnfoldTensor")
def unfold_tensor(input: Tensor, *, dim: int = -1, size: int, step: int = 1) -> Tensor:
    """Slices of an axis, which stand in a new last axis."""
    if not input.ndim or size < 1:  # torch takes a number for a row of one
        raise ValueError(f"input must have an axis and size be positive, got {size}")
    return input.unfold(dim, size, step)


@contrib_op("IsAllFinite")
def is_all_finite(*input: Tensor, isinf_only: int = 0, isnan_only: int = 0) -> Tensor:
    """Whether no element is nan, or infinite, or one of the two."""
    if isinf_only and isnan_only:
        raise ValueError("isinf_only and isnan_only must not both be set")
    test = torch.isinf if isinf_only else torch.isnan if isnan_only else _is_not_finite
    return ~torch.stack([test(x).any() for x in input]).any()


def _is_not_finite(x: Tensor) -> Tensor:
    return ~torch.isfinite(x)


@sample(inverse)
def _(d: Draw) -> Call:
    """The diagonal is large enough for all matrices to be invertible."""
    side = d.integer(1, 4)
    x = d.tensor((*d.shape(max_dims=2), side, side), lo=-1, hi=1)
    return call(x + 4 * torch.eye(side, dtype=x.dtype))


@sample(trilu)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=2))
    return call(x, d.maybe(d.integer(-5, 5)), upper=d.maybe(d.integer(0, 1)))


@sample(range_)
def _(d: Draw) -> Call:
    start = d.tensor((), lo=-5, hi=5)
    delta = d.choice([1, 2, 3, -1, -2]) * torch.ones_like(start)
    steps = d.integer(-1, 8)
    whole = not start.is_floating_point()
    limit = start + delta * (steps if whole else steps + 0.5)  # a half step off the brink
    return call(start, limit.to(start.dtype), delta if int(delta) != 1 else d.maybe(delta))


@sample(expand_dims)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape())
    axis = d.axis(x.ndim + 1)
    return call(x, torch.tensor(d.choice([axis, [axis]]), dtype=torch.int32))


@sample(pad)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=1, max_side=5))
    mode = d.maybe(d.choice(["constant", "reflect", "edge", "wrap"]))
    mode = "constant" if mode is not None and 0 in x.shape else mode
    most = [max(n - 1, 0) if mode == "reflect" else 3 for n in x.shape]
    begins = [d.integer(-1 if n > 2 else 0, m) for n, m in zip(x.shape, most, strict=True)]
    ends = [d.integer(0, max(m + min(b, 0), 0)) for b, m in zip(begins, most, strict=True)]
    value = d.maybe(d.tensor(d.choice([(), (1,)])))
    return call(x, [*begins, *ends], value, mode=mode)


@sample(gather_nd)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=1, max_dims=3))
    depth, count = d.integer(1, x.ndim), d.shape(max_dims=2)
    count = count if all(x.shape[:depth]) else (0,)
    columns = [d.ints(count, -n, max(n - 1, 0), d.dtype("Tind")) for n in x.shape[:depth]]
    return call(x, torch.stack(columns, -1))


@sample(grid_sample)
def _(d: Draw) -> Call:
    """Positions without ties of `nearest` and without borders, where rounding decides."""
    side, corners = d.integer(2, 5), d.maybe(d.integer(0, 1))
    batch, channels = d.shape(2, 2)
    step = 2 / (side - 1) if corners else 2 / side
    places = d.ints((batch, *d.shape(2, 2), 2), -1, side)
    offset = d.choice([0.25, 0.375, -0.125])
    grid = (places + offset) * step - 1 + (0 if corners else step / 2)
    x = d.tensor((batch, channels, side, side), "T1")
    floating = isinstance(x, Tensor) and x.is_floating_point()
    return call(
        x,
        grid.to(x.dtype) if floating else d.tensor(grid.shape, "T1"),
        align_corners=corners,
        mode=d.maybe(d.choice(["bilinear", "nearest", "bicubic"])),
        padding_mode=d.maybe(d.choice(["zeros", "border", "reflection"])),
    )


@sample(unique)
def _(d: Draw) -> Call:
    return call(d.tensor(d.shape(min_dims=1, max_dims=1, max_side=8), lo=-2, hi=2), outputs=3)


@sample(cdist)
def _(d: Draw) -> Call:
    """Rows that differ: near 0, rounding decides in onnxruntime's formula."""
    m, k, n = d.integer(1, 4), d.integer(1, 4), d.integer(1, 4)
    metric = d.maybe(d.choice(["sqeuclidean", "euclidean"]))
    return call(d.tensor((m, k), lo=-3, hi=-1), d.tensor((n, k), lo=1, hi=3), metric=metric)


@sample(unfold_tensor)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=1, max_side=6, min_side=2))
    dim = d.axis(x.ndim)
    size = d.integer(1, x.shape[dim])
    return call(x, dim=dim if dim != -1 else d.maybe(dim), size=size, step=d.maybe(d.integer(1, 3)))


@sample(is_all_finite)
def _(d: Draw) -> Call:
    tensors = [d.tensor(d.shape(min_dims=1), "V") for _ in range(d.integer(1, 3))]
    for x in tensors:
        if x.numel():
            x.view(-1)[0] = d.choice([0.0, math.inf, -math.inf, math.nan])
    setting = d.choice([{}, {"isinf_only": 1}, {"isnan_only": 1}, {"isinf_only": 0}])
    return call(*tensors, **setting)

"""Select elements by value or position: OneHot, Compress, NonZero, Unique, Trilu.

History: OneHot 9, 11 (negative axis), 28 (bfloat16). Compress 9, 11 (negative axis), 28.
NonZero 9, 13. Unique 11, 28. Trilu 14.

The output shapes of Compress, NonZero and Unique depend on the data.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from onnxinterp.ops.shapes import from_front
from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call, draw_axis
from onnxinterp.values import Flag, Scalar


@op("OneHot", since=9, frozen=("indices", "depth"))
def one_hot(indices: Tensor, depth: Scalar, values: Tensor, *, axis: int = -1) -> Tensor:
    """values[1] at the indices, values[0] elsewhere and for indices out of range."""
    depth = int(depth) if isinstance(depth, float) else depth
    places = indices.long()
    if indices.dtype is not torch.uint64:  # the greatest are negative as int64, and out of range
        places = torch.where(places < 0, places + depth, places)
    places = places.unsqueeze(axis)
    sizes = [1] * places.ndim
    sizes[axis] = depth
    hot = places == torch.arange(depth, device=indices.device).reshape(sizes)
    if values.ndim != 1:
        raise ValueError(f"values must have rank 1, got {values.ndim}")
    off, on = values.unbind()
    return torch.where(hot, on, off)


@op("Compress", since=9, data_shaped=True)
def compress(input: Tensor, condition: Tensor, *, axis: int | None = None) -> Tensor:
    """Without an axis the input is flattened. The condition may be shorter than the axis."""
    if condition.ndim != 1:
        raise ValueError(f"condition must have rank 1, got {condition.ndim}")
    chosen = condition.nonzero().flatten()
    return input.flatten()[chosen] if axis is None else input.index_select(axis, chosen)


@op("NonZero", since=9, data_shaped=True, uint64="bits")
def non_zero(X: Tensor) -> Tensor:
    """One row per axis, none for a scalar; onnxruntime, against the specification, returns one."""
    return X.nonzero().T


@op("Unique", since=11, data_shaped=True, uint64="order")
def unique(
    X: Tensor, *, axis: int | None = None, sorted: Flag = 1
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Y, the first positions in X, the index in Y of each element of X, and the counts.

    Y is gathered from X at the first positions, so that gradients flow.
    """
    seen, dim = X, axis
    if X.is_complex():  # torch cannot compare complex numbers; pairs of parts have their order
        seen, dim = (X.flatten(), 0) if axis is None else (X, from_front(axis, X.ndim))
        seen = torch.view_as_real(seen)
    with torch.no_grad():
        _, inverse, counts = torch.unique(seen, return_inverse=True, return_counts=True, dim=dim)
    inverse = inverse.flatten()
    places = torch.arange(inverse.shape[0], device=X.device)
    first = torch.full_like(counts, inverse.shape[0]).scatter_reduce(0, inverse, places, "amin")
    if not sorted:
        order = first.argsort()
        first, counts, inverse = first[order], counts[order], order.argsort()[inverse]
    Y = X.flatten()[first] if axis is None else X.index_select(axis, first)
    return Y, first, inverse, counts


@op("Trilu", since=14, uint64="bits")
def trilu(input: Tensor, k: int | None = None, *, upper: Flag = 1) -> Tensor:
    """Zero below the k-th diagonal, or above it."""
    return (torch.triu if upper else torch.tril)(input, 0 if k is None else k)


@sample(one_hot)
def _(d: Draw) -> Call:
    depth = d.integer(1, 5)
    lowest = -depth - 1 if d.dtype("T1").is_signed else 0
    indices = d.ints(d.shape(min_dims=1, max_dims=3), lowest, depth + 1, d.dtype("T1"))
    axis = d.axis(indices.ndim + 1) if d.opset >= 11 else d.integer(-1, indices.ndim)
    size = torch.tensor(depth).to(d.dtype("T2"))
    return call(indices, size, d.tensor((2,), "T3"), axis=d.maybe(axis))


@sample(compress)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=1))
    axis = draw_axis(d, x.ndim)
    axis_or_none = d.maybe(axis)
    n = math.prod(x.shape) if axis_or_none is None else x.shape[axis]
    condition = d.ints((d.integer(min(1, n), n),), 0, 1).bool()
    return call(x, condition, axis=axis_or_none)


@sample(non_zero)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=1), lo=-2, hi=2)
    whole = isinstance(x, Tensor) and x.is_floating_point()
    return call(x.round() if whole else x)  # so that some elements are zero


@sample(unique)
def _(d: Draw) -> Call:
    """Integers with equal elements; floats that all differ.

    A gradient of equal floats cannot be measured: after a step they are not equal.
    """
    x = d.tensor(d.shape(min_dims=1), lo=-2, hi=2)
    axis = d.maybe(d.axis(x.ndim)) if math.prod(x.shape) else None
    return call(x, axis=axis, sorted=d.maybe(d.integer(0, 1)), outputs=d.integer(1, 4))


@sample(trilu)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=2))
    return call(x, d.maybe(d.integer(-4, 4)), upper=d.maybe(d.integer(0, 1)))

"""Elements read by index: Gather, GatherElements, GatherND, ReverseSequence.

History: Gather 1, 11 (negative indices), 13. GatherElements 11, 13. GatherND 11, 12 (batch_dims),
13. ReverseSequence 10, 28 (bfloat16).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from onnxinterp.ops.host_views import elements_at, host_array, rows_at, taken
from onnxinterp.ops.shapes import from_front
from onnxinterp.registry import host, op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.torch_weights import TorchWeight, leaf, torch_weights
from onnxinterp.values import HOST_LENGTH, Host, Operand, is_known
from onnxinterp.versions import older


def from_the_front(indices: Tensor, size: int) -> Tensor:
    """Indices from the front for negative ones; indices out of range stay so and raise later."""
    return torch.where(indices < 0, indices + size, indices)


def within(numbers: Tensor, most: int) -> Tensor:
    """Return the numbers; one outside of 0 to `most` raises as an index does."""
    return torch.arange(most + 1, device=numbers.device).index_select(0, numbers)


@op("Gather", since=1, uint64="bits")
def gather(data: Tensor, indices: Operand, *, axis: int = 0) -> Tensor:
    """The axes of the indices replace the axis."""
    if not isinstance(indices, Tensor):
        return data.select(axis, int(indices))
    axis = from_front(axis, data.ndim)
    indices = from_the_front(indices, data.shape[axis])
    if axis == 0 and data.ndim == 2 and data.is_floating_point():
        return functional.embedding(indices, data)
    rows = data.index_select(axis, indices.flatten())
    return rows.reshape((*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]))


torch_weights("Gather", when=lambda a: not a.get("axis"), data=[TorchWeight(("weight",), rank=2)])


@leaf(gather, weight="data")
def _(data: Tensor, *, axis: int) -> nn.Module | None:
    """Negative indices are an error of torch's layer."""
    if data.ndim != 2 or axis not in (0, -2):
        return None
    rows, columns = data.shape
    return nn.Embedding(rows, columns, device="meta")


@host(gather)
def _(data: Host, indices: Host, *, axis: int = 0) -> Any:
    if not all(map(is_known, indices.numbers)):
        return NotImplemented
    return taken(data, indices, from_front(axis, data.rank))


@op("GatherElements", since=11, uint64="bits")
def gather_elements(data: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """The result has the shape of the indices; their other sizes may be less than those of data."""
    if indices.ndim != data.ndim:  # torch accepts rank 0 for rank 1
        raise ValueError(f"indices must have rank {data.ndim}, got {indices.ndim}")
    return data.gather(axis, from_the_front(indices, data.shape[axis]).long())


@host(gather_elements)
def _(data: Host, indices: Host, *, axis: int = 0) -> Any:
    if not are_inside(data, indices, axis):
        return NotImplemented
    found = elements_at(data.shape, indices, axis % data.rank)
    return host_array([data.numbers[i] for i in found], data, indices.shape)


def are_inside(data: Host, indices: Host, axis: int) -> bool:
    """Whether indices are known, and no larger than data along any other axis."""
    if indices.rank != data.rank or not -data.rank <= axis < data.rank:
        return False  # the kernel raises
    sizes = list(zip(indices.shape, data.shape, strict=True))
    del sizes[axis]
    return all(map(is_known, indices.numbers)) and all(n <= most for n, most in sizes)


@op("GatherND", since=12, uint64="bits")
def gather_nd(data: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    """The last axis of the indices has positions in the axes of data after the batch."""
    if not 0 <= batch_dims < min(data.ndim, indices.ndim):
        raise ValueError(f"batch_dims must be below all ranks, got {batch_dims}")
    depth, batch = indices.shape[-1], data.shape[:batch_dims]
    if not 1 <= depth <= data.ndim - batch_dims or indices.shape[:batch_dims] != batch:
        raise ValueError(f"indices must fit data {list(data.shape)}, got {list(indices.shape)}")
    if indices.ndim == 1:  # indexing by a scalar would read it into a number
        return gather_nd(data, indices[None])[0]
    places = list(indices.unbind(-1))
    for axis, n in enumerate(batch):
        sizes = [1] * (indices.ndim - 1)
        sizes[axis] = n
        places.insert(axis, torch.arange(n, device=data.device).reshape(sizes))
    return data[tuple(places)]


gather_nd_11 = older(gather_nd, since=11, without=["batch_dims"])


@host(gather_nd)
def _(data: Host, indices: Host, *, batch_dims: int = 0) -> Any:
    if batch_dims or not have_places(data, indices):
        return NotImplemented
    behind = data.shape[indices.shape[-1] :]
    n, starts = math.prod(behind), rows_at(data.shape, indices)
    if len(starts) * n > HOST_LENGTH:
        return NotImplemented
    numbers = [data.numbers[start + i] for start in starts for i in range(n)]
    return host_array(numbers, data, (*indices.shape[:-1], *behind))


def have_places(data: Host, indices: Host) -> bool:
    """Whether the last axis of indices has known positions in the first axes of data."""
    depth = indices.shape[-1] if indices.rank else 0
    return 1 <= depth <= data.rank and all(map(is_known, indices.numbers))


@op("ReverseSequence", since=10)
def reverse_sequence(
    input: Tensor,
    sequence_lens: Tensor,
    *,
    batch_axis: Literal[0, 1] = 1,
    time_axis: Literal[0, 1] = 0,
) -> Tensor:
    """Reverse the first `length` steps of each row of the batch; the others do not change."""
    if batch_axis == time_axis:
        raise ValueError(f"time_axis must not be batch_axis, got {time_axis}")
    if sequence_lens.shape != input.shape[batch_axis : batch_axis + 1]:
        raise ValueError(f"sequence_lens must be one per row, got {list(sequence_lens.shape)}")
    time = torch.arange(input.shape[time_axis], device=input.device)
    lengths = within(sequence_lens, input.shape[time_axis])[:, None]
    source = torch.where(time < lengths, lengths - 1 - time, time)
    if batch_axis > time_axis:
        source = source.T
    source = source.reshape(*source.shape, *[1] * (input.ndim - 2))
    return input.gather(time_axis, source.expand(input.shape))


def _indices(d: Draw, shape: tuple[int, ...], n: int, dtype: torch.dtype = torch.int64) -> Tensor:
    """Indices into an axis of size `n`; negative ones if the version has them."""
    return d.ints(shape, -n if d.opset >= 11 else 0, n - 1, dtype)


@sample(gather)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=1))
    axis = d.axis(x.ndim)
    shape = d.shape(max_dims=2) if x.shape[axis] else (0,)
    indices = _indices(d, shape, x.shape[axis] or 1, d.dtype("Tind"))
    return call(x, indices, axis=axis)


@sample(gather_elements)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=1))
    axis = d.axis(x.ndim)
    shape = [d.integer(1, n) if n else 0 for n in x.shape]
    if x.shape[axis]:
        shape[axis] = d.integer(1, 5)
    return call(x, _indices(d, tuple(shape), x.shape[axis] or 1, d.dtype("Tind")), axis=axis)


@sample(gather_nd)
def _(d: Draw) -> Call:
    sizes = d.shape(min_dims=1, min_side=2)
    batch_dims = d.integer(0, len(sizes) - 1) if d.opset >= 12 else 0
    depth = d.integer(1, len(sizes) - batch_dims)
    shape = (*sizes[:batch_dims], *d.shape(max_dims=2))
    picked = [_indices(d, shape, n) for n in sizes[batch_dims : batch_dims + depth]]
    batch = batch_dims if d.opset >= 12 else None
    return call(d.tensor(sizes), torch.stack(picked, -1), batch_dims=batch)


@sample(reverse_sequence)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=2))
    time_axis = d.integer(0, 1)
    lengths = d.ints((x.shape[1 - time_axis],), min(1, x.shape[time_axis]), x.shape[time_axis])
    return call(x, lengths, time_axis=time_axis, batch_axis=1 - time_axis)

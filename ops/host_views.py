"""Host values as views of others: what a stride is to a tensor, a choice of its numbers is here.

Operators that move elements and change none need no rule of their own for numbers: they say where
each element of the result is in the input, by sizes and strides or by indices along an axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from onnxinterp.values import HOST_LENGTH, HOST_MATRIX_LENGTH, Host


def host_array(numbers: list[Any], like: Host, shape: Sequence[int]) -> Any:
    """A host value of the dtype of another; NotImplemented where it is too large for one."""
    most = HOST_LENGTH if len(shape) <= 1 else HOST_MATRIX_LENGTH
    if len(numbers) > most:
        return NotImplemented
    return Host(numbers, like.dtype, tuple(shape))


def strides_of(shape: Sequence[int]) -> list[int]:
    """How far apart neighbours along each axis are in row-major order."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 1, 0, -1):
        strides[axis - 1] = strides[axis] * shape[axis]
    return strides


def places(sizes: Sequence[int], strides: Sequence[int], start: int = 0) -> list[int]:
    """Where the elements of a view are in the numbers of its base, in row-major order."""
    found = [start]
    for size, stride in zip(sizes, strides, strict=True):
        found = [place + i * stride for place in found for i in range(size)]
    return found


def strided(data: Host, sizes: Sequence[int], strides: Sequence[int], start: int = 0) -> Any:
    """The view of `sizes` whose neighbours are `strides` apart; NotImplemented if too large."""
    if math.prod(sizes) > HOST_LENGTH:
        return NotImplemented
    numbers = [data.numbers[place] for place in places(sizes, strides, start)]
    return host_array(numbers, data, sizes)


def permuted(data: Host, perm: Sequence[int]) -> Any:
    """The axes in another order."""
    strides = strides_of(data.shape)
    return strided(data, [data.shape[axis] for axis in perm], [strides[axis] for axis in perm])


def broadcast_shape(*shapes: Sequence[int]) -> tuple[int, ...] | None:
    """The shape that all broadcast to; None where there is none."""
    longest = max(shapes, key=len)
    sizes = list(longest)
    for shape in shapes:
        if shape == longest or not shape:
            continue
        for axis, n in enumerate(shape, len(sizes) - len(shape)):
            if n != 1 and sizes[axis] not in (1, n):
                return None
            sizes[axis] = sizes[axis] if n == 1 else n
    return tuple(sizes)


def expanded(data: Host, shape: Sequence[int]) -> Any:
    """Repeated along axes of size 1, and along new ones, up to a shape it broadcasts to."""
    if data.shape == tuple(shape):
        return data
    if len(data.numbers) == 1 and math.prod(shape) <= HOST_LENGTH:
        return host_array(data.numbers * math.prod(shape), data, shape)
    new = len(shape) - data.rank
    own = zip(data.shape, strides_of(data.shape), strict=True)
    return strided(data, shape, [0] * new + [stride if n != 1 else 0 for n, stride in own])


def joined(inputs: Sequence[Host], axis: int) -> Any:
    """Host values that differ in the size of one axis only, one after the other along it."""
    first = inputs[0]
    if sum([len(x.numbers) for x in inputs]) > HOST_LENGTH:
        return NotImplemented
    if first.rank == 1:
        return Host([n for x in inputs for n in x.numbers], first.dtype)
    before, behind = first.shape[:axis], first.shape[axis + 1 :]
    if any((x.shape[:axis], x.shape[axis + 1 :]) != (before, behind) for x in inputs):
        return NotImplemented
    rows: list[Any] = []
    for i in range(math.prod(before)):
        for x in inputs:
            n = x.shape[axis] * math.prod(behind)
            rows += x.numbers[i * n : (i + 1) * n]
    return host_array(rows, first, (*before, sum([x.shape[axis] for x in inputs]), *behind))


def from_index(size: int, index: int) -> int:
    """A place from the front for an index, which may be negative.

    Raises:
        IndexError: there is no such element.
    """
    if not -size <= index < size:
        raise IndexError(f"an index must be {-size} to {size - 1}, got {index}")
    return index % size


def taken(data: Host, indices: Host, axis: int) -> Any:
    """The parts that indices name along an axis: the axes of the indices replace it."""
    if data.rank == 1:
        found = [data.numbers[index] for index in indices.numbers]
        return host_array(found, data, indices.shape)
    before, size, behind = data.shape[:axis], data.shape[axis], data.shape[axis + 1 :]
    shape = (*before, *indices.shape, *behind)
    if math.prod(shape) > HOST_LENGTH:
        return NotImplemented
    n, chosen = math.prod(behind), [from_index(size, index) for index in indices.numbers]
    rows = [row * size + place for row in range(math.prod(before)) for place in chosen]
    return host_array([data.numbers[r * n + j] for r in rows for j in range(n)], data, shape)


def rows_at(shape: Sequence[int], indices: Host) -> list[int]:
    """Where the parts begin whose positions in the first axes are the last axis of `indices`."""
    depth = indices.shape[-1]
    axes = list(zip(shape, strides_of(shape), strict=True))[:depth]
    found = []
    for i in range(math.prod(indices.shape[:-1])):
        row = zip(axes, indices.numbers[i * depth : (i + 1) * depth], strict=True)
        found.append(sum([from_index(size, index) * stride for (size, stride), index in row]))
    return found


def elements_at(shape: Sequence[int], indices: Host, axis: int) -> list[int]:
    """Where the elements are that `indices`, of the same rank, name along one axis."""
    strides = strides_of(shape)
    others = [0 if i == axis else stride for i, stride in enumerate(strides)]
    pairs = zip(places(indices.shape, others), indices.numbers, strict=True)
    return [place + from_index(shape[axis], index) * strides[axis] for place, index in pairs]

"""Join tensors along an axis, split or repeat one: Concat, Split, Tile.

History: Concat 1 (axis is 1 if absent), 4 (axis is required), 11 (negative axis), 13.
Split 1 (sizes by input or attribute), 2 (by attribute), 11 (negative axis), 13 (by input),
18 (num_outputs; the last part may be smaller). Tile 1 (one axis), 6 (repeats of all axes), 13.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from onnxinterp.ops.host_views import host_array, joined, places, strided, strides_of
from onnxinterp.registry import host, op, sample
from onnxinterp.testing.samples import Call, Draw, call, draw_axis, draw_integers
from onnxinterp.values import HOST_LENGTH, Floats, Host, Ints, Scalar, is_known
from onnxinterp.versions import older


@op("Concat", since=4)
def concat(*inputs: Tensor, axis: int) -> Tensor:
    if any(x.ndim != inputs[0].ndim for x in inputs):  # torch ignores an empty tensor of rank 1
        raise ValueError(f"inputs must have one rank, got {[x.ndim for x in inputs]}")
    return torch.cat(inputs, axis)


@op("Concat", since=1)
def concat_1(*inputs: Tensor, axis: int | None = None) -> Tensor:
    """The default is 1 in the text of the specification; the schema has none."""
    return concat(*inputs, axis=1 if axis is None else axis)


@host(concat, concat_1)
def _(*inputs: Host, axis: int | None = None) -> Any:
    rank, axis = inputs[0].rank, 1 if axis is None else axis
    if any(x.rank != rank for x in inputs) or not -rank <= axis < rank:
        return NotImplemented  # the kernel raises
    return joined(inputs, axis % rank)


@op("Split", since=18)
def split(
    input: Tensor,
    split: Ints | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,
    n_outputs: int,
) -> tuple[Tensor, ...]:
    if num_outputs not in (None, n_outputs):
        raise ValueError(f"num_outputs must be {n_outputs} as the node has, got {num_outputs}")
    return torch.split(input, _sizes(input.shape[axis], split, n_outputs), axis)


@op("Split", since=13)
def split_13(
    input: Tensor, split: Ints | None = None, *, axis: int = 0, n_outputs: int
) -> tuple[Tensor, ...]:
    """The parts are equal if there are no sizes."""
    size = input.shape[axis]
    if split is None and is_known(size) and size % n_outputs:
        raise ValueError(f"the size of the axis must be divisible by {n_outputs}, got {size}")
    return torch.split(input, _sizes(size, split, n_outputs), axis)


split_2 = older(split_13, since=2, attributes=["split"])


@op("Split", since=1)
def split_1(
    input: Tensor,
    split_: Floats | None = None,
    *,
    axis: int | None = None,
    split: Ints | None = None,
    n_outputs: int,
) -> tuple[Tensor, ...]:
    """The schema calls an input and an attribute `split`; the input has the underscore here."""
    sizes = split if split_ is None else [int(n) for n in split_]
    return split_13(input, sizes, axis=axis or 0, n_outputs=n_outputs)


def _sizes(size: int, sizes: Ints | None, n: int) -> Ints:
    """The given sizes, or `n` equal ones; the last one may be smaller.

    Raises:
        ValueError: the number of given sizes is not `n`.
    """
    if sizes is not None:
        if len(sizes) != n:
            raise ValueError(f"split must have {n} sizes, got {len(sizes)}")
        return sizes
    part = (size + n - 1) // n
    return [part] * (n - 1) + [size - part * (n - 1)]


@host(split, split_13)
def _(
    input: Host,
    split: Ints | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,
    n_outputs: int,
) -> Any:
    if not -input.rank <= axis < input.rank or num_outputs not in (None, n_outputs):
        return NotImplemented  # the kernel raises
    shape, strides, axis = input.shape, strides_of(input.shape), axis % input.rank
    size = shape[axis]
    if size % n_outputs if split is None else len(split) != n_outputs:
        return NotImplemented  # the kernel raises
    sizes = _sizes(size, split, n_outputs)
    if not all(is_known(n) and n >= 0 for n in sizes) or sum(sizes) != size:
        return NotImplemented
    starts = accumulate(sizes, initial=0)
    return tuple(
        strided(input, (*shape[:axis], n, *shape[axis + 1 :]), strides, start * strides[axis])
        for n, start in zip(sizes, starts, strict=False)
    )


@op("Tile", since=6)
def tile(input: Tensor, repeats: Ints) -> Tensor:
    if len(repeats) != input.ndim:  # torch adds axes for more repeats
        raise ValueError(f"repeats must have {input.ndim} numbers, got {repeats}")
    return input.repeat(repeats)


@op("Tile", since=1)
def tile_1(input: Tensor, tiles: Scalar, axis: Scalar) -> Tensor:
    """The counts have the type of the input, floats."""
    repeats = [1] * input.ndim
    repeats[int(axis)] = int(tiles)
    return input.repeat(repeats)


@host(tile)
def _(input: Host, repeats: Ints) -> Any:
    if len(repeats) != input.rank:
        return NotImplemented  # the kernel raises
    if not all(is_known(n) and n >= 0 for n in repeats):
        return NotImplemented
    sizes = [n for pair in zip(repeats, input.shape, strict=True) for n in pair]
    strides = [n for stride in strides_of(input.shape) for n in (0, stride)]
    if math.prod(sizes) > HOST_LENGTH:
        return NotImplemented
    numbers = [input.numbers[place] for place in places(sizes, strides)]
    shape = [n * count for n, count in zip(input.shape, repeats, strict=True)]
    return host_array(numbers, input, shape)


@sample(concat, concat_1)
def _(d: Draw) -> Call:
    sizes = list(d.shape(min_dims=1))
    axis = draw_axis(d, len(sizes))
    inputs = []
    for _ in range(d.integer(1, 3)):
        sizes[axis] = d.integer(1, 3)
        inputs.append(d.tensor(sizes))
    return call(*inputs, axis=axis)


def _parts(d: Draw) -> tuple[Tensor, int, list[int], bool]:
    """A tensor, an axis, sizes for a split along it, and whether they are equal."""
    shape = list(d.shape(min_dims=1))
    axis, equal, n = draw_axis(d, len(shape)), d.boolean(), d.integer(1, 3)
    sizes = [d.integer(1, 3)] * n if equal else draw_integers(d, n, 0, 3)
    shape[axis] = sum(sizes)
    return d.tensor(shape), axis, sizes, equal


@sample(split, split_13, split_1)
def _(d: Draw) -> Call:
    x, axis, sizes, equal = _parts(d)
    n = len(sizes)
    if d.opset >= 18 and equal:
        return call(x, axis=axis, num_outputs=n, outputs=n)
    given = None if equal and d.boolean() else sizes
    if d.opset >= 13:
        return call(x, given, axis=axis, outputs=n)
    return call(x, split=given, axis=axis, outputs=n)


@sample(tile)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=1))
    return call(x, [d.integer(0, 3) for _ in x.shape])


@sample(tile_1)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=1))
    tiles, axis = torch.tensor(d.integer(1, 3)), torch.tensor(d.integer(0, x.ndim - 1))
    return call(x, tiles.to(x.dtype), axis.to(x.dtype))

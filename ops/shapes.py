"""Operators that change or return shapes, not elements.

Shape, Size, Reshape, Flatten, Squeeze, Unsqueeze, Transpose, Identity, Expand, DepthToSpace,
SpaceToDepth.

History: Shape 1, 13, 15 (start, end), 19-25 (types). Size 1, 13-25 (types).
Reshape 1 (shape is an attribute), 5, 13, 14 (allowzero), 19-25 (types). Flatten 1, 9, 11 (negative
axis), 13-25 (types). Squeeze and Unsqueeze 1 (axes are an attribute), 11 (negative axes), 13,
21-25 (types). Transpose 1, 13-25 (types). Identity 1, 13, 14 (sequences), 16 (optionals), 19-25
(types). Expand 8, 13. DepthToSpace 1, 11 (mode), 13, 28 (types). SpaceToDepth 1, 13, 28 (mode).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from onnxinterp.ops.host_views import broadcast_shape, expanded, host_array, permuted
from onnxinterp.registry import host, op, sample
from onnxinterp.testing.samples import Call, Draw, call, one_tensor
from onnxinterp.torch_weights import Sizes, TorchWeight, layout, torch_weights
from onnxinterp.values import Flag, Host, Ints, is_known
from onnxinterp.versions import older

MOST_DIMENSIONS = 64  # of a torch tensor: longer lists are data, and are tensors


def from_front(axis: int, rank: int) -> int:
    """An axis counted from the front.

    Raises:
        IndexError: there is no such axis.
    """
    if not -rank <= axis < rank:
        raise IndexError(f"axis must be {-rank} to {rank - 1}, got {axis}")
    return axis % rank


def axes_from_front(axes: Sequence[int], rank: int) -> list[int]:
    """Different axes, counted from the front.

    Raises:
        IndexError: there is no such axis.
        ValueError: an axis is repeated.
    """
    found = [from_front(axis, rank) for axis in axes]
    if len(set(found)) < len(found):
        raise ValueError(f"axes must differ, got {list(axes)}")
    return found


@op("Shape", since=15)
def shape(data: Tensor, *, end: int | None = None, start: int = 0) -> Host:
    """Sizes from `start` to `end`, both clamped as in a Python slice."""
    return Host(list(data.shape[start:end]))


shape_1 = older(shape, since=1, without=["end", "start"])


@op("Size", since=1)
def size(data: Tensor) -> Host:
    return Host(math.prod(data.shape))


@host(shape)
def _(data: Host, *, end: int | None = None, start: int = 0) -> Host:
    return Host(list(data.shape[start:end]))


@host(size)
def _(data: Host) -> Host:
    return Host(len(data.numbers))


def _is(size: int, number: int) -> bool:
    return is_known(size) and size == number


@op("Reshape", since=14)
def reshape(data: Tensor, shape: Ints, *, allowzero: Flag = 0) -> Tensor:
    """A 0 in the shape copies the size of the input unless `allowzero` is 1."""
    if allowzero or not (torch.compiler.is_compiling() or 0 in shape):
        return data.reshape(shape)
    return data.reshape([data.shape[i] if _is(n, 0) else n for i, n in enumerate(shape)])


reshape_5 = older(reshape, since=5, without=["allowzero"])


@op("Reshape", since=1)
def reshape_1(data: Tensor, *, shape: Ints | None = None) -> Tensor:
    return data if shape is None else reshape(data, shape)


@host(reshape)
def _(data: Host, shape: Ints, *, allowzero: Flag = 0) -> Any:
    if not all(map(is_known, shape)) or len(shape) > MOST_DIMENSIONS:
        return NotImplemented
    sizes, count = list(shape), len(data.numbers)
    if 0 in sizes and not allowzero:
        kept = (*data.shape, *[0] * len(shape))
        sizes = [n or size for n, size in zip(sizes, kept, strict=False)]
    if -1 in sizes and (rest := -math.prod(sizes)) > 0 and count % rest == 0:
        sizes[sizes.index(-1)] = count // rest
    fits = math.prod(sizes) == count and min(sizes, default=0) >= 0
    return host_array(data.numbers, data, sizes) if fits else NotImplemented


@op("Flatten", since=1)
def flatten(input: Tensor, *, axis: int = 1) -> Tensor:
    """Return a matrix: the axes before `axis`, and those from it on."""
    sizes = input.shape
    if not -len(sizes) <= axis <= len(sizes):
        raise IndexError(f"axis must be {-len(sizes)} to {len(sizes)}, got {axis}")
    return input.reshape(math.prod(sizes[:axis]), math.prod(sizes[axis:]))


@host(flatten)
def _(input: Host, *, axis: int = 1) -> Any:
    sizes = input.shape
    if not -len(sizes) <= axis <= len(sizes):
        return NotImplemented  # the kernel raises
    return host_array(input.numbers, input, (math.prod(sizes[:axis]), math.prod(sizes[axis:])))


@op("Squeeze", since=13)
def squeeze(data: Tensor, axes: Ints | None = None) -> Tensor:
    if axes is None:
        return data.squeeze()
    if any(data.shape[axis] != 1 for axis in axes):
        raise ValueError(f"axes {axes} must have size 1, got {list(data.shape)}")
    return data.squeeze(axes)


@op("Squeeze", since=1)
def squeeze_1(data: Tensor, *, axes: Ints | None = None) -> Tensor:
    return squeeze(data, axes or None)  # an empty list counts as absent, as in all runtimes


@host(squeeze_1)
def _(data: Host, *, axes: Ints | None = None) -> Any:
    return squeeze_host(data, axes or None)


@host(squeeze)
def squeeze_host(data: Host, axes: Ints | None = None) -> Any:
    if axes is None:
        return host_array(data.numbers, data, [n for n in data.shape if n != 1])
    sizes = list(data.shape)
    for axis in sorted(axes_from_front(axes, data.rank), reverse=True):
        if sizes.pop(axis) != 1:
            return NotImplemented  # the kernel raises
    return host_array(data.numbers, data, sizes)


@op("Unsqueeze", since=13)
def unsqueeze(data: Tensor, axes: Ints) -> Tensor:
    """The axes are those of the result, in any order."""
    for axis in sorted(axes_from_front(axes, data.ndim + len(axes))):
        data = data.unsqueeze(axis)
    return data


unsqueeze_1 = older(unsqueeze, since=1, attributes=["axes"])


@host(unsqueeze)
def _(data: Host, axes: Ints) -> Any:
    sizes = list(data.shape)
    for axis in sorted(axes_from_front(axes, data.rank + len(axes))):
        sizes.insert(axis, 1)
    return host_array(data.numbers, data, sizes)


@op("Transpose", since=1)
def transpose(data: Tensor, *, perm: Ints | None = None) -> Tensor:
    if perm and min(perm) < 0:
        raise ValueError(f"perm must be a permutation of {data.ndim} axes, got {perm}")
    return data.permute(perm if perm is not None else list(reversed(range(data.ndim))))


TRANSPOSED = layout(
    "transposed",
    transpose,
    split=lambda stored: (stored.t(),),
    sizes=lambda shape: (tuple(shape)[::-1],) if len(shape) == 2 else (),
    perm=[1, 0],
)
"""The weight of a linear layer, as its product is computed."""


def per_channel(weight: Tensor, *, shape: list[int]) -> Tensor:
    """A vector that broadcasts along the axis of channels."""
    return weight.reshape(shape)


def _channels(sizes: Sizes, shape: list[int]) -> tuple[Sizes, ...]:
    """The size of the vector of such a tensor; () where it is none."""
    axis = shape.index(-1)
    fits = len(sizes) == len(shape) and all(n == 1 for i, n in enumerate(sizes) if i != axis)
    return ((sizes[axis],),) if fits else ()


PER_CHANNEL = [
    layout(
        f"per_channel_{len(shape)}_{shape.index(-1)}",
        per_channel,
        split=lambda stored: (stored.reshape(-1),),
        sizes=partial(_channels, shape=shape),
        shape=shape,
    )
    for ones in (1, 2, 3)
    for shape in ([-1, *[1] * ones], [1, -1, *[1] * ones])
]
"""Vectors with axes of size 1 behind them, for one to three spatial axes."""

torch_weights(  # an exporter that does not fold it
    "Transpose", when=lambda a: a.get("perm") == [1, 0], data=[TorchWeight(("weight",), rank=2)]
)


@host(transpose)
def _(data: Host, *, perm: Ints | None = None) -> Any:
    axes = list(range(data.rank))
    if perm is not None and sorted(perm) != axes:
        return NotImplemented  # the kernel raises
    return permuted(data, axes[::-1] if perm is None else perm)


@op("Identity", since=1, alias=True)
def identity(input: Any) -> Any:
    return input


host(identity)(identity)


@op("Expand", since=8)
def expand(input: Tensor, shape: Ints) -> Tensor:
    """Broadcast in both directions: a 1 in the shape keeps the size of the input."""
    if any(is_known(n) and n < 0 for n in shape):  # torch keeps a size for -1
        raise ValueError(f"shape must not be negative, got {shape}")
    new = max(len(shape) - input.ndim, 0)
    kept = [-1] * (input.ndim - len(shape))
    wanted = [-1 if i >= new and _is(n, 1) else n for i, n in enumerate(shape)]
    return input.expand(kept + wanted)


@host(expand)
def _(input: Host, shape: Ints) -> Any:
    if not all(map(is_known, shape)) or min(shape, default=0) < 0:
        return NotImplemented
    sizes = broadcast_shape(input.shape, shape)
    return NotImplemented if sizes is None else expanded(input, sizes)


@op("DepthToSpace", since=11)
def depth_to_space(input: Tensor, *, mode: Literal["DCR", "CRD"] = "DCR", blocksize: int) -> Tensor:
    """Channels are (block row, block column, depth) in DCR, (depth, row, column) in CRD."""
    n, c, h, w = input.shape
    depth, b = c // (blocksize * blocksize), blocksize
    if is_known(c) and c % (b * b):  # torch accepts any shape without elements
        raise ValueError(f"the number of channels must be divisible by {b * b}, got {c}")
    if mode == "DCR":
        blocks = input.reshape(n, b, b, depth, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        blocks = input.reshape(n, depth, b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    return blocks.reshape(n, depth, h * b, w * b)


depth_to_space_1 = older(depth_to_space, since=1, without=["mode"])


@op("SpaceToDepth", since=28)
def space_to_depth(input: Tensor, *, mode: Literal["DCR", "CRD"] = "DCR", blocksize: int) -> Tensor:
    """The inverse of DepthToSpace in the same mode."""
    n, c, h, w = input.shape
    b = blocksize
    if any(is_known(side) and side % b for side in (h, w)):
        raise ValueError(f"height and width must be divisible by {b}, got {h} and {w}")
    blocks = input.reshape(n, c, h // b, b, w // b, b)
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    return blocks.permute(order).reshape(n, c * b * b, h // b, w // b)


space_to_depth_1 = older(space_to_depth, since=1, without=["mode"])


@sample(shape)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape())
    return call(x, start=d.maybe(d.integer(-6, 6)), end=d.maybe(d.integer(-6, 6)))


sample(shape_1, size)(one_tensor())


@sample(identity)
def _(d: Draw) -> Call:
    return call(d.tensor(d.shape(), "V" if d.opset >= 14 else "T"))


def _new_shape(d: Draw, sizes: tuple[int, ...]) -> list[int]:
    """Sizes with some neighbours merged, some kept by 0, some inferred by -1."""
    cut = d.integer(0, len(sizes))
    new = [math.prod(sizes[:cut]), *sizes[cut:]]
    if sizes and sizes[0] == new[0] and d.boolean():
        new[0] = 0
    if 0 not in sizes and d.boolean():
        new[d.integer(0, len(new) - 1)] = -1
    return new


@sample(reshape, reshape_1)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape())
    allowzero = d.maybe(d.integer(0, 1)) if d.opset >= 14 else None
    new = [math.prod(x.shape), 1] if allowzero else _new_shape(d, tuple(x.shape))
    return call(x, new, allowzero=allowzero) if d.opset >= 5 else call(x, shape=new)


@sample(flatten)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=1))
    axis = d.integer(-x.ndim if d.opset >= 11 else 0, x.ndim)
    return call(x, axis=d.maybe(axis))


def _axes(d: Draw, rank: int, min_size: int = 0) -> list[int]:
    """Axes; negative ones if the version has them."""
    axes = d.axes(rank, min_size)
    return axes if d.opset >= 11 else sorted(a % rank for a in axes)


@sample(squeeze, squeeze_1)
def _(d: Draw) -> Call:
    sizes = list(d.shape(min_dims=1))
    axes = _axes(d, len(sizes), 1)
    for axis in axes:
        sizes[axis] = 1
    x, given = d.tensor(sizes), d.maybe(axes)
    return call(x, given) if d.opset >= 13 else call(x, axes=given)


@sample(unsqueeze)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(max_dims=3))
    rank = x.ndim + d.integer(1, 2)
    axes = _axes(d, rank, rank)[: rank - x.ndim]
    return call(x, axes) if d.opset >= 13 else call(x, axes=axes)


@sample(transpose)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape())
    return call(x, perm=d.maybe(d.permutation(x.ndim)) if x.ndim else None)


@sample(expand)
def _(d: Draw) -> Call:
    whole = d.shape()
    wanted = [1 if d.boolean() else n for n in whole][d.integer(0, len(whole)) :]
    kept = (
        n if i < len(whole) - len(wanted) or wanted[i - len(whole)] == 1 else d.choice([n, 1])
        for i, n in enumerate(whole)
    )
    sizes = list(kept)
    return call(d.tensor(sizes), wanted)


def _draw_blocks(d: Draw, mode_since: int) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Sizes, and the attributes of a change of `blocksize`."""
    sizes = d.shape(min_dims=4, max_dims=4, max_side=3)
    blocksize = d.integer(1, 3)
    mode = d.maybe(d.choice(["DCR", "CRD"])) if d.opset >= mode_since else None
    return sizes, {"blocksize": blocksize, "mode": mode}


@sample(depth_to_space)
def _(d: Draw) -> Call:
    (n, c, h, w), attributes = _draw_blocks(d, 11)
    return call(d.tensor((n, c * attributes["blocksize"] ** 2, h, w)), **attributes)


@sample(space_to_depth)
def _(d: Draw) -> Call:
    (n, c, h, w), attributes = _draw_blocks(d, 28)
    b = attributes["blocksize"]
    return call(d.tensor((n, c, h * b, w * b)), **attributes)

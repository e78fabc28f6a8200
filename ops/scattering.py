"""Write elements by index: ScatterElements, ScatterND, Scatter, TensorScatter, Col2Im.

History: Scatter 9, deprecated by ScatterElements 11, 13, 16 (reduction), 18 (max, min).
ScatterND 11, 13, 16 (reduction), 18 (max, min). TensorScatter 24. Col2Im 18.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from onnxinterp.ops.gathering import are_inside, from_the_front, have_places
from onnxinterp.ops.host_views import elements_at, rows_at
from onnxinterp.registry import host, op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Host, Ints
from onnxinterp.versions import older

REDUCTION_OF_TORCH = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@op("ScatterElements", since=18, uint64="bits")
def scatter_elements(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    *,
    axis: int = 0,
    reduction: Literal["none", "add", "mul", "max", "min"] = "none",
) -> Tensor:
    if indices.shape != updates.shape:
        raise ValueError(f"updates must fit {list(indices.shape)}, got {list(updates.shape)}")
    if indices.ndim != data.ndim:  # torch ignores empty indices
        raise ValueError(f"indices must have rank {data.ndim}, got {indices.ndim}")
    places = from_the_front(indices, data.shape[axis]).long()
    if reduction == "none":
        return data.scatter(axis, places, updates)
    return data.scatter_reduce(axis, places, updates, REDUCTION_OF_TORCH[reduction])


scatter_elements_16 = older(
    scatter_elements, since=16, hints={"reduction": Literal["none", "add", "mul"]}
)
scatter_elements_11 = older(scatter_elements_16, since=11, without=["reduction"])


@op("Scatter", since=9, uint64="bits")
def scatter(data: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0) -> Tensor:
    return scatter_elements(data, indices, updates, axis=axis)


@host(scatter_elements, scatter)
def _(data: Host, indices: Host, updates: Host, *, axis: int = 0, reduction: str = "none") -> Any:
    if reduction != "none" or indices.shape != updates.shape or not are_inside(data, indices, axis):
        return NotImplemented
    numbers = list(data.numbers)
    found = elements_at(data.shape, indices, axis % data.rank)
    for place, number in zip(found, updates.numbers, strict=True):
        numbers[place] = number
    return Host(numbers, data.dtype, data.shape)


@op("ScatterND", since=18, uint64="bits")
def scatter_nd(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    *,
    reduction: Literal["none", "add", "mul", "max", "min"] = "none",
) -> Tensor:
    """The last axis of the indices has positions in the first axes of data."""
    places = indices.unbind(-1)
    tail = data.shape[len(places) :]
    if updates.shape != (*indices.shape[:-1], *tail):
        raise ValueError(f"updates must fit {list(indices.shape)}, got {list(updates.shape)}")
    if reduction in ("none", "add"):
        return data.index_put(places, updates, accumulate=reduction == "add")
    rows = torch.zeros_like(places[0])
    for place, size in zip(places, data.shape, strict=False):
        place = from_the_front(place, size)
        # beyond its axis it would be a place in another row: below 0, it stays there and raises
        rows = torch.where((place >= 0) & (place < size), rows * size + place, -1)
    updates = updates.reshape(rows.numel(), *tail)
    rows = rows.reshape(-1, *[1] * len(tail)).expand(updates.shape)
    flat = data.flatten(0, len(places) - 1)
    return flat.scatter_reduce(0, rows, updates, REDUCTION_OF_TORCH[reduction]).reshape(data.shape)


scatter_nd_16 = older(scatter_nd, since=16, hints={"reduction": Literal["none", "add", "mul"]})
scatter_nd_11 = older(scatter_nd_16, since=11, without=["reduction"])


@host(scatter_nd)
def _(data: Host, indices: Host, updates: Host, *, reduction: str = "none") -> Any:
    if reduction != "none" or not have_places(data, indices):
        return NotImplemented
    behind = data.shape[indices.shape[-1] :]
    if updates.shape != (*indices.shape[:-1], *behind):
        return NotImplemented  # the kernel raises
    n, numbers = math.prod(behind), list(data.numbers)
    for i, start in enumerate(rows_at(data.shape, indices)):
        numbers[start : start + n] = updates.numbers[i * n : (i + 1) * n]
    return Host(numbers, data.dtype, data.shape)


@op("TensorScatter", since=24)
def tensor_scatter(
    past_cache: Tensor,
    update: Tensor,
    write_indices: Tensor | None = None,
    *,
    axis: int = -2,
    mode: Literal["linear", "circular"] = "linear",
) -> Tensor:
    """Each element of the batch writes its steps from its own index on."""
    steps = torch.arange(update.shape[axis], device=update.device)
    if write_indices is not None:
        steps = steps + write_indices[:, None]
    if mode == "circular":
        steps = torch.where(steps < 0, steps, steps % past_cache.shape[axis])  # below 0 it raises
    sizes = [1] * update.ndim
    sizes[0], sizes[axis] = steps.shape[0] if steps.ndim > 1 else 1, update.shape[axis]
    return past_cache.scatter(axis, steps.reshape(sizes).expand(update.shape), update)


@op("Col2Im", since=18, uint64="bits", strings=False)
def col2im(
    input: Tensor,
    image_shape: Ints,
    block_shape: Ints,
    *,
    dilations: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    """Elements of overlapping blocks are added; those in the padding are dropped."""
    rank = len(image_shape)
    pads = pads or [0] * (2 * rank)
    steps = zip(strides or [1] * rank, dilations or [1] * rank, strict=True)
    sizes = [n + pads[i] + pads[i + rank] for i, n in enumerate(image_shape)]
    places = torch.zeros((1, 1), dtype=torch.int64, device=input.device)
    for size, block, (stride, dilation) in zip(sizes, block_shape, steps, strict=True):
        starts = torch.arange(0, size - dilation * (block - 1), stride, device=input.device)
        inside = torch.arange(block, device=input.device) * dilation
        here = inside[:, None] + starts  # [block, blocks]
        places = places[:, None, :, None] * size + here[:, None, :]
        places = places.reshape(places.shape[0] * block, -1)
    elements, blocks = places.shape
    if input.shape[1] % elements or input.shape[2] != blocks:
        raise ValueError(f"input must have {blocks} blocks of {elements}, got {list(input.shape)}")
    columns = input.reshape(input.shape[0], -1, places.numel())
    image = columns.new_zeros(*columns.shape[:2], math.prod(sizes))
    image = image.index_add(-1, places.flatten(), columns).reshape(*columns.shape[:2], *sizes)
    for i, n in enumerate(image_shape):
        image = image.narrow(i + 2, pads[i], n)
    return image


def _reduction(d: Draw, x: Any) -> str | None:
    """A reduction that the version has and that is defined for the dtype of x."""
    numbers = isinstance(x, Tensor) and not (x.is_complex() or x.dtype is torch.bool)
    known = {16: ["none", "add", "mul"], 18: ["none", "add", "mul", "max", "min"]}
    return d.maybe(d.choice(known[d.opset])) if d.opset in known and numbers else None


@sample(scatter_elements, scatter)
def _(d: Draw) -> Call:
    """Without a reduction each element is written at most once."""
    x = d.tensor(d.shape(min_dims=1), lo=-2, hi=2)
    axis, reduction = d.axis(x.ndim), _reduction(d, x)
    n = x.shape[axis]
    shape = [d.integer(1, size) if size else 0 for size in x.shape]
    if reduction in (None, "none"):
        order = d.ints([n if i == axis % x.ndim else k for i, k in enumerate(shape)], 0, 99)
        indices = order.argsort(axis).narrow(axis, 0, shape[axis])
        indices = indices - n if d.opset >= 11 and d.boolean() else indices
    else:
        indices = d.ints(shape, -n, max(n - 1, 0))
    updates = d.tensor(shape, lo=-2, hi=2)
    return call(x, indices.to(d.dtype("Tind")), updates, axis=axis, reduction=reduction)


@sample(scatter_nd)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=1, max_side=3), lo=-2, hi=2)
    depth, reduction = d.integer(1, x.ndim), _reduction(d, x)
    sizes = x.shape[:depth]
    rows = math.prod(sizes)
    if reduction in (None, "none"):
        places = torch.tensor(d.permutation(rows)[: d.integer(0, rows)], dtype=torch.int64)
    else:
        places = d.ints((d.integer(1, 4) if rows else 0,), 0, max(rows - 1, 0))
    indices = torch.stack(torch.unravel_index(places, sizes), -1)
    if d.boolean():
        indices = indices - torch.tensor(sizes)
    updates = d.tensor((*indices.shape[:-1], *x.shape[depth:]), lo=-2, hi=2)
    return call(x, indices, updates, reduction=reduction)


@sample(tensor_scatter)
def _(d: Draw) -> Call:
    past = d.tensor(d.shape(min_dims=2))
    axis = d.integer(1, past.ndim - 1) - d.choice([0, past.ndim])
    shape, most = list(past.shape), past.shape[axis]
    shape[axis] = d.integer(min(1, most), most)
    mode = d.maybe(d.choice(["linear", "circular"]))
    last = most - (shape[axis] if mode != "circular" else 1)
    begins = d.ints((past.shape[0],), 0, max(last, 0))
    return call(past, d.tensor(shape), d.maybe(begins), axis=axis, mode=mode)


@sample(col2im)
def _(d: Draw) -> Call:
    rank = d.integer(1, 3)
    block = [d.integer(1, 3) for _ in range(rank)]
    strides = d.maybe([d.integer(1, 2) for _ in range(rank)])
    # for other ranks onnxruntime misplaces dilated blocks of all channels but the first
    dilations = d.maybe([d.integer(1, 2) for _ in range(rank)]) if rank == 2 else None
    pads = d.maybe([d.integer(0, 2) for _ in range(2 * rank)])
    spans = [(b - 1) * n for b, n in zip(block, dilations or [1] * rank, strict=True)]
    image = [span + d.integer(1, 3) for span in spans]
    padded = [n + sum((pads or [0] * 2 * rank)[i::rank]) for i, n in enumerate(image)]
    free = zip(padded, spans, strides or [1] * rank, strict=True)
    blocks = math.prod((size - span - 1) // stride + 1 for size, span, stride in free)
    x = d.tensor((d.integer(1, 2), d.integer(1, 2) * math.prod(block), blocks))
    return call(x, image, block, strides=strides, dilations=dilations, pads=pads)

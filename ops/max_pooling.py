"""Max pools: MaxPool, GlobalMaxPool, and their inverse MaxUnpool.

History: MaxPool 1, 8 (indices), 10 (ceil_mode, dilations), 11 (wording), 12 (8-bit integers), 22
(bfloat16). GlobalMaxPool 1, 22. MaxUnpool 9, 11, 22.

A maximum over nan is nan, as in torch; onnxruntime ignores some of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.ops.pooling import can_torch_pad, draw_pool, pad_to_fit, spatial_axes
from onnxinterp.ops.spatial import AutoPad, Window, window
from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call, draw_integers
from onnxinterp.values import Flag
from onnxinterp.versions import older

MAX_POOLS = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)


@op("MaxPool", since=10)
def max_pool(
    X: Tensor,
    *,
    auto_pad: AutoPad = "NOTSET",
    ceil_mode: Flag = 0,
    dilations: list[int] | None = None,
    kernel_shape: list[int],
    pads: list[int] | None = None,
    storage_order: Flag = 0,
    strides: list[int] | None = None,
    n_outputs: int,
) -> Tensor | tuple[Tensor, Tensor]:
    """Indices are positions in the whole of X, including batch and channels."""
    w = window(X.shape[2:], kernel_shape, auto_pad, strides, dilations, pads)
    # float32 holds 8-bit integers, and each device can pool it
    padded = X if X.is_floating_point() else X.float()
    padding = w.begins
    if not can_torch_pad(w, auto_pad, ceil_mode):
        padded = pad_to_fit(padded, w, w.outputs(X.shape[2:], bool(ceil_mode)), -math.inf)
        padding = [0] * len(w.begins)
    pool = MAX_POOLS[X.ndim - 3]
    arguments = (w.kernel, w.strides, padding, w.dilations)
    if n_outputs == 1:
        return pool(padded, *arguments).to(X.dtype)
    y, indices = pool(padded, *arguments, return_indices=True)
    shift = [b - p for b, p in zip(w.begins, padding, strict=True)]
    return y.to(X.dtype), _flat_indices(indices, padded.shape[2:], shift, X.shape, storage_order)


def _flat_indices(
    indices: Tensor,
    padded: Sequence[int],
    shift: Sequence[int],
    shape: Sequence[int],
    storage_order: Flag,
) -> Tensor:
    """From indices within one padded channel to indices within the whole tensor.

    Args:
        indices: those of torch, [N, C, *outputs].
        padded: spatial sizes of the padded input.
        shift: offset of the input in the padded input.
        shape: of the input.
        storage_order: 0 row-major, 1 column-major (the spatial axes only).
    """
    coordinates: list[Tensor] = []
    for size, begin in zip(reversed(padded), reversed(shift), strict=True):
        coordinates.insert(0, indices % size - begin)
        indices = indices // size
    axes = list(zip(coordinates, shape[2:], strict=True))
    flat = torch.arange(shape[0] * shape[1], device=indices.device)
    flat = flat.reshape(shape[0], shape[1], *[1] * len(axes))
    for coordinate, size in reversed(axes) if storage_order else axes:
        flat = flat * size + coordinate
    return flat


max_pool_8 = older(max_pool, since=8, without=["ceil_mode", "dilations"])
max_pool_1 = older(
    max_pool_8, since=1, without=["storage_order", "n_outputs"], defaults={"n_outputs": 1}
)


@op("GlobalMaxPool", since=1)
def global_max_pool(X: Tensor) -> Tensor:
    return X.amax(spatial_axes(X), keepdim=True)


@op("MaxUnpool", since=9)
def max_unpool(
    X: Tensor,
    I: Tensor,  # noqa: E741  # the schema's name
    output_shape: list[int] | None = None,
    *,
    kernel_shape: list[int],
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Tensor:
    """Indices are positions in the whole pooled tensor, which has the shape of the output.

    In ONNX's own test of `output_shape` they are positions in the shape without it; then the
    indices of MaxPool would not fit. This kernel follows onnxruntime.
    """
    if I.shape != X.shape:
        raise ValueError(f"I must have the shape of X {list(X.shape)}, got {list(I.shape)}")
    if output_shape is not None and len(output_shape) != X.ndim:
        raise ValueError(f"output_shape must have {X.ndim} sizes, got {output_shape}")
    w = window(X.shape[2:], kernel_shape, strides=strides, pads=pads)
    shape = output_shape
    if shape is None:
        shape = [*X.shape[:2], *unpooled_sizes(X.shape[2:], w)]
    flat = X.new_zeros(math.prod(shape)).scatter(0, I.flatten(), X.flatten())
    return flat.reshape(shape)


def unpooled_sizes(sizes: Sequence[int], w: Window) -> list[int]:
    """The sizes that windows pool to `sizes`."""
    spans = zip(sizes, w.strides, w.kernel, w.begins, w.ends, strict=True)
    return [(n - 1) * s + k - b - e for n, s, k, b, e in spans]


@sample(max_pool)
def _(d: Draw) -> Call:
    x, attributes = draw_pool(d, ceil_since=10, dilated_since=10)
    if d.opset < 8:
        return call(x, **attributes)
    storage_order = d.maybe(d.integer(0, 1))
    return call(x, storage_order=storage_order, outputs=d.integer(1, 2), **attributes)


@sample(global_max_pool)
def _(d: Draw) -> Call:
    return call(d.tensor(d.shape(min_dims=4, min_side=2)))


@sample(max_unpool)
def _(d: Draw) -> Call:
    """Positions anywhere in the output, each at most once."""
    rank = d.integer(1, 3)
    x = d.tensor((1, 2, *[d.integer(1, 3) for _ in range(rank)]), "T1")
    kernel = draw_integers(d, rank, 1, 3)
    strides = [max(k, d.integer(1, 3)) for k in kernel]  # otherwise the output is too small
    pads = d.maybe([d.integer(0, (k - 1) // 2) for k in kernel * 2])
    w = window(x.shape[2:], kernel, strides=strides, pads=pads)
    sizes = unpooled_sizes(x.shape[2:], w)
    shape = d.maybe([1, 2, *[n + d.integer(0, 2) for n in sizes]])
    places = d.permutation(2 * math.prod(sizes))[: x.numel()]
    indices = torch.tensor(places, dtype=torch.int64).reshape(x.shape)
    given = strides if max(strides) > 1 else d.maybe(strides)
    return call(x, indices, shape, kernel_shape=kernel, pads=pads, strides=given)

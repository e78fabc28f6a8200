"""Deformable convolution: DeformConv.

History: 19, 22 (bfloat16).

Source: X. Zhu, H. Hu, S. Lin and J. Dai, "Deformable ConvNets v2" (2019). Torch has no such
convolution; torch.nn.functional.grid_sample reads the elements.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.ops.spatial import Window, filter_sizes, window, with_bias
from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call, draw_integers


@op("DeformConv", since=19)
def deform_conv(
    X: Tensor,
    W: Tensor,
    offset: Tensor,
    B: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
    offset_group: int = 1,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Tensor:
    """Each element of the window has an offset per axis and a weight, its mask."""
    kernel = filter_sizes(W, kernel_shape)
    w = window(X.shape[2:], kernel, "NOTSET", strides, dilations, pads)
    rank, images, outputs = X.ndim - 2, X.shape[0], w.outputs(X.shape[2:])
    elements = offset_group * math.prod(w.kernel)
    masked = mask is None or mask.shape == (images, elements, *outputs)
    shapes = [list(x.shape) for x in (offset, mask) if x is not None]
    if not masked or offset.shape != (images, elements * rank, *outputs):
        expected = f"{elements} elements for each of {outputs}"
        raise ValueError(f"offset and mask must have {expected}, got {shapes}")
    moves = offset.reshape(images * offset_group, *w.kernel, rank, *outputs)
    places = [_places(moves.select(rank + 1, axis), w, axis) for axis in range(rank)]
    sampled = _sample(X.reshape(images * offset_group, -1, *X.shape[2:]), places)
    if mask is not None:
        sampled = sampled * mask.reshape(images * offset_group, 1, -1)
    patches = sampled.reshape(images, group, -1, math.prod(outputs))
    filters = W.reshape(group, W.shape[0] // group, -1)
    y = torch.matmul(filters, patches).reshape(images, W.shape[0], *outputs)
    return with_bias(y, B)


def _places(moves: Tensor, w: Window, axis: int) -> Tensor:
    """Positions of the elements of all windows on a spatial axis, [images, places].

    Args:
        moves: offsets along that axis, [images, *kernel, *outputs].
        w: the window.
        axis: which one, from 0.
    """
    rank, device = len(w.kernel), moves.device
    element = torch.arange(w.kernel[axis], device=device) * w.dilations[axis] - w.begins[axis]
    output = torch.arange(moves.shape[1 + rank + axis], device=device) * w.strides[axis]
    element = element.reshape([-1 if n == axis else 1 for n in range(2 * rank)])
    output = output.reshape([-1 if n == rank + axis else 1 for n in range(2 * rank)])
    wide = moves.float() if moves.dtype.itemsize == 2 else moves
    return (wide + (element + output)).flatten(1)


def _sample(x: Tensor, places: list[Tensor]) -> Tensor:
    """X [N, C, *spatial] at places [N, P] per axis, as [N, C, P]: interpolated, 0 outside.

    Torch needs places relative to the first and the last element, so each axis is padded to two
    elements at least. Halves are converted to float32, because they are too coarse for this.
    """
    if len(places) == 1:  # a row is an image of height 1
        x, places = x.unsqueeze(2), [torch.zeros_like(places[0]), *places]
    sizes = x.shape[2:]
    if 1 in sizes:
        x = functional.pad(x, [n for size in reversed(sizes) for n in (0, int(size == 1))])
    ways = [size - 1 for size in x.shape[2:]]
    parts = [2 * p / way - 1 for p, way in zip(places, ways, strict=True)]
    grid = torch.stack(parts[::-1], -1).reshape(x.shape[0], -1, *[1] * (len(parts) - 1), len(parts))
    wide = x.float() if x.dtype.itemsize == 2 else x
    return functional.grid_sample(wide, grid, align_corners=True).flatten(2).to(x.dtype)


@sample(deform_conv)
def _(d: Draw) -> Call:
    """Images only: the specification allows any rank, the oracles do not."""
    group, offset_group = d.integer(1, 2), d.integer(1, 2)
    images, channels, filters = d.integer(1, 2), 2 * d.integer(1, 2), group * d.integer(1, 2)
    kernel, sizes = draw_integers(d, 2, 1, 3), draw_integers(d, 2, 5, 7)
    strides, dilations = d.maybe(draw_integers(d, 2, 1, 2)), d.maybe(draw_integers(d, 2, 1, 2))
    pads = d.maybe(draw_integers(d, 4, 0, 1))
    w = window(sizes, kernel, strides=strides, dilations=dilations, pads=pads)
    outputs, elements = w.outputs(sizes), offset_group * math.prod(kernel)
    return call(
        d.tensor((images, channels, *sizes), lo=-3, hi=3),
        d.tensor((filters, channels // group, *kernel), lo=-3, hi=3),
        d.tensor((images, 2 * elements, *outputs), lo=-1.5, hi=1.5),
        d.maybe(d.tensor((filters,))),
        d.maybe(d.tensor((images, elements, *outputs), lo=0, hi=1)),
        group=d.maybe(1) if group == 1 else group,
        kernel_shape=d.maybe(kernel),
        offset_group=d.maybe(1) if offset_group == 1 else offset_group,
        dilations=dilations,
        pads=pads,
        strides=strides,
    )

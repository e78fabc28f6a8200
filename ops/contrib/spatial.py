"""Images and volumes: MaxpoolWithMask, ConvTransposeWithDynamicPads, CropAndResize."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.ops.convolution import conv_transpose
from onnxinterp.ops.gathering import within
from onnxinterp.ops.spatial import AutoPad, window
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call, draw_integers
from onnxinterp.values import Ints
from onnxinterp.versions import forwards


@contrib_op("MaxpoolWithMask")
def maxpool_with_mask(
    X: Tensor,
    M: Tensor,
    *,
    auto_pad: AutoPad = "NOTSET",
    kernel_shape: list[int] | None = None,
    pads: list[int] | None = None,
    storage_order: int = 0,  # noqa: ARG001  # of indices, which this operator has not
    strides: list[int] | None = None,
) -> Tensor:
    """A row of a window ends before its first masked element; nothing left is the lowest number.

    As in onnxruntime, in images and volumes the mask of the first element is not read.
    """
    if M.ndim != X.ndim or M.shape[2:] != X.shape[2:]:
        raise ValueError(f"M must fit X {list(X.shape)}, got {list(M.shape)}")
    w = window(X.shape[2:], kernel_shape or (), auto_pad, strides, None, pads)
    lowest = max(torch.finfo(torch.float32).min, torch.finfo(X.dtype).min)
    kept = _masks(X, M)
    if X.ndim > 3:
        first = torch.arange(kept[0, 0].numel(), device=X.device).reshape(kept.shape[2:]) == 0
        kept = kept | first
    around = [n for pair in zip(w.begins[::-1], w.ends[::-1], strict=True) for n in pair]
    x = functional.pad(X, around, value=lowest)
    kept = functional.pad(kept.to(torch.int32), around, value=1)
    for axis, (size, step) in enumerate(zip(w.kernel, w.strides, strict=True), 2):
        x, kept = x.unfold(axis, size, step), kept.unfold(axis, size, step)
    kept = kept.cumprod(-1).bool() & (x > lowest)
    return torch.where(kept, x, lowest).flatten(X.ndim).amax(-1)


def _masks(X: Tensor, M: Tensor) -> Tensor:
    """The mask of each channel, as booleans.

    onnxruntime takes the position of a channel modulo the number of masks, not of their elements,
    for the first element of its mask: with one mask, that is the mask of all channels.
    """
    size, count = X[0, 0].numel(), M.shape[0] * M.shape[1]
    starts = torch.arange(X.shape[0] * X.shape[1], device=X.device) * size % count
    return (M != 0).flatten().unfold(0, size, 1)[starts].reshape(X.shape)


@contrib_op("ConvTransposeWithDynamicPads")
@forwards(conv_transpose, without=["output_shape", "pads"])
def conv_transpose_with_dynamic_pads(
    X: Tensor,
    W: Tensor,
    Pads: Ints | None = None,
    B: Tensor | None = None,
    *,
    auto_pad: AutoPad = "NOTSET",
    **attributes: Any,
) -> Tensor:
    """`auto_pad` VALID does not hide the pads."""
    if Pads is not None and min(Pads, default=0) < 0:
        raise ValueError(f"Pads must not be negative, got {Pads}")
    auto_pad = "NOTSET" if auto_pad == "VALID" else auto_pad
    pads = None if Pads is None else list(Pads)
    return conv_transpose(X, W, B, auto_pad=auto_pad, pads=pads, **attributes)


@contrib_op("CropAndResize")
def crop_and_resize(
    X: Tensor,
    rois: Tensor,
    batch_indices: Tensor,
    crop_size: Ints,
    *,
    extrapolation_value: float = 0.0,
    mode: Literal["bilinear", "nearest"] = "bilinear",
) -> Tensor:
    """Corners of a box, [y1, x1, y2, x2], are 0 to 1 from the first to the last pixel."""
    if X.ndim != 4 or rois.ndim != 2 or rois.shape[1] != 4 or len(crop_size) != 2:
        raise ValueError(f"X must be 4-D and rois [R, 4], got {list(X.shape)}, {list(rois.shape)}")
    if batch_indices.shape != rois.shape[:1] or min(crop_size) < 1:
        raise ValueError(f"batch_indices must be [{rois.shape[0]}] and crop_size positive")
    wide = torch.promote_types(X.dtype, torch.float32)
    y1, x1, y2, x2 = rois.to(wide).unbind(1)
    rows = _positions(y1, y2, X.shape[2], crop_size[0])[:, :, None]
    columns = _positions(x1, x2, X.shape[3], crop_size[1])[:, None]
    inside = _is_inside(rows, X.shape[2]) & _is_inside(columns, X.shape[3])
    rows, columns = torch.where(inside, rows, 0), torch.where(inside, columns, 0)
    image = within(batch_indices, X.shape[0] - 1)[:, None, None]
    pixels = X.movedim(1, -1).to(wide)
    if mode == "nearest":
        y = pixels[image, (rows + 0.5).floor().long(), (columns + 0.5).floor().long()]
    else:
        y = _bilinear(pixels, image, rows, columns)
    y = torch.where(inside[..., None], y, extrapolation_value)
    return y.movedim(-1, 1).to(X.dtype)


def _positions(start: Tensor, end: Tensor, size: int, count: int) -> Tensor:
    """Positions of `count` pixels of a crop, [R, count]; a single one is in the middle."""
    last = size - 1
    if count == 1:
        return (0.5 * (start + end) * last)[:, None]
    step = (end - start) * last / (count - 1)
    return (start * last)[:, None] + torch.arange(count, device=start.device) * step[:, None]


def _is_inside(places: Tensor, size: int) -> Tensor:
    return (places >= 0) & (places <= size - 1)


def _bilinear(pixels: Tensor, image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Interpolate along rows, then along columns; all are [R, height, width]."""
    top, left = rows.floor().long(), columns.floor().long()
    bottom, right = rows.ceil().long(), columns.ceil().long()
    down, along = (rows - top)[..., None], (columns - left)[..., None]
    above = torch.lerp(pixels[image, top, left], pixels[image, top, right], along)
    below = torch.lerp(pixels[image, bottom, left], pixels[image, bottom, right], along)
    return torch.lerp(above, below, down)


@sample(maxpool_with_mask)
def _(d: Draw) -> Call:
    rank = d.integer(1, 3)
    x = d.tensor((d.integer(1, 2), d.integer(1, 3), *draw_integers(d, rank, 3, 4)))
    masks = d.choice([(1, 1), x.shape[:2], (1, x.shape[1]), (2, 3)])
    kernel = draw_integers(d, rank, 1, 3)
    auto_pad = d.choice([None, "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
    pads = [d.integer(0, k - 1) for k in [*kernel, *kernel]]
    return call(
        x,
        d.ints((*masks, *x.shape[2:]), 0, 3, torch.int32),
        auto_pad=auto_pad,
        kernel_shape=kernel,
        pads=d.maybe(pads) if auto_pad in (None, "NOTSET") else None,
        storage_order=d.maybe(d.integer(0, 1)),
        strides=d.maybe(draw_integers(d, rank, 1, 2)),
    )


@sample(conv_transpose_with_dynamic_pads)
def _(d: Draw) -> Call:
    """Pads that onnxruntime wants; its result for SAME is too small where strides are larger."""
    rank, group = d.integer(1, 3), d.integer(1, 2)
    channels, filters = group * d.integer(1, 2), d.integer(1, 2)
    kernel, strides = draw_integers(d, rank, 1, 3), draw_integers(d, rank, 1, 3)
    auto_pad = d.choice([None, "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
    extra = [d.integer(0, s - 1) for s in strides]
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        strides, extra = [min(s, k) for s, k in zip(strides, kernel, strict=True)], [0] * rank
    return call(
        d.tensor((d.integer(1, 2), channels, *draw_integers(d, rank, 3, 5)), lo=-3, hi=3),
        d.tensor((channels, filters, *kernel), lo=-3, hi=3),
        draw_integers(d, 2 * rank, 0, 1),
        d.maybe(d.tensor((filters * group,))),
        auto_pad=auto_pad,
        dilations=d.maybe(draw_integers(d, rank, 1, 2)) if auto_pad is None else None,
        group=group,
        kernel_shape=d.maybe(kernel),
        output_padding=d.maybe(extra),
        strides=strides,
    )


@sample(crop_and_resize)
def _(d: Draw) -> Call:
    x = d.tensor((d.integer(1, 3), d.integer(1, 2), *draw_integers(d, 2, 2, 5)), "T1")
    count = d.shape(min_dims=1, max_dims=1)
    return call(
        x,
        d.tensor((*count, 4), "T1", lo=-0.25, hi=1.25),
        d.ints(count, 0, x.shape[0] - 1, torch.int32),
        torch.tensor(draw_integers(d, 2, 1, 3), dtype=torch.int32),
        extrapolation_value=d.maybe(d.real(-2, 2)),
        mode=d.maybe(d.choice(["bilinear", "nearest"])),
    )

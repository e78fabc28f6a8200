"""Convolutions of 8-bit integers as products of matrices (im2col).

The elements below all windows are gathered as the columns of a matrix, [terms, places], which the
filters multiply. The sums are exact; `byte_products` tells where.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from onnxinterp.ops.byte_products import MAX_TERMS, centred_product, is_exact, signed, zero_of
from onnxinterp.ops.eager import is_captured, is_eager
from onnxinterp.ops.spatial import Window, pad

MIN_PRODUCTS = 2**20  # of one group; fewer are faster in floats
MIN_FILTERS = 4  # of a group of channels: with fewer, gathering costs more than the products
MAX_COLUMN_BYTES = 2**24  # gathered at once


def convolution(
    x: Tensor, w: Tensor, x_zero: Tensor | None, w_zero: Tensor | None, group: int, window: Window
) -> Tensor | None:
    """The convolution of x - x_zero, padded with 0, and w - w_zero as int32.

    Args:
        x: [N, C, *spatial].
        w: filters [M, C/group, *kernel].
        x_zero: a number.
        w_zero: a number, or one per filter [M].
        group: number of groups of channels.
        window: how the filters slide.

    Returns:
        [N, M, *places], or None where float64 must compute it.
    """
    if not is_eager(x, w, x_zero, w_zero):
        return None
    places = window.outputs(x.shape[2:])
    if not _is_convolution(x, w, x_zero, w_zero, group, places):
        return None
    p, q = zero_of(w_zero), zero_of(x_zero, shift=x.dtype)
    x = _padded(x, x_zero, window)
    filters = w.reshape(group, w.shape[0] // group, -1)
    rows = [p] * group if p is None or p.numel() == 1 else list(p.reshape(group, -1, 1))
    found = [
        _convolve(part, filters[g], rows[g], q, window, places)
        for image in x
        for g, part in enumerate(image.chunk(group))
    ]
    return torch.stack(found).reshape(x.shape[0], w.shape[0], *places)


def may_be_faster(x: Tensor, w: Tensor, group: int) -> bool:
    """Whether there are enough products at stride 1, before the window is computed."""
    if is_captured() or w.shape[0] < group * MIN_FILTERS:
        return False
    products = w.numel() * math.prod(x.shape[2:])
    return products >= group * MIN_PRODUCTS and is_eager(x, w) and is_exact(x, w)


def is_exact_in_float32(x: Tensor, w: Tensor) -> bool:
    """Whether float32 holds all sums of a convolution, and the function that torch calls sums.

    That is oneDNN's, where it is enabled and used; others transform tiles (Winograd) and round.
    Autocast would round the sums to 16 bits.
    """
    if (
        is_captured()
        or torch.is_autocast_enabled("cpu")
        or math.prod(w.shape[1:]) * 255 * 255 >= 2**24
    ):
        return False
    return is_eager(x, w) and is_exact(x, w)


def _is_convolution(
    x: Tensor,
    w: Tensor,
    x_zero: Tensor | None,
    w_zero: Tensor | None,
    group: int,
    places: Sequence[int],
) -> bool:
    """Whether the sizes are those of a convolution, and one that is faster as a product."""
    if min(*x.shape, *w.shape, *places, group) < 1 or x.shape[1] != group * w.shape[1]:
        return False
    if w.shape[0] % group or w[0].numel() > MAX_TERMS:
        return False
    one = x_zero is None or x_zero.numel() == 1
    return one and (w_zero is None or w_zero.numel() == 1 or w_zero.shape == w.shape[:1])


def _padded(x: Tensor, zero: Tensor | None, window: Window) -> Tensor:
    """The `signed` x with its zero point around it, which is not read; negative pads crop."""
    starts, stops = ([min(n, 0) for n in side] for side in (window.begins, window.ends))
    x = pad(x, starts, stops) if any((*starts, *stops)) else x
    begins, ends = ([max(n, 0) for n in side] for side in (window.begins, window.ends))
    if not any((*begins, *ends)):
        return signed(x)
    if zero is None:
        return signed(pad(x, begins, ends))
    sizes = [n + b + e for n, b, e in zip(x.shape[2:], begins, ends, strict=True)]
    around = signed(zero.reshape(())).expand(*x.shape[:2], *sizes).contiguous()
    inside = around
    for axis, (begin, size) in enumerate(zip(begins, x.shape[2:], strict=True), 2):
        inside = inside.narrow(axis, begin, size)
    inside.copy_(signed(x))
    return around


def _convolve(
    x: Tensor,
    filters: Tensor,
    p: Tensor | None,
    q: Tensor | None,
    window: Window,
    places: Sequence[int],
) -> Tensor:
    """Filters [M, terms] on one padded image [C, *spatial]: [M, places]."""
    parts = [centred_product(filters, c, p, q) for c in _columns(x, window, places)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _columns(x: Tensor, window: Window, places: Sequence[int]) -> Iterator[Tensor]:
    """The elements below the windows, [terms, places], in parts along the first axis."""
    channel, *steps = x.stride()
    taps = [s * d for s, d in zip(steps, window.dilations, strict=True)]
    moves = [s * n for s, n in zip(steps, window.strides, strict=True)]
    shape = [x.shape[0], *window.kernel, *places]
    view = x.as_strided(shape, [channel, *taps, *moves])
    axis, terms = 1 + len(steps), x.shape[0] * math.prod(window.kernel)
    size = max(1, MAX_COLUMN_BYTES // (terms * math.prod(places[1:])))
    for start in range(0, places[0], size):
        part = view.narrow(axis, start, min(size, places[0] - start))
        yield part.reshape(terms, -1)

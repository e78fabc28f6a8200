"""Convolutions: Conv, ConvTranspose, ConvInteger.

History: Conv and ConvTranspose 1, 11 (wording), 22 (bfloat16); ConvInteger 10.

Inputs are [N, C, *spatial] with one to three spatial axes, filters [M, C/group, *kernel]
(ConvTranspose: [C, M/group, *kernel]).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from onnxinterp.ops.byte_convolutions import convolution, is_exact_in_float32, may_be_faster
from onnxinterp.ops.casting import cast_like, cast_like_15, cast_like_19
from onnxinterp.ops.shapes import expand
from onnxinterp.ops.spatial import AutoPad, at_least, filter_sizes, pad, window, with_bias
from onnxinterp.registry import fuse, op, sample
from onnxinterp.testing.samples import Call, Draw, call, draw_integers
from onnxinterp.torch_weights import TorchWeight, leaf, torch_weights
from onnxinterp.values import Ints
from onnxinterp.versions import forwards

CONVOLUTIONS = (functional.conv1d, functional.conv2d, functional.conv3d)
CONVOLUTION_LAYERS: dict[int, type[nn.Module]] = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
TRANSPOSED_LAYERS: dict[int, type[nn.Module]] = {
    3: nn.ConvTranspose1d,
    4: nn.ConvTranspose2d,
    5: nn.ConvTranspose3d,
}
"""Rank of the input -> the layer of torch."""
TRANSPOSED = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)


@op("Conv", since=1)
def conv(
    X: Tensor,
    W: Tensor,
    B: Tensor | None = None,
    *,
    auto_pad: AutoPad = "NOTSET",
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Tensor:
    X, W = _with_channels(X, W, group, 1)
    kernel = filter_sizes(W, kernel_shape)
    w = window(X.shape[2:], kernel, auto_pad, strides, dilations, pads)
    convolve = CONVOLUTIONS[X.ndim - 3]
    strided_same = auto_pad.startswith("SAME") and max(w.strides) > 1
    if strided_same or w.begins != w.ends:  # do not compare symbolic sizes
        X, padding = pad(X, w.begins, w.ends), [0] * len(w.begins)
    else:
        padding = w.begins
    return convolve(X, W, B, w.strides, padding, w.dilations, group)


@fuse(
    *[
        (conv, "X", "W", (expand, (like, 0, "X"), "size"))
        for like in (cast_like_15, cast_like_19, cast_like)
    ]
)
@forwards(conv, without=["B"])
def conv_without_bias(X: Tensor, W: Tensor, *, size: Ints, **attributes: Any) -> Any:
    """The newer exporter writes a bias of zeros where there is none."""
    return conv(X, W, **attributes) if list(size) == [W.shape[0]] else NotImplemented


@leaf(conv, weight="W", bias="B")
@leaf(conv_without_bias, weight="W")
def _(
    W: Tensor,
    B: Tensor | None = None,
    *,
    auto_pad: AutoPad,
    dilations: list[int] | None,
    group: int,
    kernel_shape: list[int] | None,
    pads: list[int] | None,
    strides: list[int] | None,
) -> nn.Module | None:
    kind = CONVOLUTION_LAYERS.get(W.ndim)
    if kind is None or auto_pad not in ("NOTSET", "") or not W.shape[1]:
        return None
    kernel = filter_sizes(W, kernel_shape)
    w = window(kernel, kernel, auto_pad, strides, dilations, pads)
    if w.begins != w.ends:
        return None
    return kind(
        W.shape[1] * group,
        W.shape[0],
        tuple(w.kernel),
        tuple(w.strides),
        tuple(w.begins),
        tuple(w.dilations),
        group,
        B is not None,
        device="meta",
    )


def _with_channels(X: Tensor, W: Tensor, group: int, axis: int) -> tuple[Tensor, Tensor]:
    """One channel of zeros per group if there are no channels: torch would return no filters.

    Args:
        X: the input.
        W: the filters; without channels each output element is 0.
        group: number of groups of channels.
        axis: the axis of W for the channels: those of a group (1), or all channels (0).
    """
    if W.shape[axis] or X.shape[1]:
        return X, W
    sizes = list(W.shape)
    sizes[axis] = 1 if axis else group
    return X.new_zeros(X.shape[0], group, *X.shape[2:]), W.new_zeros(sizes)


@op("ConvTranspose", since=1)
def conv_transpose(
    X: Tensor,
    W: Tensor,
    B: Tensor | None = None,
    *,
    auto_pad: AutoPad = "NOTSET",
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
    output_padding: list[int] | None = None,
    output_shape: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Tensor:
    """Pads crop the full result; output_padding adds elements at the end."""
    rank = X.ndim - 2
    X, W = _with_channels(X, W, group, 0)
    if output_shape and len(output_shape) not in (rank, rank + 2):
        raise ValueError(f"output_shape must have {rank} or {rank + 2} sizes, got {output_shape}")
    kernel, explicit = filter_sizes(W, kernel_shape), pads if auto_pad in ("NOTSET", "") else None
    w = window(X.shape[2:], kernel, "NOTSET", strides, dilations, explicit)
    extra = list(output_padding or [0] * rank)
    begins, ends = w.begins, w.ends
    if output_shape or auto_pad.startswith("SAME"):
        begins, ends = _transposed_pads(
            X.shape[2:], w.reach, w.strides, extra, auto_pad, (output_shape or [])[-rank:]
        )
    transpose = TRANSPOSED[rank - 1]
    behind = [o + b - e for o, b, e in zip(extra, begins, ends, strict=True)]
    limits = [max(s, d) for s, d in zip(w.strides, w.dilations, strict=True)]
    if all(0 <= n < limit for n, limit in zip(behind, limits, strict=True)):
        return transpose(X, W, B, w.strides, begins, behind, group, w.dilations)
    full = transpose(X, W, None, w.strides, 0, 0, group, w.dilations)
    full = pad(full, [0] * rank, extra)  # before cropping, which may need these elements
    return with_bias(pad(full, [-b for b in begins], [-e for e in ends]), B)


@leaf(conv_transpose, weight="W", bias="B")
def _(
    W: Tensor,
    B: Tensor | None = None,
    *,
    auto_pad: AutoPad,
    dilations: list[int] | None,
    group: int,
    kernel_shape: list[int] | None,
    output_padding: list[int] | None,
    output_shape: list[int] | None,
    pads: list[int] | None,
    strides: list[int] | None,
) -> nn.Module | None:
    kind = TRANSPOSED_LAYERS.get(W.ndim)
    if kind is None or auto_pad not in ("NOTSET", "") or output_shape or not W.shape[0]:
        return None
    kernel = filter_sizes(W, kernel_shape)
    w = window(kernel, kernel, auto_pad, strides, dilations, pads)
    extra = output_padding or [0] * len(kernel)
    limits = map(max, w.strides, w.dilations)
    if w.begins != w.ends or any(n >= limit for n, limit in zip(extra, limits, strict=True)):
        return None
    return kind(
        W.shape[0],
        W.shape[1] * group,
        tuple(w.kernel),
        tuple(w.strides),
        tuple(w.begins),
        tuple(extra),
        group,
        B is not None,
        tuple(w.dilations),
        device="meta",
    )


def _transposed_pads(
    sizes: Sequence[int],
    reach: Sequence[int],
    strides: Sequence[int],
    extra: Sequence[int],
    auto_pad: AutoPad,
    output_shape: Sequence[int],
) -> tuple[list[int], list[int]]:
    """Pads for an output of `output_shape`, or of size * stride; SAME_UPPER puts less at the begin.

    If the output is too small even without padding, zeros are added at the end, as in onnxruntime
    for `output_shape`. For SAME its result is too small, against the specification.
    """
    begins, ends = [], []
    for i, (n, r, s, o) in enumerate(zip(sizes, reach, strides, extra, strict=True)):
        # for size * stride the total does not depend on the size
        total = (n - 1) * s + r + o - output_shape[i] if output_shape else r + o - s
        head = at_least(total, 0)
        begins.append(head // 2 if auto_pad == "SAME_UPPER" else head - head // 2)
        ends.append(total - begins[-1])
    return begins, ends


torch_weights(
    "Conv", "ConvTranspose", W=[TorchWeight(("weight",))], B=[TorchWeight(("bias",), rank=1)]
)


@op("ConvInteger", since=10, frozen=("x_zero_point", "w_zero_point"))
@forwards(conv)
def conv_integer(
    x: Tensor,
    w: Tensor,
    x_zero_point: Tensor | None = None,
    w_zero_point: Tensor | None = None,
    **attributes: Any,
) -> Tensor:
    """The padding is x_zero_point. Sums are exact, in 32-bit integers or in floats."""
    if (y := _in_bytes(x, w, x_zero_point, w_zero_point, **attributes)) is not None:
        return y
    dtype = torch.float32 if is_exact_in_float32(x, w) else torch.float64
    X, W = x.to(dtype), w.to(dtype)
    if x_zero_point is not None:
        X = X - x_zero_point.to(dtype).reshape(())
    if w_zero_point is not None:  # one, or one per output channel
        zeros = w_zero_point.to(dtype).reshape(-1, *[1] * (w.ndim - 1))
        W = W - zeros.expand(w.shape[0], *zeros.shape[1:])
    return conv(X, W, **attributes).to(torch.int32)


def _in_bytes(
    x: Tensor,
    w: Tensor,
    x_zero_point: Tensor | None,
    w_zero_point: Tensor | None,
    *,
    auto_pad: AutoPad = "NOTSET",
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Tensor | None:
    """A convolution of 8-bit integers as products of matrices; None where float64 must do it."""
    if not may_be_faster(x, w, group):
        return None
    kernel = filter_sizes(w, kernel_shape)
    slide = window(x.shape[2:], kernel, auto_pad, strides, dilations, pads)
    return convolution(x, w, x_zero_point, w_zero_point, group, slide)


def _padding(d: Draw, rank: int, highest: int = 2) -> tuple[str | None, list[int] | None]:
    """`auto_pad` and `pads`: at most one of them."""
    auto_pad = d.choice([None, "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
    explicit = auto_pad in (None, "NOTSET")
    return auto_pad, d.maybe(draw_integers(d, 2 * rank, 0, highest)) if explicit else None


@sample(conv)
def _(d: Draw) -> Call:
    rank, group = d.integer(1, 3), d.integer(1, 2)
    channels, filters = group * d.integer(1, 2), group * d.integer(1, 2)
    kernel = draw_integers(d, rank, 1, 3)
    auto_pad, pads = _padding(d, rank)
    dilated = pads is not None or auto_pad is None
    dilations = d.maybe(draw_integers(d, rank, 1, 2)) if dilated else None
    x = d.tensor((d.integer(1, 2), channels, *draw_integers(d, rank, 5, 7)), lo=-3, hi=3)
    w = d.tensor((filters, channels // group, *kernel), lo=-3, hi=3)
    return call(
        x,
        w,
        d.maybe(d.tensor((filters,))),
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=d.maybe(kernel),
        pads=pads,
        strides=d.maybe(draw_integers(d, rank, 1, 3)),
    )


@sample(conv_transpose)
def _(d: Draw) -> Call:
    rank = d.integer(1, 3)
    # for float64 the reference evaluator is the only oracle; its groups and output_shape are wrong
    only_reference = d.dtype() is torch.float64
    group = 1 if only_reference else d.integer(1, 2)
    channels, filters = group * d.integer(1, 2), d.integer(1, 2)
    kernel, strides = draw_integers(d, rank, 1, 3), draw_integers(d, rank, 1, 3)
    sizes, extra = draw_integers(d, rank, 3, 5), [d.integer(0, s - 1) for s in strides]
    auto_pad, pads = _padding(d, rank, 1)
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):  # see _transposed_pads
        strides, extra = [min(s, k) for s, k in zip(strides, kernel, strict=True)], [0] * rank
    natural = [(n - 1) * s + k for n, s, k in zip(sizes, strides, kernel, strict=True)]
    output_shape = d.maybe([d.integer(max(n - 2, 1), n) for n in natural])
    return call(
        d.tensor((d.integer(1, 2), channels, *sizes), lo=-3, hi=3),
        d.tensor((channels, filters, *kernel), lo=-3, hi=3),
        d.maybe(d.tensor((filters * group,))),
        auto_pad=auto_pad,
        dilations=d.maybe(draw_integers(d, rank, 1, 2)) if auto_pad is None else None,
        group=group,
        kernel_shape=d.maybe(kernel),
        output_padding=d.maybe(extra) if output_shape is None or pads or only_reference else None,
        output_shape=None if pads or only_reference else output_shape,
        pads=pads,
        strides=strides,
    )


@sample(conv_integer)
def _(d: Draw) -> Call:
    filters, kernel = d.integer(1, 3), draw_integers(d, 2, 1, 3)
    auto_pad, pads = _padding(d, 2)
    zero = d.tensor((), "T1", 0, 20)
    return call(
        d.tensor((1, 2, *draw_integers(d, 2, 5, 7)), "T1", 0, 100),
        d.tensor((filters, 2, *kernel), "T2", 0, 100),
        zero,
        d.maybe(d.tensor((), "T2", 0, 20)),
        auto_pad=auto_pad,
        kernel_shape=d.maybe(kernel),
        pads=pads,
        strides=d.maybe(draw_integers(d, 2, 1, 3)),
    )

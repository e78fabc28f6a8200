"""Pools of 8-bit integers.

onnxruntime's quantizer writes QLinearAveragePool and QLinearGlobalAveragePool, its optimizer
NhwcMaxPool and, with `channels_last`, the other two: then X is [N, *spatial, C].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.ops.contrib.quantized_numbers import (
    centred,
    dequantize,
    draw_quantized,
    draw_settings,
    one,
    quantize_shifted,
    settings,
    wide,
)
from onnxinterp.ops.contrib.registration import REQUIRED, contrib_op
from onnxinterp.ops.max_pooling import max_pool
from onnxinterp.ops.pooling import pad_to_fit, spatial_axes
from onnxinterp.ops.quantization import round_to_dtype
from onnxinterp.ops.spatial import AutoPad, Window, window
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call, draw_integers
from onnxinterp.values import Flag


@contrib_op("QLinearAveragePool", frozen=settings("x", "y"))
def q_linear_average_pool(
    X: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor | None = None,
    y_scale: Tensor = REQUIRED,
    y_zero_point: Tensor | None = None,
    *,
    auto_pad: AutoPad = "NOTSET",
    ceil_mode: Flag = 0,
    channels_last: Flag = 0,
    count_include_pad: Flag = 0,
    kernel_shape: list[int],
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Tensor:
    """The mean of the numbers in float32; the zero point is added before rounding.

    With `count_include_pad` each window has all its elements, also beyond the padding.
    """
    x = dequantize(X, x_scale, x_zero_point)
    x = x.movedim(-1, 1) if channels_last else x
    w = window(x.shape[2:], kernel_shape, auto_pad, strides, pads=pads)
    counts = w.outputs(x.shape[2:], bool(ceil_mode))
    total = _window_sums(x, w, counts)
    if count_include_pad:
        mean = total / math.prod(w.kernel)
    else:
        mean = total / _window_sums(torch.ones_like(x[:1, :1]), w, counts)
    y = quantize_shifted(mean / one(y_scale, mean.dtype), y_zero_point, X.dtype)
    return y.movedim(1, -1) if channels_last else y


def _window_sums(x: Tensor, w: Window, counts: Sequence[int]) -> Tensor:
    """The sums in the order of onnxruntime: sums of float32 depend on it."""
    padded = pad_to_fit(x, w, counts, 0)
    if x.ndim == 3:
        sums = functional.avg_pool2d(
            padded.unsqueeze(2), [1, *w.kernel], [1, *w.strides], divisor_override=1
        )
        return sums.squeeze(2)
    pool = functional.avg_pool2d if x.ndim == 4 else functional.avg_pool3d
    return pool(padded, w.kernel, w.strides, divisor_override=1)


@contrib_op("QLinearGlobalAveragePool", frozen=settings("x", "y"))
def q_linear_global_average_pool(
    X: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor,
    *,
    channels_last: Flag = 0,
) -> Tensor:
    """Integers are summed; unlike for QLinearAveragePool the zero point is added after rounding."""
    dtype = wide(y_scale)
    axes = [axis - 1 if channels_last else axis for axis in spatial_axes(X)]
    total = centred(X, x_zero_point, torch.int32).sum(axes, keepdim=True, dtype=torch.int32)
    count = math.prod(X.shape[axis] for axis in axes)
    ratio = one(x_scale, dtype) / (one(y_scale, dtype) * count)
    return round_to_dtype(total.to(dtype) * ratio, y_zero_point.reshape(()), X.dtype)


@contrib_op("NhwcMaxPool")
def nhwc_max_pool(
    x: Tensor,
    *,
    auto_pad: AutoPad = "NOTSET",
    ceil_mode: Flag = 0,
    dilations: list[int] | None = None,
    kernel_shape: list[int],
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Tensor:
    """MaxPool of [N, *spatial, C]."""
    y = max_pool(
        x.movedim(-1, 1),
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        dilations=dilations,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
        n_outputs=1,
    )
    if not isinstance(y, Tensor):
        raise TypeError("MaxPool must return one tensor")
    return y.movedim(1, -1)


def _draw_window(d: Draw, rank: int) -> dict[str, Any]:
    """The attributes of a window that fits sizes from 5 on."""
    kernel = draw_integers(d, rank, 1, 3)
    auto_pad = d.choice([None, "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
    same = auto_pad in ("SAME_UPPER", "SAME_LOWER")
    # onnxruntime returns too few windows if SAME needs negative pads
    strides = [d.integer(1, k if same else 3) for k in kernel]
    pads = [d.integer(0, k - 1) for k in kernel * 2] if auto_pad in (None, "NOTSET") else None
    return {
        "auto_pad": auto_pad,
        "ceil_mode": d.maybe(d.integer(0, 1)),
        "kernel_shape": kernel,
        "pads": d.maybe(pads),
        "strides": d.maybe(strides),
    }


def _draw_image(d: Draw, rank: int, channels_last: int | None) -> tuple[int, ...]:
    sizes = draw_integers(d, rank, 5, 7)
    n, c = d.integer(1, 2), d.integer(1, 3)
    return (n, *sizes, c) if channels_last else (n, c, *sizes)


@sample(q_linear_average_pool)
def _(d: Draw) -> Call:
    rank, channels_last = d.integer(1, 3), d.maybe(d.integer(0, 1))
    return call(
        *draw_quantized(d, _draw_image(d, rank, channels_last), scalars=True),
        *draw_settings(d, scalars=True),
        channels_last=channels_last,
        count_include_pad=d.maybe(d.integer(0, 1)),
        **_draw_window(d, rank),
    )


@sample(q_linear_global_average_pool)
def _(d: Draw) -> Call:
    channels_last = d.maybe(d.integer(0, 1))
    shape = _draw_image(d, d.integer(1, 3), channels_last)
    return call(*draw_quantized(d, shape), *draw_settings(d), channels_last=channels_last)


@sample(nhwc_max_pool)
def _(d: Draw) -> Call:
    rank = d.integer(1, 3)
    attributes = _draw_window(d, rank)
    dilated = attributes["auto_pad"] in (None, "NOTSET", "VALID")
    dilations = d.maybe(draw_integers(d, rank, 1, 2)) if dilated else None
    x = d.tensor(_draw_image(d, rank, 1), lo=-128, hi=255)
    return call(x, dilations=dilations, **attributes)

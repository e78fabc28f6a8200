"""Products of quantized tensors: MatMulInteger, QLinearMatMul, QLinearConv.

History: all 10; QLinearMatMul 21 (float8, halves as scales). ConvInteger is in convolution.py.

Sums are exact and wrap at 32 bits. They are computed in 32-bit integers where the processor does it
right (`byte_products`), otherwise in float64, which holds all of them (a product of two 8-bit
integers needs 17 bits) and has a fast matrix product on each device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from onnxinterp.ops.byte_products import product
from onnxinterp.ops.convolution import conv_integer
from onnxinterp.ops.eager import is_eager
from onnxinterp.ops.quantization import round_to_dtype, zero_point
from onnxinterp.ops.spatial import with_bias
from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.versions import forwards


def _settings(*tensors: str) -> tuple[str, ...]:
    """The names of the scales and zero points of some tensors."""
    return tuple(f"{x}_{setting}" for x in tensors for setting in ("scale", "zero_point"))


def _per_row(setting: Tensor, matrix: Tensor) -> Tensor:
    """A scale or zero point of the left factor: [M] has one per row, as [M, 1]."""
    return setting.unsqueeze(-1) if setting.ndim == 1 and matrix.ndim > 1 else setting


def _center(x: Tensor, zero_point: Tensor | None) -> Tensor:
    return x.double() if zero_point is None else x.double() - zero_point.double().expand_as(x)


@op("MatMulInteger", since=10, frozen=("a_zero_point", "b_zero_point"))
def mat_mul_integer(
    A: Tensor,
    B: Tensor,
    a_zero_point: Tensor | None = None,
    b_zero_point: Tensor | None = None,
) -> Tensor:
    rows = None if a_zero_point is None else _per_row(a_zero_point, A)
    return _product(A, B, rows, b_zero_point)


def _product(A: Tensor, B: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    """The product of matrices less their zero points; int32, but for floats float64."""
    if (total := product(A, B, rows, columns)) is not None:
        return total
    wide = _center(A, rows) @ _center(B, columns)
    if A.is_floating_point() or B.is_floating_point():
        return wide
    return wide.to(torch.int64).to(torch.int32)


@op("QLinearMatMul", since=10, any_type=True, frozen=_settings("a", "b", "y"))
def q_linear_mat_mul(
    a: Tensor,
    a_scale: Tensor,
    a_zero_point: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero_point: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor,
) -> Tensor:
    total = _product(a, b, _per_row(a_zero_point, a), b_zero_point)
    scales = _per_row(a_scale, a), b_scale, _per_row(y_scale, a)
    return _requantize(total, *scales, _per_row(y_zero_point, a))


def _requantize(
    total: Tensor, a_scale: Tensor, b_scale: Tensor, y_scale: Tensor, y_zero_point: Tensor
) -> Tensor:
    """Multiply a sum of products by one factor, as onnxruntime does, and round it."""
    dtype = total.dtype if total.is_floating_point() else torch.float32
    factor = a_scale.to(dtype) * b_scale.to(dtype) / y_scale.to(dtype)
    factor, zero = (_spread(setting, total) for setting in (factor, y_zero_point))
    scaled = total.to(dtype)
    scaled = scaled.mul_(factor) if is_eager(scaled, factor) else scaled * factor
    return round_to_dtype(scaled, zero, y_zero_point.dtype)


def _spread(setting: Tensor, total: Tensor) -> Tensor:
    """A number, or numbers that are expanded to all elements, which checks their shape."""
    is_one = setting.numel() == 1 and setting.ndim <= total.ndim
    return setting.reshape(()) if is_one else setting.expand_as(total)


@op("QLinearConv", since=10, frozen=_settings("x", "w", "y"))
@forwards(conv_integer)
def q_linear_conv(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor,
    w: Tensor,
    w_scale: Tensor,
    w_zero_point: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor,
    B: Tensor | None = None,
    **attributes: Any,
) -> Tensor:
    """The unit of the bias is x_scale * w_scale; w_scale may have one per output channel."""
    total = with_bias(conv_integer(x, w, x_zero_point, w_zero_point, **attributes), B)
    per_channel = w_scale.reshape(-1, *[1] * (x.ndim - 2))
    settings = x_scale.reshape(()), per_channel, y_scale.reshape(())
    return _requantize(total, *settings, y_zero_point.reshape(()))


def _draw_factors(d: Draw) -> tuple[Tensor, Tensor]:
    """Two matrices, perhaps with batches.

    For uint8 and int8, onnxruntime's kernels for AVX2 saturate sums of two products at 16 bits.
    """
    m, k, n = d.integer(1, 4), d.integer(1, 4), d.integer(1, 4)
    batch = d.shape(max_dims=2)
    highest = [16 if d.dtype(t).is_floating_point else 255 for t in ("T1", "T2")]
    A = d.tensor((*batch, m, k), "T1", lo=-128, hi=highest[0])
    B = d.tensor((*d.broadcastable(batch), k, n), "T2", lo=-64, hi=highest[1])
    return A, B if d.dtype("T2") is not torch.int8 else B.clamp(max=63)


@sample(mat_mul_integer)
def _(d: Draw) -> Call:
    A, B = _draw_factors(d)
    columns = (B.shape[-1],) if B.ndim == 2 else ()
    a_zero_point = d.tensor((), "T1", lo=-10, hi=10)
    b_zero_point = d.tensor(d.choice([(), columns]), "T2", lo=-10, hi=10)
    return call(A, B, d.maybe(a_zero_point), d.maybe(b_zero_point))


@sample(q_linear_mat_mul)
def _(d: Draw) -> Call:
    a, b = _draw_factors(d)
    columns = d.choice([(), (b.shape[-1],)] if b.ndim == 2 else [()])
    scaled = "TS" if d.opset >= 21 else ""  # float32, without a type parameter
    return call(
        a,
        d.tensor((), scaled, lo=0.1, hi=1),
        zero_point(d, (), "T1"),
        b,
        d.tensor(columns, scaled, lo=0.1, hi=1),
        zero_point(d, columns, "T2"),
        d.tensor((), scaled, lo=10, hi=100),
        zero_point(d, (), "T3"),
    )


@sample(q_linear_conv)
def _(d: Draw) -> Call:
    group = d.integer(1, 2)
    channels, filters = group * d.integer(1, 2), group * d.integer(1, 2)
    kernel = (d.integer(1, 3), d.integer(1, 3))
    per_channel = d.choice([(), (filters,)])
    return call(
        d.tensor((d.integer(1, 2), channels, d.integer(5, 7), d.integer(5, 7)), "T1", 0, 100),
        d.floats((), lo=0.1, hi=1),
        d.tensor((), "T1", 0, 20),
        d.tensor((filters, channels // group, *kernel), "T2", -100, 100),
        d.floats(per_channel, lo=0.1, hi=1),
        d.tensor((), "T2", 0, 20) if not per_channel else d.tensor((filters,), "T2", 0, 0),
        d.floats((), lo=10, hi=100),
        d.tensor((), "T3", 0, 20),
        d.maybe(d.ints((filters,), -1000, 1000, torch.int32)),
        group=group,
        kernel_shape=d.maybe(list(kernel)),
        pads=d.maybe([d.integer(0, 2) for _ in range(4)]),
        strides=d.maybe([d.integer(1, 2), d.integer(1, 2)]),
        dilations=d.maybe([1, 1]),
    )

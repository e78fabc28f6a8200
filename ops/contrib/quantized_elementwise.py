"""Elementwise operators on 8-bit integers, and QuantizeLinear and DequantizeLinear.

onnxruntime's quantizer (QOperator format) and its optimizer write QLinearAdd, QLinearMul,
QLinearSigmoid, QLinearLeakyRelu, QLinearConcat and QLinearWhere: integers in, integers out, each
tensor with its scale and zero point. MulInteger has no kernel on the CPU; its documentation defines
it. QuantizeLinear and DequantizeLinear are those of ONNX for 16- and 4-bit integers, from the time
when ONNX did not have them.

Integers pass no gradient (see `quantization`).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.ops.contrib.quantized_numbers import (
    centred,
    dequantize,
    draw_quantized,
    draw_settings,
    one,
    quantize,
    quantize_shifted,
    settings,
    wide,
)
from onnxinterp.ops.contrib.registration import REQUIRED, contrib_op
from onnxinterp.ops.eager import is_eager
from onnxinterp.ops.quantization import (
    X_SETTINGS,
    dequantize_linear,
    quantize_linear_21,
    zero_point,
)
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call

MIN_IN_TABLE = 2**16  # elements from which on a table of all sums of two bytes is faster


@contrib_op("QLinearAdd", frozen=settings("A", "B", "C"))
def q_linear_add(
    A: Tensor,
    A_scale: Tensor,
    A_zero_point: Tensor | None = None,
    B: Tensor = REQUIRED,
    B_scale: Tensor = REQUIRED,
    B_zero_point: Tensor | None = None,
    C_scale: Tensor = REQUIRED,
    C_zero_point: Tensor | None = None,
) -> Tensor:
    """The zero points are one addend, and each product is added before it is rounded (fma)."""
    dtype = wide(C_scale)
    a_ratio, b_ratio = (one(s, dtype) / one(C_scale, dtype) for s in (A_scale, B_scale))
    zeros = [
        torch.zeros_like(a_ratio) if z is None else one(z, dtype)
        for z in (A_zero_point, B_zero_point, C_zero_point)
    ]
    shift = zeros[2] - (a_ratio * zeros[0] + b_ratio * zeros[1])
    if is_eager(A, B, shift, least=MIN_IN_TABLE) and A.shape == B.shape:
        numbers = torch.arange(256, dtype=torch.uint8).view(A.dtype)
        sums = _weighted_sum(numbers[:, None], numbers, a_ratio, b_ratio, shift)
        places = A.view(torch.uint8).to(torch.int32).mul_(256).add_(B.view(torch.uint8))
        return sums.flatten().index_select(0, places.flatten()).view(A.shape)
    return _weighted_sum(A, B, a_ratio, b_ratio, shift)


def _weighted_sum(A: Tensor, B: Tensor, a_ratio: Tensor, b_ratio: Tensor, shift: Tensor) -> Tensor:
    """Products of a byte and a float32 number are exact in float64: each sum is rounded once."""
    total = (B.double() * b_ratio.double() + shift.double()).to(shift.dtype)
    total = (A.double() * a_ratio.double() + total.double()).to(shift.dtype)
    return quantize_shifted(total, None, A.dtype)


@contrib_op("QLinearMul", frozen=settings("A", "B", "C"))
def q_linear_mul(
    A: Tensor,
    A_scale: Tensor,
    A_zero_point: Tensor | None = None,
    B: Tensor = REQUIRED,
    B_scale: Tensor = REQUIRED,
    B_zero_point: Tensor | None = None,
    C_scale: Tensor = REQUIRED,
    C_zero_point: Tensor | None = None,
) -> Tensor:
    """The zero point is added before rounding."""
    dtype = wide(C_scale)
    ratio = one(A_scale, dtype) * one(B_scale, dtype) / one(C_scale, dtype)
    products = centred(A, A_zero_point, dtype) * centred(B, B_zero_point, dtype)
    return quantize_shifted(products * ratio, C_zero_point, A.dtype)


@contrib_op("MulInteger", frozen=("A_zero_point", "B_zero_point"))
def mul_integer(
    A: Tensor,
    A_zero_point: Tensor | None = None,
    B: Tensor = REQUIRED,
    B_zero_point: Tensor | None = None,
) -> Tensor:
    return centred(A, A_zero_point, torch.int32) * centred(B, B_zero_point, torch.int32)


@contrib_op("QLinearSigmoid", frozen=settings("X", "Y"))
def q_linear_sigmoid(
    X: Tensor,
    X_scale: Tensor,
    X_zero_point: Tensor | None = None,
    Y_scale: Tensor = REQUIRED,
    Y_zero_point: Tensor | None = None,
) -> Tensor:
    y = torch.sigmoid(dequantize(X, X_scale, X_zero_point))
    return quantize(y, Y_scale, Y_zero_point, X.dtype)


@contrib_op("QLinearLeakyRelu", frozen=settings("X", "Y"))
def q_linear_leaky_relu(
    X: Tensor,
    X_scale: Tensor,
    X_zero_point: Tensor | None = None,
    Y_scale: Tensor = REQUIRED,
    Y_zero_point: Tensor | None = None,
    *,
    alpha: float = 0.009999999776482582,
) -> Tensor:
    y = functional.leaky_relu(dequantize(X, X_scale, X_zero_point), alpha)
    return quantize(y, Y_scale, Y_zero_point, X.dtype)


@contrib_op("QLinearConcat", frozen=("Y_scale", "Y_zero_point", "inputs"))
def q_linear_concat(Y_scale: Tensor, Y_zero_point: Tensor, *inputs: Tensor, axis: int) -> Tensor:
    """The inputs are triples: integers, their scale, their zero point."""
    if len(inputs) % 3 or not inputs:
        raise ValueError(f"inputs must be triples, got {len(inputs)}")
    triples = zip(inputs[::3], inputs[1::3], inputs[2::3], strict=True)
    parts = [
        quantize(dequantize(x, scale, zero), Y_scale, Y_zero_point, Y_zero_point.dtype)
        for x, scale, zero in triples
    ]
    return torch.cat(parts, axis)


@contrib_op("QLinearWhere", frozen=(*settings("x", "y", "z"),))
def q_linear_where(
    condition: Tensor,
    X: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor,
    Y: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor,
    z_scale: Tensor,
    z_zero_point: Tensor,
) -> Tensor:
    x, y = dequantize(X, x_scale, x_zero_point), dequantize(Y, y_scale, y_zero_point)
    x, y = (quantize(v, z_scale, z_zero_point, z_zero_point.dtype) for v in (x, y))
    return torch.where(condition, x, y)


@contrib_op("QuantizeLinear", any_type=True, frozen=("y_scale", "y_zero_point"))
def quantize_linear(
    x: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor | None = None,
    *,
    axis: int | None = None,
    output_type: int = 0,
    straight_through: bool = False,
) -> Tensor:
    """Without `axis`, the scale is one number."""
    _check_axis(y_scale, axis)
    return quantize_linear_21(
        x,
        y_scale,
        y_zero_point,
        axis=axis or 0,
        output_type=output_type,
        straight_through=straight_through,
    )


@contrib_op("DequantizeLinear", any_type=True, frozen=X_SETTINGS, accepts_float_for_int=("x",))
def dequantize_linear_contrib(
    x: Tensor, x_scale: Tensor, x_zero_point: Tensor | None = None, *, axis: int | None = None
) -> Tensor:
    """Without `axis`, the scale is one number."""
    _check_axis(x_scale, axis)
    return dequantize_linear(x, x_scale, x_zero_point, axis=axis or 0)


def _check_axis(scale: Tensor, axis: int | None) -> None:
    if axis is None and scale.numel() != 1:
        raise ValueError(f"a scale without axis must be one number, got {list(scale.shape)}")


@sample(q_linear_add, q_linear_mul)
def _(d: Draw) -> Call:
    shape = d.shape()
    a = draw_quantized(d, shape, scalars=True)
    b = draw_quantized(d, d.broadcastable(shape), scalars=True)
    return call(*(a + b if d.boolean() else b + a), *draw_settings(d, scalars=True))


@sample(mul_integer)
def _(d: Draw) -> Call:
    shape = d.shape()
    a, _, a_zero = draw_quantized(d, shape, scalars=True)
    b, _, b_zero = draw_quantized(d, d.broadcastable(shape), scalars=True)
    return call(a, d.maybe(a_zero), b, d.maybe(b_zero))


@sample(q_linear_sigmoid)
def _(d: Draw) -> Call:
    return call(*draw_quantized(d, d.shape()), *draw_settings(d))


@sample(q_linear_leaky_relu)
def _(d: Draw) -> Call:
    x = draw_quantized(d, d.shape())
    return call(*x, *draw_settings(d), alpha=d.maybe(d.real(0, 2)))


@sample(q_linear_concat)
def _(d: Draw) -> Call:
    shape = d.shape(min_dims=1)
    axis = d.axis(len(shape))
    parts: list[Tensor] = []
    for _ in range(d.integer(1, 3)):
        sides = list(shape)
        sides[axis] = d.integer(1, 3)
        parts += draw_quantized(d, tuple(sides), "T8")
    return call(*draw_settings(d, "T8"), *parts, axis=axis)


@sample(q_linear_where)
def _(d: Draw) -> Call:
    shape = d.shape()
    condition = d.tensor(d.broadcastable(shape), "B")
    x, y = draw_quantized(d, d.broadcastable(shape)), draw_quantized(d, shape)
    first, second = (x, y) if d.boolean() else (y, x)
    return call(condition, *first, *second, *draw_settings(d))


def _draw_granularity(d: Draw, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int | None]:
    """The shape of a scale, and `axis`."""
    if not shape or d.boolean():
        return (), None
    axis = d.axis(len(shape))
    return (shape[axis],), axis


@sample(quantize_linear)
def _(d: Draw) -> Call:
    """The quotients are the same in float16 and float32: the scales are powers of 2."""
    x = d.tensor(d.shape(), "T1", -300, 300)
    shape, axis = _draw_granularity(d, tuple(x.shape))
    scale = torch.ldexp(torch.ones(shape), d.ints(shape, -2, 2)).to(x.dtype)
    return call(x, scale, zero_point(d, shape, "T2"), axis=axis)


@sample(dequantize_linear_contrib)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(), "T1", -128, 127)
    shape, axis = _draw_granularity(d, tuple(x.shape))
    has_zero_point = d.dtype("T1") is not torch.int32
    zero = zero_point(d, shape, "T1") if has_zero_point else None
    return call(x, d.tensor(shape, "T2", 0.1, 3), d.maybe(zero), axis=axis)

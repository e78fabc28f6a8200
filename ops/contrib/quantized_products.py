"""Products of matrices of integers that onnxruntime's quantizer and optimizers write.

QGemm is Gemm between quantized tensors, MatMulIntegerToFloat a MatMulInteger whose sums are scaled,
DynamicQuantizeMatMul the same with a left factor that is quantized at run time. MatMulInteger16
multiplies 16-bit integers.

The sums are those of `integer_products`: exact, and fast where the processor has instructions for
them. The two products with a floating-point left factor or result pass gradients where they are
computed with floats: a bias has one, integers have none.
"""

from __future__ import annotations

import torch
from onnx import TensorProto
from torch import Tensor

from onnxinterp.ops.contrib.quantized_numbers import centred, one, settings, wide
from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.ops.integer_products import mat_mul_integer
from onnxinterp.ops.quantization import dynamic_quantize_linear, round_to_dtype
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag


@contrib_op("QGemm", frozen=settings("a", "b", "y"))
def q_gemm(
    A: Tensor,
    a_scale: Tensor,
    a_zero_point: Tensor,
    B: Tensor,
    b_scale: Tensor,
    b_zero_point: Tensor,
    C: Tensor | None = None,
    y_scale: Tensor | None = None,
    y_zero_point: Tensor | None = None,
    *,
    alpha: float = 1.0,
    transA: Flag = 0,
    transB: Flag = 0,
) -> Tensor:
    """C is added to the integers, so that alpha scales it too; without y_scale Y is float."""
    if A.ndim != 2 or B.ndim != 2:
        raise ValueError(f"A and B must be 2-D, got {list(A.shape)} and {list(B.shape)}")
    A, B = A.T if transA else A, B.T if transB else B
    total = mat_mul_integer(A, B, a_zero_point.reshape(()), _per_column(b_zero_point, B))
    if C is not None:
        total = total + C.expand_as(total)
    dtype = wide(a_scale)
    ratio = alpha * one(a_scale, dtype) * _per_column(b_scale, B).to(dtype)
    if y_scale is None:
        return (total.to(dtype) * ratio).to(a_scale.dtype)
    ratio = ratio / one(y_scale, dtype)
    shift = None if y_zero_point is None else one(y_zero_point, dtype)
    quantized = A.dtype if y_zero_point is None else y_zero_point.dtype
    return round_to_dtype(total.to(dtype) * ratio, shift, quantized)


def _per_column(setting: Tensor, B: Tensor) -> Tensor:
    """A scale or zero point of B: one number, or one for each column."""
    if setting.numel() == 1 and setting.ndim <= 1:
        return setting.reshape(())
    if setting.shape != B.shape[-1:]:
        raise ValueError(f"settings of B must be [{B.shape[-1]}], got {list(setting.shape)}")
    return setting


@contrib_op("MatMulIntegerToFloat", frozen=settings("a", "b"))
def mat_mul_integer_to_float(
    A: Tensor,
    B: Tensor,
    a_scale: Tensor,
    b_scale: Tensor,
    a_zero_point: Tensor | None = None,
    b_zero_point: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    zero = None if a_zero_point is None else a_zero_point.reshape(())
    return _scaled(A, B, a_scale, b_scale, zero, b_zero_point, bias)


@contrib_op("DynamicQuantizeMatMul", frozen=settings("b"))
def dynamic_quantize_mat_mul(
    A: Tensor,
    B: Tensor,
    b_scale: Tensor,
    b_zero_point: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """A is quantized to uint8 with one scale for all of it."""
    a, a_scale, a_zero_point = dynamic_quantize_linear(A.to(wide(A)))
    return _scaled(a, B, a_scale, b_scale, a_zero_point, b_zero_point, bias).to(A.dtype)


def _scaled(
    A: Tensor,
    B: Tensor,
    a_scale: Tensor,
    b_scale: Tensor,
    a_zero_point: Tensor | None,
    b_zero_point: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    """The sums of integers times both scales, plus the bias, in the dtype of b_scale."""
    columns = None if b_zero_point is None else _columns(b_zero_point, B)
    total = mat_mul_integer(A, B, a_zero_point, columns)
    dtype = wide(b_scale)
    y = total.to(dtype) * (one(a_scale, dtype) * _columns(b_scale, B).to(dtype))
    if bias is not None:
        if bias.shape != B.shape[-1:]:
            raise ValueError(f"bias must be [{B.shape[-1]}], got {list(bias.shape)}")
        y = y + bias.to(dtype)
    return y.to(b_scale.dtype)


def _columns(setting: Tensor, B: Tensor) -> Tensor:
    """A scale or zero point of B: one number, or one for each column (of each matrix)."""
    if setting.numel() == 1 or setting.ndim == 1:
        return _per_column(setting.reshape(-1), B)
    if setting.shape != (*B.shape[:-2], 1, B.shape[-1]):
        wanted = [*B.shape[:-2], 1, B.shape[-1]]
        raise ValueError(f"settings of B must be {wanted}, got {list(setting.shape)}")
    return setting


@contrib_op("MatMulInteger16")
def mat_mul_integer_16(A: Tensor, B: Tensor, *, output_type: int = 0) -> Tensor:
    """The sums wrap at 32 bits; the file declares whether they are signed."""
    total = centred(A, None, torch.int64) @ centred(B, None, torch.int64)
    return total.to(torch.uint32 if output_type == TensorProto.UINT32 else torch.int32)


def _draw_matrices(d: Draw, types: tuple[str, str], rank: int) -> tuple[Tensor, Tensor]:
    """Two factors. onnxruntime saturates products of uint8 and int8 on processors without VNNI."""
    m, k, n = d.integer(1, 4), d.integer(1, 4), d.integer(1, 4)
    batch = d.shape(max_dims=rank - 2)
    highest = 63 if d.dtype(types[1]) is torch.int8 else 255
    return (
        d.tensor((*batch, m, k), types[0], -128, 255),
        d.tensor((*d.broadcastable(batch), k, n), types[1], -64, highest),
    )


def _draw_columns(d: Draw, B: Tensor, type: str) -> tuple[Tensor, Tensor]:
    """Scale and zero point of the right factor."""
    shape = d.choice([(), (1,), tuple(B.shape[-1:])])
    return d.floats(shape, 0.1, 1), d.tensor(shape, type, -10, 10)


@sample(q_gemm)
def _(d: Draw) -> Call:
    A, B = _draw_matrices(d, ("TA", "TB"), 2)
    b_scale, b_zero = _draw_columns(d, B, "TB")
    rows, columns = A.shape[0], B.shape[1]
    C = d.ints(d.choice([(columns,), (rows, columns), (1, columns)]), -500, 500, torch.int32)
    y = (d.floats((), 1, 50), d.tensor((), "TYZ", -20, 20)) if d.boolean() else (None, None)
    transA, transB = d.integer(0, 1), d.integer(0, 1)
    return call(
        A.T.contiguous() if transA else A,
        d.floats((), 0.1, 1),
        d.tensor((), "TA", -10, 10),
        B.T.contiguous() if transB else B,
        b_scale,
        b_zero,
        d.maybe(C),
        *y,
        alpha=d.maybe(d.real(0.5, 2)),
        transA=d.maybe(transA) if not transA else 1,
        transB=d.maybe(transB) if not transB else 1,
    )


@sample(mat_mul_integer_to_float)
def _(d: Draw) -> Call:
    A, B = _draw_matrices(d, ("T1", "T2"), 4)
    scale, zero = _draw_columns(d, B, "T2")
    return call(
        A,
        B,
        d.tensor(d.choice([(), (1,)]), "T3", 0.1, 1),
        scale.to(d.dtype("T3")),
        d.maybe(d.tensor((), "T1", -10, 10)),
        d.maybe(zero),
        d.maybe(d.tensor(B.shape[-1:], "T3")),
    )


@sample(dynamic_quantize_mat_mul)
def _(d: Draw) -> Call:
    _, B = _draw_matrices(d, ("", "T2"), 4)
    A = d.floats((*d.broadcastable(B.shape[:-2]), d.integer(1, 4), B.shape[-2]), d.real(-10, 5), 10)
    scale, zero = _draw_columns(d, B, "T2")
    return call(A, B, scale, d.maybe(zero), d.maybe(d.tensor(B.shape[-1:], "T1")))


@sample(mat_mul_integer_16)
def _(d: Draw) -> Call:
    m, k, n = d.integer(1, 4), d.integer(1, 4), d.integer(1, 4)
    batch = d.shape(max_dims=2)
    A = d.tensor((*batch, m, k), "T1", -32768, 65535)
    return call(A, d.tensor((*d.broadcastable(batch), k, n), "T2", -32768, 65535))

"""Reductions of 8-bit integers: QLinearReduceMean, ReduceSumInteger, QLinearSoftmax.

onnxruntime's quantizer writes QLinearSoftmax. The other two have no kernel on the CPU; their
documentation defines them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from onnx import TensorProto
from torch import Tensor

from onnxinterp.ops.contrib.quantized_numbers import (
    dequantize,
    draw_quantized,
    draw_settings,
    one,
    quantize,
    settings,
)
from onnxinterp.ops.contrib.registration import REQUIRED, contrib_op
from onnxinterp.ops.quantization import round_to_dtype
from onnxinterp.ops.shapes import from_front
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag

PER_AXIS_OPSET = 13
"""From this opset on Softmax is taken along one axis, before along all from `axis` on."""
TABLE_RESERVE = 5  # between the logarithm of the largest float32 and that of a sum


@contrib_op("QLinearReduceMean", frozen=settings("data", "reduced"))
def q_linear_reduce_mean(
    data: Tensor,
    data_scale: Tensor,
    data_zero_point: Tensor | None = None,
    reduced_scale: Tensor = REQUIRED,
    reduced_zero_point: Tensor | None = None,
    *,
    axes: list[int],
    keepdims: Flag,
) -> Tensor:
    x = dequantize(data, data_scale, data_zero_point)
    mean = x.mean(_all_if_none(axes, x), keepdim=bool(keepdims))
    return quantize(mean, reduced_scale, reduced_zero_point, data.dtype)


@contrib_op("ReduceSumInteger")
def reduce_sum_integer(
    data: Tensor, *, axes: list[int], keepdims: Flag, output_type: int = 0
) -> Tensor:
    """The file declares whether the sums are int32 or uint32."""
    total = data.sum(_all_if_none(axes, data), keepdim=bool(keepdims), dtype=torch.int64)
    return total.to(torch.uint32 if output_type == TensorProto.UINT32 else torch.int32)


def _all_if_none(axes: Sequence[int], x: Tensor) -> list[int]:
    return list(axes) or list(range(x.ndim))


@contrib_op("QLinearSoftmax", frozen=("X_scale", "x_zero_point", *settings("y")))
def q_linear_softmax(
    X: Tensor,
    X_scale: Tensor,
    x_zero_point: Tensor | None = None,  # noqa: ARG001  # only differences matter
    y_scale: Tensor = REQUIRED,
    y_zero_point: Tensor = REQUIRED,
    *,
    axis: int = -1,
    opset: int,
) -> Tensor:
    """The whole part of 1 / y_scale is the factor, as in onnxruntime: 14 for a scale of 0.07.

    Exponentials are float32 numbers that a table has for each difference from the maximum, times a
    power of e that keeps their sum finite.
    """
    if not X.numel():
        return torch.empty_like(X)
    axis = from_front(axis, X.ndim)
    x = X.to(torch.int32)
    x = x.movedim(axis, -1) if opset >= PER_AXIS_OPSET else x.flatten(axis)
    scale = one(X_scale, torch.float64)
    count = x.shape[-1]
    room = max(0.0, math.log(torch.finfo(torch.float32).max / count) - TABLE_RESERVE)
    below = x - x.amax(-1, keepdim=True)
    table = ((below + room / scale) * scale).exp().float()
    factor = (1 / one(y_scale, torch.float32)).floor()
    total = table.sum(-1, keepdim=True, dtype=torch.float64).float()
    y = round_to_dtype(table * factor / total, y_zero_point.reshape(()), X.dtype)
    return y.movedim(-1, axis) if opset >= PER_AXIS_OPSET else y.reshape(X.shape)


@sample(q_linear_reduce_mean)
def _(d: Draw) -> Call:
    x, scale, zero = draw_quantized(d, d.shape(min_dims=1))
    y_scale, y_zero = draw_settings(d)
    return call(
        x,
        scale,
        d.maybe(zero),
        y_scale,
        d.maybe(y_zero),
        axes=d.axes(x.ndim, min_size=1),
        keepdims=d.integer(0, 1),
    )


@sample(reduce_sum_integer)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=1), "T1", -128, 255)
    return call(x, axes=d.axes(x.ndim, min_size=1), keepdims=d.integer(0, 1))


@sample(q_linear_softmax)
def _(d: Draw) -> Call:
    """The quotients for 1 / 256 are exact."""
    x = draw_quantized(d, d.shape(min_dims=1))
    y_scale, y_zero = draw_settings(d, unit=d.choice([1 / 256, 0.0013]))
    return call(*x, y_scale, y_zero, axis=d.maybe(d.axis(x[0].ndim)), opset=d.choice([13, 12, 11]))

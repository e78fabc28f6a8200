"""Quantization: QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear.

History: QuantizeLinear and DequantizeLinear 10 (one scale), 13 (one per index of `axis`), 19
(float8, `saturate`; the scale may be float16), 21 (blocks, `output_dtype`; 16- and 4-bit integers),
23 (a scale of another type than x, `precision`; float4), 24 (float8e8m0 scales), 25 (2-bit
integers), 28 (float6). DynamicQuantizeLinear 11.

Scales and zero points are settings, not weights, unless `trainable` names them.

Gradients use the straight-through estimator: the gradient of rounding is 1 within the range of the
quantized type and 0 outside (Bengio et al., 2013, arXiv:1308.3432). The gradient of a scale is then
that of learned step sizes (Esser et al., 2020, arXiv:1902.08153). An integer tensor has no
gradient. So if all readers of a quantized value dequantize it (`straight_through`), it has the same
numbers in a floating-point type. Integers with other readers, and operators that compute with
integers (QLinearConv, MatMulInteger, ...), pass no gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from onnx import TensorProto
from torch import Tensor
from torch.nn import functional

from onnxinterp.dtypes import FLOAT8, REAL
from onnxinterp.ops.eager import is_eager
from onnxinterp.ops.narrow import limits, round_to_type, to_float8
from onnxinterp.ops.shapes import from_front
from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag
from onnxinterp.versions import forwards, older

# dtypes of which differences are exact in float32; a float here has the numbers of an integer
EXACT_IN_FLOATS = (torch.uint8, torch.int8, torch.int16, torch.uint16, torch.float32)
MIN_ELEMENTS = 4096  # from which on fewer passes are faster
X_SETTINGS = ("x_scale", "x_zero_point")


@op("QuantizeLinear", since=23, any_type=True, frozen=("y_scale", "y_zero_point"))
def quantize_linear(
    x: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: torch.dtype | None = None,
    precision: torch.dtype | None = None,
    saturate: Flag = 1,
    output_type: int = 0,
    straight_through: bool = False,
) -> Tensor:
    """Divide in the type of the scale (or `precision`), round half to even, shift, saturate.

    The quotient is rounded, not truncated, also for integer scales, as in the reference evaluator.
    """
    scale, shift = _settings(y_scale, y_zero_point, x, axis, block_size)
    divided_in = precision or (y_scale.dtype if y_scale.dtype in REAL else _wide(y_scale.dtype))
    y = x.to(divided_in) / scale.to(divided_in)
    dtype = output_dtype or (torch.uint8 if y_zero_point is None else y_zero_point.dtype)
    y = y.to(_wide(divided_in))
    if straight_through and not dtype.is_floating_point:
        return saturate_integers(y, shift, *_range(dtype, output_type))
    y = round_to_dtype(y, shift, dtype, bool(saturate), output_type)
    narrow = round_to_type(y, output_type)
    return straight_through_gradient(y, narrow) if y.is_floating_point() else narrow


def round_to_dtype(
    y: Tensor,
    shift: Tensor | None,
    dtype: torch.dtype,
    saturate: bool = True,
    elem_type: int = 0,
) -> Tensor:
    """Round y to `dtype`, integers before the zero point is added; nan becomes the lowest one.

    y is overwritten where nobody else needs it: it must be a result of the caller.
    """
    if dtype.is_floating_point:
        y = y if shift is None else y + shift.to(y.dtype)
        return to_float8(y, dtype, saturate) if dtype in FLOAT8 else y.to(dtype)
    low, high = _range(dtype, elem_type)
    if is_eager(y, shift, least=MIN_ELEMENTS):
        y = _saturate_(y, shift, low, high)
        # torch is slow from floats to uint8
        return y.to(torch.int16).to(dtype) if dtype is torch.uint8 else y.to(dtype)
    y = y.round() if shift is None else y.round() + shift.to(y.dtype)
    return y.nan_to_num(low).clamp(low, high).to(dtype)


def _saturate_(y: Tensor, shift: Tensor | None, low: int, high: int) -> Tensor:
    """Round y, shift it and clamp it, in place."""
    y.round_()
    if shift is not None:
        y.add_(shift.to(y.dtype))
    return y.nan_to_num_(low).clamp_(low, high)


def saturate_integers(y: Tensor, shift: Tensor | None, low: int, high: int) -> Tensor:
    """The integers of `round_to_dtype` in the dtype of y, with straight-through gradients.

    y may be overwritten, as there.
    Values that round to an end of the range have a gradient: half a step beyond the range.
    """
    if is_eager(y, shift):
        return _saturate_(y, shift, low, high)
    zero = y.new_zeros(()) if shift is None else shift.to(y.dtype)
    least, most = low - zero, high - zero
    y = y.nan_to_num(torch.finfo(y.dtype).min).clamp(least - 0.5, most + 0.5)
    return straight_through_gradient(y, y.round().clamp(least, most)) + zero


def straight_through_gradient(x: Tensor, rounded: Tensor) -> Tensor:
    """The value of `rounded` with the gradient of x, forward and backward.

    The sum is exact: the distance to the nearest integer is a multiple of the last digit of x.
    """
    if rounded is x:
        return x
    return x + (rounded - x).detach()  # no other kernel detaches a tensor


def _range(dtype: torch.dtype, elem_type: int) -> tuple[int, int]:
    return limits(elem_type) or (torch.iinfo(dtype).min, torch.iinfo(dtype).max)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype to compute in: for this dtype, 16-bit integers and products of two halves."""
    return torch.float64 if dtype in (torch.float64, torch.int32) else torch.float32


def _settings(
    scale: Tensor, zero_point: Tensor | None, x: Tensor, axis: int, block_size: int
) -> tuple[Tensor, Tensor | None]:
    """Scale and zero point in shapes that broadcast to x.

    Raises:
        ValueError: their shapes do not fit x or each other.
    """
    spread = _spread(scale, x, axis, block_size)
    if zero_point is None:
        return spread, None
    shift = _spread(zero_point, x, axis, block_size)
    if shift.shape != spread.shape:
        raise ValueError(f"zero point must be {list(scale.shape)}, got {list(zero_point.shape)}")
    return spread, shift


def _spread(setting: Tensor, x: Tensor, axis: int, block_size: int) -> Tensor:
    """Expand a setting that is a scalar or a list of one, per index of `axis`, or per block.

    The last block may be smaller.
    """
    if not block_size and (setting.ndim == 0 or setting.shape == (1,)):
        return setting.reshape(())
    axis, sizes = from_front(axis, x.ndim), list(x.shape)
    wanted = [sizes[axis]]
    if block_size:
        wanted = [*sizes[:axis], -(-sizes[axis] // block_size), *sizes[axis + 1 :]]
    if setting.shape != tuple(wanted):
        raise ValueError(f"scale and zero point must be {wanted}, got {list(setting.shape)}")
    if block_size:
        return setting.repeat_interleave(block_size, axis).narrow(axis, 0, sizes[axis])
    return setting.reshape(-1, *[1] * (x.ndim - 1 - axis))


@op("QuantizeLinear", since=21, any_type=True, frozen=("y_scale", "y_zero_point"))
@forwards(quantize_linear, without=["precision"])
def quantize_linear_21(
    x: Tensor, y_scale: Tensor, y_zero_point: Tensor | None = None, **attributes: Any
) -> Tensor:
    """The precision of the division is undefined; onnxruntime uses float32 for halves."""
    precision = _wide(y_scale.dtype)
    return quantize_linear(x, y_scale, y_zero_point, precision=precision, **attributes)


quantize_linear_19 = older(
    quantize_linear_21, since=19, without=["block_size", "output_dtype", "output_type"]
)
quantize_linear_13 = older(quantize_linear_19, since=13, without=["saturate"])
quantize_linear_10 = older(quantize_linear_13, since=10, without=["axis"])


@op("DequantizeLinear", since=23, any_type=True, frozen=X_SETTINGS, accepts_float_for_int=("x",))
def dequantize_linear(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: torch.dtype | None = None,
) -> Tensor:
    """Multiply in float32 for halves, and round once to the dtype of the scale."""
    dtype = output_dtype or x_scale.dtype
    if dtype not in REAL:
        raise TypeError(f"output_dtype must be given for a scale of {dtype}")
    scale, shift = _settings(x_scale, x_zero_point, x, axis, block_size)
    wide = _wide(dtype)
    if (
        x.dtype in EXACT_IN_FLOATS
        and shift is not None
        and is_eager(x, scale, shift, least=MIN_ELEMENTS)
    ):
        y = x.to(wide) - shift.to(wide)
        return y.mul_(scale.to(wide)).to(dtype)
    exact = wide if x.is_floating_point() else torch.int32
    y = x.to(exact)
    if shift is not None:
        y = y - shift.to(exact)
    return (y.to(wide) * scale.to(wide)).to(dtype)


dequantize_linear_21 = older(dequantize_linear, since=21, without=["output_dtype"])
dequantize_linear_13 = older(dequantize_linear_21, since=13, without=["block_size"])
dequantize_linear_10 = older(dequantize_linear_13, since=10, without=["axis"])


@op("DynamicQuantizeLinear", since=11)
def dynamic_quantize_linear(
    x: Tensor, *, straight_through: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Quantize to uint8, with a scale for the range of all elements and 0.

    If all elements are 0, the scale is 1 as in onnxruntime; the specification's formula would
    divide by 0.
    """
    if is_eager(x, least=MIN_ELEMENTS):
        low, high = torch.aminmax(x)
        low, high = low.clamp(max=0), high.clamp(min=0)
    else:
        low, high = torch.aminmax(functional.pad(x.flatten(), (0, 1)))
    scale = torch.where(low == high, torch.ones_like(low), (high - low) / 255)
    zero_point = round_to_dtype(-low / scale, None, torch.uint8)
    y = x / scale
    if straight_through:
        return saturate_integers(y, zero_point, 0, 255), scale, zero_point
    return round_to_dtype(y, zero_point, torch.uint8), scale, zero_point


def _granularity(d: Draw, x: Tensor) -> tuple[tuple[int, ...], int | None, int | None]:
    """The shape of scale and zero point, with `axis` and `block_size`."""
    options = ["tensor"]
    if d.opset >= 13 and x.ndim:
        options.append("axis")
    if d.opset >= 21 and x.ndim > 1:
        options.append("block")
    kind = d.choice(options)
    if kind == "tensor":
        return (), None, None
    axis = d.axis(x.ndim)
    shape = list(x.shape)
    if kind == "axis":
        return (shape[axis],), axis, None
    block = d.choice([b for b in (1, 2, 3) if b <= shape[axis]])
    shape[axis] = -(-shape[axis] // block)
    return tuple(shape), axis, block


def zero_point(d: Draw, shape: tuple[int, ...], type: str) -> Tensor:
    """A zero point; 0 for floats, which the oracles require or assume."""
    span = 0 if d.dtype(type).is_floating_point else 20
    zero: Tensor = d.tensor(shape, type, lo=-span, hi=span)
    return zero


def _power_of_2(d: Draw, shape: tuple[int, ...], type: str) -> Tensor:
    """A scale for which the quotient is the same in each type."""
    dtype = d.dtype(type)
    lowest = -2 if dtype.is_floating_point else 0
    return torch.ldexp(torch.ones(shape), d.ints(shape, lowest, 2)).to(dtype)


@sample(quantize_linear, quantize_linear_21)
def _(d: Draw) -> Call:
    scaled, quantized = ("T2", "T3") if d.opset >= 23 else ("T1", "T2")
    attributes: dict[str, Any] = {}
    if d.opset >= 19:
        attributes["saturate"] = d.maybe(d.integer(0, 1))
    if d.opset >= 23 and d.dtype("T1") is not torch.float64:  # no type is as precise
        attributes["precision"] = d.choice([None, torch.float32, torch.float16, torch.bfloat16])
    span = 10000 if d.dtype(quantized).itemsize == 2 else 300
    x = d.tensor(d.shape(), "T1", lo=-span, hi=span)
    shape, attributes["axis"], attributes["block_size"] = _granularity(d, x)
    types = {d.dtype("T1"), d.dtype(scaled), attributes.get("precision") or d.dtype("T1")}
    if types <= {torch.float32, torch.float64}:
        scale = d.floats(shape, lo=1, hi=3)
    else:  # the oracles divide in other types; these quotients are the same in all of them
        x = x.to(torch.bfloat16).to(x.dtype)
        scale = _power_of_2(d, shape, scaled if d.opset >= 19 else "")
    is_given = d.opset >= 21 and d.boolean()
    attributes["output_dtype"] = d.elem_type(quantized) if is_given else None
    is_default = is_given or d.elem_type(quantized) == TensorProto.UINT8
    shift = None if is_default and d.boolean() else zero_point(d, shape, quantized)
    return call(x, scale, shift, **attributes)


@sample(dequantize_linear)
def _(d: Draw) -> Call:
    quantized = "T" if d.opset < 19 else "T1"
    x = d.tensor(d.shape(), quantized, lo=-128, hi=127)
    shape, axis, block_size = _granularity(d, x)
    scale = d.tensor(shape, "T2", lo=0.1, hi=3) if d.opset >= 19 else d.floats(shape, lo=0.1, hi=3)
    has_zero_point = d.dtype(quantized) is not torch.int32 and d.boolean()
    shift = zero_point(d, shape, quantized) if has_zero_point else None
    attributes: dict[str, Any] = {"axis": axis, "block_size": block_size}
    if d.opset >= 23:
        # onnxruntime lacks bfloat16, and a type of the output to convert back to
        same = d.elem_type("T3") == d.elem_type("T2") != TensorProto.BFLOAT16
        is_default = same and d.boolean()
        attributes["output_dtype"] = None if is_default else d.elem_type("T3")
    return call(x, scale, shift, **attributes)


@sample(dynamic_quantize_linear)
def _(d: Draw) -> Call:
    return call(d.floats(d.shape(), lo=d.real(-10, 5), hi=10), outputs=3)

"""Operators on integers that no runtime runs on a CPU, and convolutions with channels last."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from tests.property.formulas import formula

Array: TypeAlias = np.ndarray[Any, Any]


def _less(x: Array, zero_point: Array | None) -> Array:
    return x.astype(np.int32) - (0 if zero_point is None else zero_point.astype(np.int32))


@formula("MulInteger")
def mul_integer(a: Array, a_zero: Array | None, b: Array, b_zero: Array | None = None) -> Array:
    return np.asarray(_less(a, a_zero) * _less(b, b_zero))


@formula("ReduceSumInteger")
def reduce_sum_integer(data: Array, axes: list[int], keepdims: int) -> Array:
    return np.asarray(np.sum(data, axis=tuple(axes), keepdims=bool(keepdims), dtype=np.int32))


@formula("QLinearReduceMean")
def q_linear_reduce_mean(
    data: Array,
    scale: Array,
    zero: Array | None,
    y_scale: Array,
    y_zero: Array | None = None,
    *,
    axes: list[int],
    keepdims: int,
) -> Array:
    """Dequantize, ReduceMean on fp32 data, Quantize."""
    x = (_less(data, zero) * scale.reshape(())).astype(np.float32)
    mean = np.mean(x, axis=tuple(axes), keepdims=bool(keepdims), dtype=np.float32)
    ends = np.iinfo(data.dtype)
    shift = 0 if y_zero is None else y_zero.reshape(()).astype(np.int32)
    y = np.rint(mean / y_scale.reshape(()).astype(np.float32)) + shift
    return np.asarray(np.clip(y, ends.min, ends.max).astype(data.dtype))


@formula("MatMulInteger16")
def mat_mul_integer_16(a: Array, b: Array) -> Array:
    return np.asarray(np.matmul(a.astype(np.int64), b.astype(np.int64)).astype(np.int32))


@formula("MatMulIntegerToFloat")
def mat_mul_integer_to_float(
    a: Array,
    b: Array,
    a_scale: Array,
    b_scale: Array,
    a_zero: Array | None = None,
    b_zero: Array | None = None,
    bias: Array | None = None,
) -> Array:
    """Of the types that onnxruntime runs on GPUs only: int8 before all others."""
    factor = a_scale.astype(np.float32).reshape(()) * b_scale.astype(np.float32)
    total = np.matmul(_less(a, a_zero), _less(b, b_zero)) * factor
    return np.asarray((total if bias is None else total + bias).astype(a_scale.dtype))


@formula("QGemm")
def q_gemm(
    a: Array,
    a_scale: Array,
    a_zero: Array,
    b: Array,
    b_scale: Array,
    b_zero: Array,
    c: Array | None = None,
    y_scale: Array | None = None,
    y_zero: Array | None = None,
    *,
    alpha: float = 1,
    transA: int = 0,
    transB: int = 0,
) -> Array:
    """C has the scale of the products; onnxruntime lacks a kernel for int8 times uint8."""
    a, b = a.T if transA else a, b.T if transB else b
    total = _less(a, a_zero) @ _less(b, b_zero) + (0 if c is None else c)
    factor = np.float32(alpha) * a_scale * b_scale
    if y_scale is None or y_zero is None:
        return np.asarray((total * factor).astype(np.float32))
    ends = np.iinfo(y_zero.dtype)
    y = np.rint(total.astype(np.float32) * (factor / y_scale)) + y_zero.astype(np.int32)
    return np.asarray(np.clip(y, ends.min, ends.max).astype(y_zero.dtype))


def _convolve(x: Array, w: Array, b: Array | None, attributes: dict[str, Any]) -> Array:
    """X [N, *sizes, C] and filters [M, C/group, *kernel], each element of the result by itself."""
    n = x.shape[0]
    filters, side, *kernel = w.shape
    rank, group = len(kernel), attributes.get("group", 1)
    pads = attributes.get("pads", [0] * 2 * rank)
    strides, dilations = (attributes.get(a, [1] * rank) for a in ("strides", "dilations"))
    around = [(0, 0), *zip(pads[:rank], pads[rank:], strict=True), (0, 0)]
    x = np.pad(x.astype(np.float64), around)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    counts = [(s - r) // t + 1 for s, r, t in zip(x.shape[1:-1], reach, strides, strict=True)]
    y = np.zeros((n, *counts, filters))
    for place in np.ndindex(*counts):
        window = tuple(
            slice(p * t, p * t + r, d)
            for p, t, r, d in zip(place, strides, reach, dilations, strict=True)
        )
        for m in range(filters):
            first = m // (filters // group) * side
            index = (slice(None), *window, slice(first, first + side))
            part = np.moveaxis(x[index], -1, 1)
            target = (slice(None), *place, m)
            y[target] = (part * w[m]).reshape(n, -1).sum(1)
    return y if b is None else y + b


@formula("NhwcConv")
def nhwc_conv(x: Array, w: Array, b: Array | None = None, **attributes: Any) -> Array:
    """Filters as `fusion_nhwc_conv.py` of onnxruntime writes them: [M, *kernel, C/group]."""
    return _convolve(x, np.moveaxis(w, -1, 1), b, attributes).astype(x.dtype)


@formula("NhwcFusedConv")
def nhwc_fused_conv(
    x: Array,
    w: Array,
    b: Array | None = None,
    z: Array | None = None,
    *,
    activation: bytes = b"",
    activation_params: tuple[float, ...] = (),
    **attributes: Any,
) -> Array:
    y = _convolve(x, w, b, attributes)
    y = y if z is None else y + z
    if activation == b"Relu":
        y = np.maximum(y, 0)
    elif activation == b"LeakyRelu":
        y = np.where(y < 0, y * activation_params[0], y)
    elif activation == b"Clip":
        y = np.clip(y, activation_params[0], activation_params[1])
    elif activation:
        raise ValueError(f"no formula for {activation!r}")
    return y.astype(x.dtype)


@formula("QLinearConv")
def q_linear_conv(
    x: Array,
    x_scale: Array,
    x_zero: Array,
    w: Array,
    w_scale: Array,
    w_zero: Array,
    y_scale: Array,
    y_zero: Array,
    b: Array | None = None,
    *,
    channels_last: int = 0,
    **attributes: Any,
) -> Array:
    """Of the types that onnxruntime does not mix."""
    x = _less(x, x_zero)
    shape = (-1, *[1] * (w.ndim - 1))
    w = w.astype(np.int32) - w_zero.astype(np.int32).reshape(shape)
    total = _convolve(x if channels_last else np.moveaxis(x, 1, -1), w, b, attributes)
    factor = x_scale.reshape(()) * w_scale.reshape(-1) / y_scale.reshape(())
    ends = np.iinfo(y_zero.dtype)
    y = np.rint(total.astype(np.float32) * factor) + y_zero.reshape(()).astype(np.int32)
    y = np.clip(y, ends.min, ends.max).astype(y_zero.dtype)
    return np.asarray(y if channels_last else np.moveaxis(y, -1, 1))

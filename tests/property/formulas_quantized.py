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

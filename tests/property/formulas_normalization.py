"""Formulas of normalizations, fused products, dropout and Fourier transforms: see formulas.py.

Floating-point numbers are computed in float64 and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from tests.property.formulas import formula

Array: TypeAlias = np.ndarray[Any, Any]

_erf = np.vectorize(math.erf, otypes=[float])


def _wide(x: Array) -> Array:
    wide: Array = x.astype(np.float64)
    return wide


def _tanh_gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(0.7978845608028654 * (x + 0.044715 * x**3)))


def _elu(x: Array, alpha: float) -> Array:
    return np.where(x < 0, alpha * np.expm1(x), x)


ACTIVATIONS: dict[bytes, Callable[[Array, float, float, float], Array]] = {
    b"Relu": lambda x, *_: np.maximum(x, 0),
    b"Sigmoid": lambda x, *_: 1 / (1 + np.exp(-x)),
    b"Tanh": lambda x, *_: np.tanh(x),
    b"Softplus": lambda x, *_: np.log1p(np.exp(x)),
    b"Softsign": lambda x, *_: x / (1 + abs(x)),
    b"LeakyRelu": lambda x, a, *_: np.where(x < 0, a * x, x),
    b"Elu": lambda x, a, *_: _elu(x, a),
    b"Celu": lambda x, a, *_: np.maximum(x, 0) + np.minimum(0, a * np.expm1(x / a)),
    b"ThresholdedRelu": lambda x, a, *_: np.where(x > a, x, 0),
    b"HardSigmoid": lambda x, a, b, _: np.clip(a * x + b, 0, 1),
    b"ParametricSoftplus": lambda x, a, b, _: a * np.log1p(np.exp(b * x)),
    b"ScaledTanh": lambda x, a, b, _: a * np.tanh(b * x),
    b"Selu": lambda x, a, _, g: g * _elu(x, a),
}


def _transposed(x: Array, trans: int, trans_batch: int) -> Array:
    if trans_batch:
        x = x.transpose(*range(1, x.ndim - 1), 0, x.ndim - 1)
    return x.swapaxes(-1, -2) if trans and x.ndim > 1 else x


@formula("FusedMatMulActivation")
def fused_mat_mul_activation(A: Array, B: Array, *, activation: bytes, **given: Any) -> Array:
    a = _transposed(_wide(A), given.get("transA", 0), given.get("transBatchA", 0))
    b = _transposed(_wide(B), given.get("transB", 0), given.get("transBatchB", 0))
    y = given.get("alpha", 1.0) * np.matmul(a, b)
    parameters = [given[f"activation_{name}"] for name in ("alpha", "beta", "gamma")]
    return ACTIVATIONS[activation](y, *parameters).astype(A.dtype)


@formula("GemmFastGelu")
def gemm_fast_gelu(X: Array, W: Array, bias: Array | None = None) -> Array:
    y = np.matmul(_wide(X), _wide(W))
    return _tanh_gelu(y if bias is None else y + _wide(bias)).astype(X.dtype)

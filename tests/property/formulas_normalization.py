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


def _groups_normalized(x: Array, gamma: Array, beta: Array, given: dict[str, Any]) -> Array:
    """Group normalization of float64 in the layout of the node, and SiLU."""
    last = given.get("channels_last", 1)
    x = np.moveaxis(x, -1, 1) if last else x
    groups = x.reshape(x.shape[0], given["groups"], -1)
    mean, variance = groups.mean(-1, keepdims=True), groups.var(-1, keepdims=True)
    y = ((groups - mean) / np.sqrt(variance + given.get("epsilon", 1e-5))).reshape(x.shape)
    y = y * _wide(gamma)[:, None, None] + _wide(beta)[:, None, None]
    y = y / (1 + np.exp(-y)) if given["activation"] else y
    return np.moveaxis(y, 1, -1) if last else y


@formula("GroupNorm")
def group_norm(X: Array, gamma: Array, beta: Array, **given: Any) -> Array:
    return _groups_normalized(_wide(X), gamma, beta, given).astype(X.dtype)


@formula("SkipGroupNorm")
def skip_group_norm(
    X: Array, gamma: Array, beta: Array, skip: Array, bias: Array | None = None, **given: Any
) -> tuple[Array, Array]:
    last = given.get("channels_last", 1)
    if skip.ndim == 2:
        skip = skip[:, None, None, :] if last else skip[:, :, None, None]
    total = _wide(X) + _wide(skip)
    if bias is not None:
        total = total + (_wide(bias) if last else _wide(bias)[:, None, None])
    y = _groups_normalized(total, gamma, beta, given)
    return y.astype(X.dtype), total.astype(X.dtype)


@formula("BiasAdd")
def bias_add(X: Array, bias: Array, skip: Array) -> Array:
    return (_wide(X) + _wide(bias) + _wide(skip)).astype(X.dtype)


@formula("BiasSplitGelu")
def bias_split_gelu(X: Array, bias: Array) -> Array:
    left, right = np.split(_wide(X) + _wide(bias), 2, axis=-1)
    gelu = 0.5 * right * (1 + _erf(right / np.sqrt(2))) if right.size else right
    return (left * gelu).astype(X.dtype)


@formula("BiasSoftmax")
def bias_softmax(data: Array, bias: Array, *, axis: int = 1, is_inner_broadcast: int) -> Array:
    del is_inner_broadcast  # it says where the bias has 1
    total = _wide(data) + _wide(bias)
    rows = total.reshape(int(np.prod(total.shape[:axis])), -1)
    powers = np.exp(rows - rows.max(1, keepdims=True))
    return (powers / powers.sum(1, keepdims=True)).reshape(data.shape).astype(data.dtype)


def _packed(mask: Array) -> Array:
    bits = np.zeros(-(-mask.size // 32) * 32, np.uint8)
    bits[: mask.size] = mask.ravel()
    return np.packbits(bits, bitorder="little").view("<u4")


@formula("BiasDropout")
def bias_dropout(
    data: Array, bias: Array, residual: Array | None = None, *_: Any, seed: int = 0
) -> tuple[Array, Array]:
    """Of a module that does not train, like the next two."""
    del seed
    y = _wide(data) + _wide(bias)
    y = y if residual is None else y + _wide(residual)
    return y.astype(data.dtype), np.ones(data.shape, bool)


@formula("BitmaskDropout")
def bitmask_dropout(data: Array, *_: Any, seed: int = 0) -> tuple[Array, Array]:
    del seed
    return data, _packed(np.ones(data.shape, bool))


@formula("BitmaskBiasDropout")
def bitmask_bias_dropout(*inputs: Any, seed: int = 0) -> tuple[Array, Array]:
    y, mask = bias_dropout(*inputs, seed=seed)
    return y, _packed(mask)


@formula("Rfft")
def rfft(X: Array, **_: int) -> Array:
    y = np.fft.rfft(_wide(X))
    return np.stack([y.real, y.imag], -1).astype(X.dtype)


@formula("Irfft")
def irfft(X: Array, **_: int) -> Array:
    x = _wide(X)
    return np.fft.irfft(x[..., 0] + 1j * x[..., 1]).astype(X.dtype)


def _complex(x: Array) -> Array:
    wide = _wide(x)
    return np.asarray(wide[..., 0] + 1j * wide[..., 1])


@formula("ComplexMul")
def complex_mul(A: Array, B: Array) -> Array:
    y = _complex(A) * _complex(B)
    return np.stack([y.real, y.imag], -1).astype(A.dtype)


@formula("ComplexMulConj")
def complex_mul_conj(A: Array, B: Array) -> Array:
    y = _complex(A) * np.conj(_complex(B))
    return np.stack([y.real, y.imag], -1).astype(A.dtype)


@formula("IsAllFinite")
def is_all_finite(*tensors: Array, isinf_only: int = 0, isnan_only: int = 0) -> Array:
    flat = np.concatenate([_wide(x).ravel() for x in tensors])
    found = (np.isnan(flat) & (not isinf_only)) | (np.isinf(flat) & (not isnan_only))
    return np.array(not found.any())


@formula("TorchEmbedding")
def torch_embedding(weight: Array, indices: Array, *_: Any) -> Array:
    return np.asarray(weight[indices])

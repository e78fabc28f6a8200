"""Fourier transforms and complex numbers whose parts are the two elements of the last axis."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.ops.linear_algebra import HALF
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call


@contrib_op("Rfft")
def rfft(
    X: Tensor,
    *,
    normalized: Literal[0] = 0,  # noqa: ARG001  # the only value that onnxruntime has
    onesided: Literal[1] = 1,  # noqa: ARG001  # likewise
    signal_ndim: Literal[1] = 1,  # noqa: ARG001  # likewise
) -> Tensor:
    """N real numbers become n / 2 + 1 complex ones; n is even."""
    if X.shape[-1] % 2:
        raise ValueError(f"the signal must have an even size, got {X.shape[-1]}")
    wide = X.float() if X.dtype in HALF else X
    y: Tensor = torch.view_as_real(torch.fft.rfft(wide))
    return y.to(X.dtype)


@contrib_op("Irfft")
def irfft(
    X: Tensor,
    *,
    normalized: Literal[0] = 0,  # noqa: ARG001  # see rfft
    onesided: Literal[1] = 1,  # noqa: ARG001
    signal_ndim: Literal[1],  # noqa: ARG001
) -> Tensor:
    """The inverse of Rfft, scaled by 1 / n."""
    _check_parts(X, rank=2)
    wide = X.float() if X.dtype in HALF else X
    y: Tensor = torch.fft.irfft(torch.complex(wide[..., 0], wide[..., 1]))
    return y.to(X.dtype)


@contrib_op("ComplexMul")
def complex_mul(A: Tensor, B: Tensor) -> Tensor:
    return _product(A, B, 1)


@contrib_op("ComplexMulConj")
def complex_mul_conj(A: Tensor, B: Tensor) -> Tensor:
    """A times the conjugate of B."""
    return _product(A, B, -1)


def _product(A: Tensor, B: Tensor, sign: int) -> Tensor:
    """The product, with the imaginary part of B times `sign`; halves have no complex numbers."""
    _check_parts(A, rank=1)
    _check_parts(B, rank=1)
    (a, b), (c, d) = A.unbind(-1), B.unbind(-1)
    d = sign * d
    return torch.stack([a * c - b * d, a * d + b * c], -1)


def _check_parts(x: Tensor, rank: int) -> None:
    if x.ndim < rank or x.shape[-1] != 2:
        raise ValueError(f"the last axis must have 2 elements, got {list(x.shape)}")


@sample(rfft)
def _(d: Draw) -> Call:
    x = d.tensor((*d.shape(max_dims=2), 2 * d.integer(1, 4)), lo=-2, hi=2)
    return call(
        x,
        normalized=d.maybe(0),
        onesided=d.maybe(1),
        signal_ndim=d.maybe(1),
    )


@sample(irfft)
def _(d: Draw) -> Call:
    x = d.tensor((*d.shape(max_dims=2), d.integer(2, 5), 2), lo=-2, hi=2)
    return call(x, normalized=d.maybe(0), onesided=d.maybe(1), signal_ndim=1)


@sample(complex_mul, complex_mul_conj)
def _(d: Draw) -> Call:
    shape = d.shape(max_dims=3)
    return call(
        d.tensor((*shape, 2), lo=-3, hi=3), d.tensor((*d.broadcastable(shape), 2), lo=-3, hi=3)
    )

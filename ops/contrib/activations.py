"""Activation functions that onnxruntime's optimizers write, alone or with the bias before them.

Gelu and BiasGelu are exact (erf), FastGelu is the tanh form of Hendrycks and Gimpel, QuickGelu is
the sigmoid form: x * sigmoid(alpha * x), SiLU for alpha 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call, one_tensor


@contrib_op("Gelu")
def gelu(X: Tensor) -> Tensor:
    return functional.gelu(X)


@contrib_op("BiasGelu")
def bias_gelu(A: Tensor, B: Tensor) -> Tensor:
    """The bias has the size of the last axis."""
    _check_bias(A, B)
    return functional.gelu(A + B)


@contrib_op("FastGelu")
def fast_gelu(X: Tensor, bias: Tensor | None = None) -> Tensor:
    if bias is not None:
        _check_bias(X, bias)
        X = X + bias
    return functional.gelu(X, approximate="tanh")


@contrib_op("QuickGelu")
def quick_gelu(X: Tensor, *, alpha: float = 1.7020000219345093) -> Tensor:
    return X * torch.sigmoid(alpha * X)


def _check_bias(x: Tensor, bias: Tensor) -> None:
    """Check a size that torch would broadcast."""
    if bias.ndim != 1 or bias.shape[0] != x.shape[-1]:
        raise ValueError(f"the bias must be [{x.shape[-1]}], got {list(bias.shape)}")


sample(gelu)(one_tensor(-4, 4))


@sample(quick_gelu)
def _(d: Draw) -> Call:
    return call(d.tensor(d.shape(), lo=-4, hi=4), alpha=d.maybe(d.real(0.5, 2)))


@sample(bias_gelu, fast_gelu)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=1), lo=-4, hi=4)
    return call(x, d.tensor(x.shape[-1:], lo=-2, hi=2))

"""Activation functions.

History: Relu, LeakyRelu, PRelu, Elu, Selu, Sigmoid, HardSigmoid, Softplus, Softsign 1; PRelu 7
(the slope broadcasts as in numpy); Selu 6 (more exact constants); Shrink 9; ThresholdedRelu 10
(1 in onnxruntime); Celu 12; HardSwish, Relu of integers 14; Mish 18; Gelu 20; Swish 24; SwiGLU 28;
bfloat16 at 13, 16, 22 or 28.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.ops.arithmetic import add, div, mul, pow
from onnxinterp.ops.elementwise import unary
from onnxinterp.ops.shapes import PER_CHANNEL
from onnxinterp.ops.unary import erf, tanh
from onnxinterp.registry import Pattern, fuse, op, sample
from onnxinterp.testing.samples import Call, Draw, call, one_tensor
from onnxinterp.torch_weights import TorchWeight, torch_weights
from onnxinterp.versions import older

relu = unary("Relu", torch.relu)


@op("LeakyRelu", since=1)
def leaky_relu(X: Tensor, *, alpha: float = 0.009999999776482582) -> Tensor:
    return functional.leaky_relu(X, alpha)


@op("PRelu", since=7)
def prelu(X: Tensor, slope: Tensor) -> Tensor:
    """The slope broadcasts to X from the last axis, not from the axis of channels."""
    if not X.dtype.is_signed:
        return X
    return torch.where(X < 0, X * slope, X)


torch_weights(
    "PRelu",
    slope=[TorchWeight(("weight",), rank=1)]
    + [TorchWeight(("weight",), layout) for layout in PER_CHANNEL],
)


@op("PRelu", since=1)
def prelu_1(X: Tensor, slope: Tensor) -> Tensor:
    """The slope has one element, or one for each channel (axis 1)."""
    if slope.ndim == 1 and X.ndim > 1:
        slope = slope.reshape(-1, *[1] * (X.ndim - 2))
    return prelu(X, slope)


@op("Elu", since=1)
def elu(X: Tensor, *, alpha: float = 1.0) -> Tensor:
    return functional.elu(X, alpha)


@op("Selu", since=6)
def selu(
    X: Tensor, *, alpha: float = 1.6732631921768188, gamma: float = 1.0507010221481323
) -> Tensor:
    return gamma * functional.elu(X, alpha)


selu_1 = older(selu, since=1, defaults={"alpha": 1.673200011253357, "gamma": 1.0506999492645264})


@op("Celu", since=12)
def celu(X: Tensor, *, alpha: float = 1.0) -> Tensor:
    return functional.celu(X, alpha)


sigmoid = unary("Sigmoid", torch.sigmoid)


@op("HardSigmoid", since=1)
def hard_sigmoid(X: Tensor, *, alpha: float = 0.20000000298023224, beta: float = 0.5) -> Tensor:
    """The slope is alpha, by default 0.2; torch has 1/6."""
    return torch.clamp(alpha * X + beta, 0, 1)


@op("HardSwish", since=14)
def hard_swish(X: Tensor) -> Tensor:
    """A product, because torch's function overflows at a sixth of the largest number."""
    return X * functional.hardsigmoid(X)


@op("Softplus", since=1)
def softplus(X: Tensor) -> Tensor:
    """Torch returns X above the threshold; its default of 20 is too low for float64."""
    return functional.softplus(X, threshold=40)


softsign = unary("Softsign", functional.softsign)


@op("ThresholdedRelu", since=10)
def thresholded_relu(X: Tensor, *, alpha: float = 1.0) -> Tensor:
    return torch.where(alpha < X, X, 0)


thresholded_relu_1 = older(thresholded_relu, since=1)  # onnxruntime's, before ONNX had it


@op("Shrink", since=9)
def shrink(input: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Tensor:
    inner = torch.where(input > lambd, input - bias, 0)
    return torch.where(input < -lambd, input + bias, inner).to(input.dtype)


@op("Gelu", since=20)
def gelu(X: Tensor, *, approximate: Literal["none", "tanh"] = "none") -> Tensor:
    return functional.gelu(X, approximate=approximate)


def _gelu_patterns(inner: Pattern) -> list[Pattern]:
    """X / 2 * (1 + inner), the factors in any order."""
    sum_ = (add, inner, 1)
    return [
        (mul, (mul, "X", sum_), 0.5),
        (mul, (mul, "X", 0.5), sum_),
        (mul, "X", (mul, sum_, 0.5)),
    ]


def _tanh_of(cube: Pattern) -> Pattern:
    return (tanh, (mul, (add, "X", (mul, cube, 0.044715)), math.sqrt(2 / math.pi)))


@fuse(
    *_gelu_patterns((erf, (div, "X", math.sqrt(2)))),
    *_gelu_patterns((erf, (mul, "X", math.sqrt(0.5)))),
)
def gelu_by_erf(X: Tensor) -> Tensor:
    return functional.gelu(X)


@fuse(
    *_gelu_patterns(_tanh_of((pow, "X", 3))),
    *_gelu_patterns(_tanh_of((mul, "X", (mul, "X", "X")))),
)
def gelu_by_tanh(X: Tensor) -> Tensor:
    return functional.gelu(X, approximate="tanh")


mish = unary("Mish", functional.mish, since=18)


@op("Swish", since=24)
def swish(X: Tensor, *, alpha: float = 1.0) -> Tensor:
    return functional.silu(X) if alpha == 1 else X * torch.sigmoid(alpha * X)


@fuse((mul, "X", (sigmoid, "X")))
def silu(X: Tensor) -> Tensor:
    return functional.silu(X)


@op("SwiGLU", since=28)
def swiglu(A: Tensor, B: Tensor, *, alpha: float = 1.0) -> Tensor:
    return swish(A, alpha=alpha) * B


SLOPE = 0.125, 2
sample(softsign)(one_tensor(min_dims=1))
sample(relu, sigmoid, hard_swish, softplus, mish)(one_tensor())
sample(leaky_relu, elu, celu, thresholded_relu, swish)(one_tensor(-5, 5, alpha=SLOPE))
sample(selu)(one_tensor(-5, 5, alpha=SLOPE, gamma=SLOPE))
sample(hard_sigmoid)(one_tensor(-5, 5, alpha=SLOPE, beta=SLOPE))
sample(shrink)(one_tensor(bias=SLOPE, lambd=SLOPE))


@sample(selu_1)
def _(d: Draw) -> Call:
    """The attributes are always set: the oracles use the newer defaults."""
    x = d.tensor(d.shape(), lo=-5, hi=5)
    return call(x, alpha=d.real(*SLOPE), gamma=d.real(*SLOPE))


@sample(prelu)
def _(d: Draw) -> Call:
    shape = d.shape()
    return call(d.tensor(shape), d.tensor(d.broadcastable(shape), lo=0, hi=2))


@sample(prelu_1)
def _(d: Draw) -> Call:
    """The channels are the last axis, because the oracles use the newer rule."""
    shape = d.shape(2, 2)
    return call(d.tensor(shape), d.tensor((d.choice([1, shape[1]]),), lo=0, hi=2))


@sample(gelu)
def _(d: Draw) -> Call:
    return call(d.tensor(d.shape()), approximate=d.maybe(d.choice(["none", "tanh"])))


@sample(swiglu)
def _(d: Draw) -> Call:
    shape = d.shape()
    return call(d.tensor(shape), d.tensor(shape), alpha=d.maybe(d.real(*SLOPE)))

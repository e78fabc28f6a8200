"""Functions of one number: signs, powers, rounding, trigonometry, classification.

History: 1, 6 (Abs, Neg of integers), 13 or 22 (bfloat16); Sin, Cos, Tan and their inverses 7; Erf,
Sign, IsNaN and the hyperbolic ones 9; IsInf 10; Round 11; IsNaN, IsInf 20 (float8).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from onnxinterp.dtypes import FLOAT8
from onnxinterp.ops.broadcasting import elementwise
from onnxinterp.registry import host, op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag, Host, sym_float


@op("Abs", since=1)
def abs(X: Tensor) -> Tensor:
    return torch.abs(X) if X.dtype.is_signed else X


@op("Neg", since=1)
def neg(X: Tensor) -> Tensor:
    return torch.neg(X)


@op("Sign", since=9)
def sign(input: Tensor) -> Tensor:
    """NaN stays NaN; torch gives 0."""
    if not input.dtype.is_signed:
        return input.bool().to(input.dtype)
    signs = torch.sign(input)
    return torch.where(input.isnan(), input, signs) if input.is_floating_point() else signs


@op("Reciprocal", since=1)
def reciprocal(X: Tensor) -> Tensor:
    return torch.reciprocal(X)


@op("Sqrt", since=1)
def sqrt(X: Tensor) -> Tensor:
    return torch.sqrt(X)


@op("Exp", since=1)
def exp(input: Tensor) -> Tensor:
    return torch.exp(input)


@op("Log", since=1)
def log(input: Tensor) -> Tensor:
    return torch.log(input)


@op("Floor", since=1)
def floor(X: Tensor) -> Tensor:
    return torch.floor(X)


@op("Ceil", since=1)
def ceil(X: Tensor) -> Tensor:
    return torch.ceil(X)


@op("Round", since=11)
def round(X: Tensor) -> Tensor:
    """Halves go to the even neighbour."""
    return torch.round(X)


@op("Erf", since=9)
def erf(input: Tensor) -> Tensor:
    """Integers, allowed before opset 13, give integers."""
    return torch.erf(input).to(input.dtype)


@op("Sin", since=7)
def sin(input: Tensor) -> Tensor:
    return torch.sin(input)


@op("Cos", since=7)
def cos(input: Tensor) -> Tensor:
    return torch.cos(input)


@op("Tan", since=7)
def tan(input: Tensor) -> Tensor:
    return torch.tan(input)


@op("Asin", since=7)
def asin(input: Tensor) -> Tensor:
    return torch.asin(input)


@op("Acos", since=7)
def acos(input: Tensor) -> Tensor:
    return torch.acos(input)


@op("Atan", since=7)
def atan(input: Tensor) -> Tensor:
    return torch.atan(input)


@op("Sinh", since=9)
def sinh(input: Tensor) -> Tensor:
    return torch.sinh(input)


@op("Cosh", since=9)
def cosh(input: Tensor) -> Tensor:
    return torch.cosh(input)


@op("Tanh", since=1)
def tanh(input: Tensor) -> Tensor:
    return torch.tanh(input)


@op("Asinh", since=9)
def asinh(input: Tensor) -> Tensor:
    return torch.asinh(input)


@op("Acosh", since=9)
def acosh(input: Tensor) -> Tensor:
    return torch.acosh(input)


@op("Atanh", since=9)
def atanh(input: Tensor) -> Tensor:
    return torch.atanh(input)


@op("IsNaN", since=9, any_type=True)
def is_nan(X: Tensor) -> Tensor:
    return torch.isnan(_computable(X))


@op("IsInf", since=10, any_type=True)
def is_inf(X: Tensor, *, detect_negative: Flag = 1, detect_positive: Flag = 1) -> Tensor:
    X = _computable(X)
    if detect_negative and detect_positive:
        return torch.isinf(X)
    if not detect_negative and not detect_positive:
        return torch.zeros_like(X, dtype=torch.bool)
    return torch.isposinf(X) if detect_positive else torch.isneginf(X)


def _computable(x: Tensor) -> Tensor:
    """Eight-bit floats in a type that torch has functions for."""
    return x.float() if x.dtype in FLOAT8 else x


def _rounded(rule: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A rule that gives a whole number, as one that gives that number as a float."""
    return lambda x: sym_float(rule(x))


host(abs)(elementwise(operator.abs))
host(neg)(elementwise(operator.neg))
host(floor)(elementwise(_rounded(math.floor), exact=True))
host(ceil)(elementwise(_rounded(math.ceil), exact=True))
host(round)(elementwise(_rounded(lambda x: x.__round__()), exact=True))
host(sqrt)(elementwise(torch.sym_sqrt))


@host(sign)
def _(input: Host) -> Any:
    if input.dtype.is_floating_point:
        return NotImplemented  # a NaN has no sign
    return elementwise(lambda x: 1 if x > 0 else -1 if x < 0 else 0, exact=True)(input)


@sample(abs, neg, sign, floor, ceil, round, sin, cos, atan, asinh)
def _(d: Draw) -> Call:
    return call(d.tensor(d.shape()))


@sample(is_nan)
def _(d: Draw) -> Call:
    return call(d.tensor(d.shape(), "T1"))


@sample(is_inf)
def _(d: Draw) -> Call:
    negative, positive = d.maybe(d.integer(0, 1)), d.maybe(d.integer(0, 1))
    return call(d.tensor(d.shape(), "T1"), detect_negative=negative, detect_positive=positive)


@sample(exp, erf, sinh, cosh, tanh)
def _(d: Draw) -> Call:
    return call(d.tensor(d.shape(), lo=-4, hi=4))


@sample(reciprocal, sqrt, log)
def _(d: Draw) -> Call:
    return call(d.tensor(d.shape(), lo=0.5, hi=10))


@sample(tan, asin, acos, atanh)
def _(d: Draw) -> Call:
    return call(d.tensor(d.shape(), lo=-0.875, hi=0.875))


@sample(acosh)
def _(d: Draw) -> Call:
    return call(d.tensor(d.shape(), lo=1.25, hi=10))

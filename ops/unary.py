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
from onnxinterp.ops.elementwise import elementwise, unary
from onnxinterp.registry import host, op, sample
from onnxinterp.testing.samples import Call, Draw, call, one_tensor
from onnxinterp.values import Flag, Host, sym_float


@op("Abs", since=1)
def abs(X: Tensor) -> Tensor:
    return torch.abs(X) if X.dtype.is_signed else X


neg = unary("Neg", torch.neg)


@op("Sign", since=9)
def sign(input: Tensor) -> Tensor:
    """The sign of NaN is NaN; torch returns 0."""
    if not input.dtype.is_signed:
        return input.bool().to(input.dtype)
    signs = torch.sign(input)
    return torch.where(input.isnan(), input, signs) if input.is_floating_point() else signs


reciprocal = unary("Reciprocal", torch.reciprocal)
sqrt = unary("Sqrt", torch.sqrt)
exp = unary("Exp", torch.exp)
log = unary("Log", torch.log)
floor = unary("Floor", torch.floor)
ceil = unary("Ceil", torch.ceil)
round = unary("Round", torch.round, since=11)  # halves go to the even neighbour


@op("Erf", since=9)
def erf(input: Tensor) -> Tensor:
    """The result of integers, which are allowed before opset 13, is an integer."""
    return torch.erf(input).to(input.dtype)


sin = unary("Sin", torch.sin, since=7)
cos = unary("Cos", torch.cos, since=7)
tan = unary("Tan", torch.tan, since=7)
asin = unary("Asin", torch.asin, since=7)
acos = unary("Acos", torch.acos, since=7)
atan = unary("Atan", torch.atan, since=7)
sinh = unary("Sinh", torch.sinh, since=9)
cosh = unary("Cosh", torch.cosh, since=9)
tanh = unary("Tanh", torch.tanh)
asinh = unary("Asinh", torch.asinh, since=9)
acosh = unary("Acosh", torch.acosh, since=9)
atanh = unary("Atanh", torch.atanh, since=9)


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
    """8-bit floats as float32: torch has no functions for them."""
    return x.float() if x.dtype in FLOAT8 else x


def _as_float(rule: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A rule that returns the integer of `rule` as a float."""
    return lambda x: sym_float(rule(x))


host(abs)(elementwise(operator.abs))
host(neg)(elementwise(operator.neg))
host(floor)(elementwise(_as_float(math.floor), exact=True))
host(ceil)(elementwise(_as_float(math.ceil), exact=True))
host(round)(elementwise(_as_float(lambda x: x.__round__()), exact=True))
host(sqrt)(elementwise(torch.sym_sqrt))


@host(sign)
def _(input: Host) -> Any:
    if input.dtype.is_floating_point:
        return NotImplemented  # NaN has no sign
    return elementwise(lambda x: 1 if x > 0 else -1 if x < 0 else 0, exact=True)(input)


sample(abs, neg, sign, floor, ceil, round, sin, cos, atan, asinh)(one_tensor())
sample(is_nan)(one_tensor(type="T1"))
sample(exp, erf, sinh, cosh, tanh)(one_tensor(-4, 4))
sample(reciprocal, sqrt, log)(one_tensor(0.5, 10))
sample(tan, asin, acos, atanh)(one_tensor(-0.875, 0.875))
sample(acosh)(one_tensor(1.25, 10))


@sample(is_inf)
def _(d: Draw) -> Call:
    negative, positive = d.maybe(d.integer(0, 1)), d.maybe(d.integer(0, 1))
    return call(d.tensor(d.shape(), "T1"), detect_negative=negative, detect_positive=positive)

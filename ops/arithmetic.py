"""Arithmetic of two tensors: Add, Sub, Mul, Div, Mod, Pow.

History: 1, 6 (Pow: 1) with `broadcast` and `axis`, 7 (numpy's broadcasting), 13 (bfloat16), 14 (8-
and 16-bit integers). Pow: 12 (an exponent of another type). Mod: 10, 28 (fmod=0 for floats too).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from onnxinterp.ops.elementwise import (
    aligned_version,
    binary,
    draw_shapes,
    draw_terms,
    elementwise,
    two_tensors,
)
from onnxinterp.ops.shapes import PER_CHANNEL
from onnxinterp.registry import host, op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.torch_weights import TorchWeight, torch_weights
from onnxinterp.values import Flag, Host, Operand, is_known, sym_max

BOTH = ("A", "B")
add = binary("Add", torch.add, since=7, operands=BOTH, uint64="bits", commutative=True)
sub = binary("Sub", torch.sub, since=7, operands=BOTH, uint64="bits")
mul = binary("Mul", torch.mul, since=7, operands=BOTH, uint64="bits", commutative=True)


@op("Div", since=7)
def div(A: Tensor, B: Operand) -> Tensor:
    """Integers are divided towards zero."""
    if A.is_floating_point():
        return torch.div(A, B)
    if A.dtype is torch.uint64 and isinstance(B, Tensor):
        return _uint64_quotient(A, B)
    if not isinstance(B, Tensor):
        return torch.neg(A) if B == -1 else torch.div(A, B, rounding_mode="trunc")
    quotient = torch.div(A, _without_minus_one(B), rounding_mode="trunc")
    return torch.where(B == -1, -A, quotient) if A.dtype.is_signed else quotient


@op("Mod", since=28)
def mod(A: Tensor, B: Operand, *, fmod: Flag = 0) -> Tensor:
    """Without `fmod` the result has the sign of B, a zero too; with it, the sign of A."""
    rule = torch.fmod if fmod else torch.remainder
    if A.dtype is torch.uint64 and isinstance(B, Tensor):
        quotient = _uint64_quotient(A, B).view(torch.int64)
        return (A.view(torch.int64) - quotient * B.view(torch.int64)).view(torch.uint64)
    if not A.is_floating_point():  # the remainder of a division by 1 or by -1 is 0
        return rule(A, _without_minus_one(B))
    divisor = B.double() if isinstance(B, Tensor) else B
    rest = rule(A.double(), divisor).to(A.dtype)  # float32 quotients overflow: 3e38 / 0.5 gives NaN
    return rest if fmod else torch.copysign(rest, B)


@op("Mod", since=10)
def mod_10(A: Tensor, B: Operand, *, fmod: Flag = 0) -> Tensor:
    if A.is_floating_point() and not fmod:
        raise TypeError(f"fmod must be 1 for floating-point inputs, got {fmod}")
    return mod(A, B, fmod=fmod)


@op("Pow", uint64="bits", since=7, frozen=("Y",))
def pow(X: Tensor, Y: Operand) -> Tensor:
    """The result has the dtype of X. Integers with a floating-point exponent use float64."""
    if not isinstance(Y, Tensor):
        if X.is_floating_point():
            return torch.pow(X, Y)
        Y = torch.scalar_tensor(Y, dtype=torch.float64, device=X.device)
    dtype = torch.promote_types(X.dtype, Y.dtype)  # torch.pow would depend on the ranks
    if dtype.is_floating_point and not X.is_floating_point():
        dtype = torch.float64
    return torch.pow(X.to(dtype), Y.to(dtype)).to(X.dtype)


def _without_minus_one(B: Operand) -> Operand:
    """B with 1 in place of -1: dividing the lowest integer by -1 traps on some processors."""
    if not isinstance(B, Tensor):
        return 1 if B == -1 else B
    return torch.where(B == -1, 1, B) if B.dtype.is_signed else B


def _uint64_quotient(A: Tensor, B: Tensor) -> Tensor:
    """The quotient of uint64 tensors, computed with int64: torch cannot divide uint64.

    Values from 2**63 on are negative as int64. If B is one of these, the quotient is 0 or 1.
    Otherwise half of A is divided by B; twice that quotient is at most 1 too low.
    """
    a, b = A.view(torch.int64), B.view(torch.int64)
    half = (a >> 1) & torch.iinfo(torch.int64).max
    quotient = torch.div(half, torch.where(b < 0, 1, b), rounding_mode="trunc") << 1
    low = torch.where(b < 0, 0, quotient)
    turn = torch.iinfo(torch.int64).min  # with the highest bit flipped, int64 sorts as uint64
    return torch.add(low, (a - low * b) ^ turn >= b ^ turn).view(torch.uint64)


for _op_type, _name in (("Add", "bias"), ("Mul", "weight")):
    _alone = TorchWeight((_name,), rank=1, follows=True)
    _vectors = [_alone, *(TorchWeight((_name,), layout, follows=True) for layout in PER_CHANNEL)]
    torch_weights(_op_type, A=_vectors, B=_vectors)

add_1, sub_1, mul_1 = aligned_version(add), aligned_version(sub), aligned_version(mul)
div_1 = aligned_version(div)
pow_1 = aligned_version(pow, uint64=None, frozen=BOTH[1:])


host(add, add_1)(elementwise(operator.add))
host(sub, sub_1)(elementwise(operator.sub))
host(mul, mul_1)(elementwise(operator.mul))


def _quotient(a: Any, b: Any) -> Any:
    """The quotient rounded towards zero; it adds no guard on a symbolic size."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return torch.div(a, b, rounding_mode="trunc")  # what `torch.jit.trace` records
    if b < 0:
        a, b = -a, -b
    return sym_max(a, 0) // b - sym_max(-a, 0) // b


@host(div, div_1)
def _(A: Host, B: Host, **_old: Any) -> Any:
    rule = operator.truediv if A.dtype.is_floating_point else _quotient
    return elementwise(rule)(A, B)


@host(mod, mod_10)
def _(A: Host, B: Host, *, fmod: Flag = 0) -> Any:
    if A.dtype.is_floating_point:
        return elementwise(math.fmod)(A, B) if fmod else NotImplemented
    rest = elementwise(lambda a, b: a - b * _quotient(a, b))
    return rest(A, B) if fmod else elementwise(operator.mod)(A, B)


@host(pow, pow_1)
def _(X: Host, Y: Host, **_old: Any) -> Any:
    if not X.dtype.is_floating_point and Y.dtype.is_floating_point:
        return NotImplemented
    return elementwise(_power)(X, Y)


def _power(x: Any, y: Any) -> Any:
    if is_known(y) and y > 64 and isinstance(x, int) and abs(x) > 1:
        raise OverflowError(f"the power must fit into 64 bits, got {x} ** {y}")
    power = x**y
    if isinstance(power, complex) or (isinstance(power, float) and isinstance(x, int)):
        raise ValueError(f"the power must be a real number of the type of the base, got {power}")
    return power


def _draw_division(d: Draw, A: Sequence[int], B: Sequence[int]) -> Call:
    below_zero = d.dtype().is_signed and d.boolean()
    lo, hi = (-10, -1) if below_zero else (1, 10)
    return call(d.tensor(A), d.tensor(B, lo=lo, hi=hi))


def _draw_power(d: Draw, X: Sequence[int], Y: Sequence[int]) -> Call:
    exponent = "T1" if d.opset >= 12 else "T"
    fraction = d.dtype().is_floating_point
    lowest = -2 if fraction and d.dtype(exponent).is_signed else 0
    return call(
        d.tensor(X, lo=0.5 if fraction else 0, hi=4), d.tensor(Y, exponent, lo=lowest, hi=3)
    )


sample(add, sub, mul, add_1, sub_1, mul_1)(two_tensors(draw_terms))
sample(div, div_1)(two_tensors(_draw_division))
sample(pow, pow_1)(two_tensors(_draw_power))


@sample(mod, mod_10)
def _(d: Draw) -> Call:
    """Floating-point dividends are below the divisor, where the remainder has no jumps."""
    A, B = draw_shapes(d)
    if d.dtype().is_floating_point:
        fmod = 1 if d.opset < 28 else d.maybe(d.integer(0, 1))
        return call(d.tensor(A, lo=0.5, hi=3), d.tensor(B, lo=4, hi=10), fmod=fmod)
    drawn = _draw_division(d, A, B)
    return call(*drawn.inputs, fmod=d.maybe(d.integer(0, 1)))

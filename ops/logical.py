"""Logic of booleans and of bits of integers.

History: And, Or, Xor 1 with `broadcast` and `axis`, 7 (numpy's broadcasting); Not 1. BitShift 11,
28 (signed integers). BitwiseAnd, BitwiseOr, BitwiseXor, BitwiseNot 18.
"""

from __future__ import annotations

import operator
from typing import Literal

import torch
from torch import Tensor

from onnxinterp.ops.elementwise import (
    aligned_version,
    binary,
    draw_shapes,
    draw_terms,
    elementwise,
    two_tensors,
    unary,
)
from onnxinterp.registry import host, op, sample
from onnxinterp.testing.samples import Call, Draw, call, one_tensor

logical_and = binary("And", torch.logical_and, since=7, operands=(), name="logical_and")
logical_or = binary("Or", torch.logical_or, since=7, operands=(), name="logical_or")
logical_xor = binary("Xor", torch.logical_xor, since=7, operands=(), name="logical_xor")
logical_not = unary("Not", torch.logical_not, name="logical_not")
logical_and_1 = aligned_version(logical_and)
logical_or_1 = aligned_version(logical_or)
logical_xor_1 = aligned_version(logical_xor)


@op("BitShift", since=11)
def bit_shift(X: Tensor, Y: Tensor, *, direction: Literal["LEFT", "RIGHT"]) -> Tensor:
    """A shift by less than 0 or by at least the width returns 0, or -1 for a negative X."""
    if X.dtype is not torch.uint64:
        return X << Y if direction == "LEFT" else X >> Y
    x, y = X.view(torch.int64), Y.view(torch.int64)
    if direction == "LEFT":
        return (x << y).view(torch.uint64)
    kept = ~(torch.iinfo(torch.int64).min >> (y - 1).clamp(min=0))  # without copies of the sign
    return torch.where(y == 0, x, (x >> y) & kept).view(torch.uint64)


bitwise_and = binary("BitwiseAnd", torch.bitwise_and, since=18, operands=(), uint64="bits")
bitwise_or = binary("BitwiseOr", torch.bitwise_or, since=18, operands=(), uint64="bits")
bitwise_xor = binary("BitwiseXor", torch.bitwise_xor, since=18, operands=(), uint64="bits")
bitwise_not = unary("BitwiseNot", torch.bitwise_not, since=18, uint64="bits")


host(logical_and, logical_and_1)(elementwise(operator.and_, torch.bool, exact=True))
host(logical_or, logical_or_1)(elementwise(operator.or_, torch.bool, exact=True))
host(logical_xor, logical_xor_1)(elementwise(operator.ne, torch.bool, exact=True))
host(logical_not)(elementwise(operator.not_, torch.bool, exact=True))


LOGICAL = logical_and, logical_or, logical_xor, logical_and_1, logical_or_1, logical_xor_1
sample(*LOGICAL, bitwise_and, bitwise_or, bitwise_xor)(two_tensors(draw_terms))
sample(logical_not, bitwise_not)(one_tensor())


@sample(bit_shift)
def _(d: Draw) -> Call:
    X, Y = draw_shapes(d)
    return call(d.tensor(X), d.tensor(Y, lo=0, hi=7), direction=d.choice(["LEFT", "RIGHT"]))

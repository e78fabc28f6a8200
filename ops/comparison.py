"""Comparison of two tensors, and Where, which chooses by one.

History: Equal, Less, Greater 1 with `broadcast` and `axis`, 7 (numpy's broadcasting), 9, 11 (all
number types), 13 (bfloat16), 19 (Equal of strings). LessOrEqual, GreaterOrEqual 12. Where 9.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from onnxinterp.ops.broadcasting import aligned, draw_aligned, draw_shapes, elementwise
from onnxinterp.registry import host, op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag, Host, Operand

BOTH = ("A", "B")  # no gradient passes a comparison


@op("Equal", since=7, uint64="order", frozen=BOTH)
def equal(A: Tensor, B: Operand) -> Tensor:
    return torch.eq(A, B)


@op("Less", since=7, uint64="order", frozen=BOTH)
def less(A: Tensor, B: Operand) -> Tensor:
    return torch.lt(A, B)


@op("LessOrEqual", since=12, uint64="order", frozen=BOTH)
def less_or_equal(A: Tensor, B: Operand) -> Tensor:
    return torch.le(A, B)


@op("Greater", since=7, uint64="order", frozen=BOTH)
def greater(A: Tensor, B: Operand) -> Tensor:
    return torch.gt(A, B)


@op("GreaterOrEqual", since=12, uint64="order", frozen=BOTH)
def greater_or_equal(A: Tensor, B: Operand) -> Tensor:
    return torch.ge(A, B)


@op("Where", since=9)
def where(condition: Tensor, X: Operand, Y: Tensor) -> Tensor:
    return torch.where(condition, X, Y)


@op("Equal", since=1, uint64="order", frozen=BOTH)
def equal_1(A: Tensor, B: Tensor, *, axis: int | None = None, broadcast: Flag = 0) -> Tensor:
    return equal(A, aligned(A, B, axis, broadcast))


@op("Less", since=1, uint64="order", frozen=BOTH)
def less_1(A: Tensor, B: Tensor, *, axis: int | None = None, broadcast: Flag = 0) -> Tensor:
    return less(A, aligned(A, B, axis, broadcast))


@op("Greater", since=1, uint64="order", frozen=BOTH)
def greater_1(A: Tensor, B: Tensor, *, axis: int | None = None, broadcast: Flag = 0) -> Tensor:
    return greater(A, aligned(A, B, axis, broadcast))


host(equal, equal_1)(elementwise(operator.eq, torch.bool, exact=True))
host(less, less_1)(elementwise(operator.lt, torch.bool, exact=True))
host(less_or_equal)(elementwise(operator.le, torch.bool, exact=True))
host(greater, greater_1)(elementwise(operator.gt, torch.bool, exact=True))
host(greater_or_equal)(elementwise(operator.ge, torch.bool, exact=True))


@host(where)
def _(condition: Host, X: Host, Y: Host) -> Any:
    return elementwise(lambda c, x, y: x if c else y, X.dtype, exact=True)(condition, X, Y)


def _draw(d: Draw, A: Sequence[int], B: Sequence[int]) -> Call:
    """Numbers from a narrow range, so that some are equal."""
    return call(d.tensor(A, lo=-2, hi=2), d.tensor(B, lo=-2, hi=2))


@sample(equal, less, less_or_equal, greater, greater_or_equal)
def _(d: Draw) -> Call:
    return _draw(d, *draw_shapes(d))


@sample(equal_1, less_1, greater_1)
def _(d: Draw) -> Call:
    return draw_aligned(d, _draw)


@sample(where)
def _(d: Draw) -> Call:
    shape, whole = d.shape(), d.integer(0, 2)
    shapes = [shape if i == whole else d.broadcastable(shape) for i in range(3)]
    return call(d.tensor(shapes[0], "B"), d.tensor(shapes[1]), d.tensor(shapes[2]))

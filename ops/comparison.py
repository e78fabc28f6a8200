"""Comparisons of two tensors, and Where, which selects elements by a condition.

History: Equal, Less, Greater 1 with `broadcast` and `axis`, 7 (numpy's broadcasting), 9, 11 (all
number types), 13 (bfloat16), 19 (Equal of strings). LessOrEqual, GreaterOrEqual 12. Where 9.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from onnxinterp.ops.elementwise import aligned_version, binary, elementwise, two_tensors
from onnxinterp.registry import KernelOptions, host, op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Host, Operand

OPTIONS: KernelOptions = {"uint64": "order", "frozen": ("A", "B")}  # a comparison has no gradient
equal = binary("Equal", torch.eq, since=7, **OPTIONS)
less = binary("Less", torch.lt, since=7, **OPTIONS)
less_or_equal = binary("LessOrEqual", torch.le, since=12, **OPTIONS)
greater = binary("Greater", torch.gt, since=7, **OPTIONS)
greater_or_equal = binary("GreaterOrEqual", torch.ge, since=12, **OPTIONS)
equal_1, less_1, greater_1 = aligned_version(equal), aligned_version(less), aligned_version(greater)


@op("Where", since=9)
def where(condition: Tensor, X: Operand, Y: Tensor) -> Tensor:
    return torch.where(condition, X, Y)


host(equal, equal_1)(elementwise(operator.eq, torch.bool, exact=True))
host(less, less_1)(elementwise(operator.lt, torch.bool, exact=True))
host(less_or_equal)(elementwise(operator.le, torch.bool, exact=True))
host(greater, greater_1)(elementwise(operator.gt, torch.bool, exact=True))
host(greater_or_equal)(elementwise(operator.ge, torch.bool, exact=True))


@host(where)
def _(condition: Host, X: Host, Y: Host) -> Any:
    return elementwise(lambda c, x, y: x if c else y, X.dtype, exact=True)(condition, X, Y)


def _draw(d: Draw, A: Sequence[int], B: Sequence[int]) -> Call:
    """Numbers from a narrow range, so that some of them are equal."""
    return call(d.tensor(A, lo=-2, hi=2), d.tensor(B, lo=-2, hi=2))


sample(equal, less, greater, equal_1, less_1, greater_1)(two_tensors(_draw))
sample(less_or_equal, greater_or_equal)(two_tensors(_draw))


@sample(where)
def _(d: Draw) -> Call:
    shape, whole = d.shape(), d.integer(0, 2)
    shapes = [shape if i == whole else d.broadcastable(shape) for i in range(3)]
    return call(d.tensor(shapes[0], "B"), d.tensor(shapes[1]), d.tensor(shapes[2]))

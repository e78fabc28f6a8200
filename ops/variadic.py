"""Sum, Max, Min and Mean of any number of tensors.

History: 1 (equal shapes), 8 (numpy's broadcasting), 12 (Max and Min of integers), 13 (bfloat16).
"""

from __future__ import annotations

import operator
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from onnxinterp.ops.elementwise import elementwise
from onnxinterp.registry import host, op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Host, sym_max, sym_min


@op("Sum", since=1)
def sum(*data_0: Tensor) -> Tensor:
    return reduce(torch.add, data_0)


@op("Max", since=1, uint64="order")
def max(*data_0: Tensor) -> Tensor:
    return reduce(torch.maximum, data_0)


@op("Min", since=1, uint64="order")
def min(*data_0: Tensor) -> Tensor:
    return reduce(torch.minimum, data_0)


@op("Mean", since=1)
def mean(*data_0: Tensor) -> Tensor:
    return sum(*data_0) / len(data_0)


_added = elementwise(operator.add)


@host(sum)
def _(*data_0: Host) -> Any:
    """Add term by term: each sum is rounded."""
    total: Any = data_0[0]
    for term in data_0[1:]:
        total = total if total is NotImplemented else _added(total, term)
    return total


def _check_order(numbers: tuple[Any, ...]) -> tuple[Any, ...]:
    if any(x != x for x in numbers):
        raise ValueError("numbers must not be NaN to be ordered, got NaN")
    return numbers


host(max)(elementwise(lambda *numbers: reduce(sym_max, _check_order(numbers)), exact=True))
host(min)(elementwise(lambda *numbers: reduce(sym_min, _check_order(numbers)), exact=True))


@sample(sum, max, min, mean)
def _(d: Draw) -> Call:
    shape, several = d.shape(), d.integer(0, 3)
    others = [shape if d.opset < 8 else d.broadcastable(shape) for _ in range(several)]
    return call(d.tensor(shape), *[d.tensor(s) for s in others])

"""Cumulative sums and products along an axis: CumSum, CumProd.

History: CumSum 11, 14 (float16, bfloat16). CumProd 26.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag


@op("CumSum", since=11, uint64="bits")
def cum_sum(x: Tensor, axis: int, *, exclusive: Flag = 0, reverse: Flag = 0) -> Tensor:
    return _accumulate(torch.cumsum, 0, x, axis, exclusive, reverse)


@op("CumProd", since=26, uint64="bits")
def cum_prod(x: Tensor, axis: int, *, exclusive: Flag = 0, reverse: Flag = 0) -> Tensor:
    return _accumulate(torch.cumprod, 1, x, axis, exclusive, reverse)


def _accumulate(
    rule: Callable[..., Tensor], identity: int, x: Tensor, axis: int, exclusive: Flag, reverse: Flag
) -> Tensor:
    """Apply a cumulative rule along an axis, perhaps from its end, or excluding each element."""
    x = x.movedim(axis, 0)
    x = x.flip(0) if reverse else x
    if exclusive:
        x = torch.cat((torch.full_like(x[:1], identity), x[:-1]))
    y = rule(x, 0, dtype=x.dtype)
    return (y.flip(0) if reverse else y).movedim(0, axis)


@sample(cum_sum)
def _(d: Draw) -> Call:
    return _call(d, d.tensor(d.shape(min_dims=1)))


@sample(cum_prod)
def _(d: Draw) -> Call:
    return _call(d, d.tensor(d.shape(min_dims=1), lo=-2, hi=2))


def _call(d: Draw, x: Tensor) -> Call:
    flags = {"exclusive": d.maybe(d.integer(0, 1)), "reverse": d.maybe(d.integer(0, 1))}
    return call(x, d.axis(x.ndim), **flags)

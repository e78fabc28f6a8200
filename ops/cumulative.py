"""Cumulative sums and products along an axis: CumSum, CumProd.

History: CumSum 11, 14 (float16, bfloat16). CumProd 26.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from onnxinterp.ops.elementwise import Kernel, register
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag


def _cumulative(op_type: str, rule: Callable[..., Tensor], identity: int, since: int) -> Kernel:
    """Register a rule along an axis, perhaps from its end, or excluding each element."""

    def kernel(x: Tensor, axis: int, *, exclusive: Flag = 0, reverse: Flag = 0) -> Tensor:
        x = x.movedim(axis, 0)
        x = x.flip(0) if reverse else x
        if exclusive:
            x = torch.cat((torch.full_like(x[:1], identity), x[:-1]))
        y = rule(x, 0, dtype=x.dtype)
        return (y.flip(0) if reverse else y).movedim(0, axis)

    return register(kernel, op_type, since, uint64="bits")


cum_sum = _cumulative("CumSum", torch.cumsum, 0, since=11)
cum_prod = _cumulative("CumProd", torch.cumprod, 1, since=26)


@sample(cum_sum)
def _(d: Draw) -> Call:
    return _call(d, d.tensor(d.shape(min_dims=1)))


@sample(cum_prod)
def _(d: Draw) -> Call:
    return _call(d, d.tensor(d.shape(min_dims=1), lo=-2, hi=2))


def _call(d: Draw, x: Tensor) -> Call:
    flags = {"exclusive": d.maybe(d.integer(0, 1)), "reverse": d.maybe(d.integer(0, 1))}
    return call(x, d.axis(x.ndim), **flags)

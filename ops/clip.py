"""Clip: limit each element to [min, max].

History: 1, 6 (bounds are attributes), 11 (bounds are inputs), 12 (integers), 13 (bfloat16).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Operand

FLOAT_MAX = torch.finfo(torch.float32).max


@op("Clip", since=11, uint64="order", frozen=("min", "max"))
def clip(input: Tensor, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """An absent bound is the type's own limit, so that infinity becomes the largest number.

    The result is max if min > max, as in torch.clamp. Constant bounds are passed as numbers:
    torch's compilers accept no folded tensors for them.
    """
    info = torch.finfo(input.dtype) if input.is_floating_point() else torch.iinfo(input.dtype)
    low, high = info.min if min is None else min, info.max if max is None else max
    if not isinstance(low, Tensor) and not isinstance(high, Tensor):
        return torch.clamp(input, _held(low, input.dtype), _held(high, input.dtype))
    low, high = (
        b.reshape(()) if isinstance(b, Tensor) else input.new_full((), b) for b in (low, high)
    )
    return torch.clamp(input, low, high)


def _held(bound: float, dtype: torch.dtype) -> float:
    """A finite bound as far as the type can hold it: float32's limit in float16 too."""
    if not dtype.is_floating_point or math.isinf(bound):
        return bound
    limit = torch.finfo(dtype).max
    return min(max(bound, -limit), limit)


@op("Clip", since=6)
def clip_6(input: Tensor, *, max: float = FLOAT_MAX, min: float = -FLOAT_MAX) -> Tensor:
    return torch.clamp(input, _held(min, input.dtype), _held(max, input.dtype))


@op("Clip", since=1)
def clip_1(input: Tensor, *, max: float | None = None, min: float | None = None) -> Tensor:
    highest = FLOAT_MAX if max is None else max
    return clip_6(input, max=highest, min=-FLOAT_MAX if min is None else min)


@sample(clip)
def _(d: Draw) -> Call:
    return call(d.tensor(d.shape()), d.maybe(d.tensor(())), d.maybe(d.tensor(())))


@sample(clip_6, clip_1)
def _(d: Draw) -> Call:
    return call(d.tensor(d.shape()), min=d.maybe(d.real(-10, 1)), max=d.maybe(d.real(1, 10)))

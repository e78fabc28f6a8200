"""Clip: limit every element to [min, max].

History: 1, 6 (bounds are attributes), 11 (bounds are inputs), 12 (integers), 13 (bfloat16).
"""

from __future__ import annotations

import torch
from torch import Tensor

from onnxinterp.registry import op, sample
from onnxinterp.sampling import Call, Draw, call

FLOAT_MAX = torch.finfo(torch.float32).max


@op("Clip", since=11, frozen=("min", "max"))
def clip(input: Tensor, min: Tensor | None = None, max: Tensor | None = None) -> Tensor:
    """Where min > max the answer is max, as torch.clamp has it."""
    return input if min is None and max is None else torch.clamp(input, min, max)


@op("Clip", since=6)
def clip_6(input: Tensor, *, max: float = FLOAT_MAX, min: float = -FLOAT_MAX) -> Tensor:
    return torch.clamp(input, min, max)


@op("Clip", since=1)
def clip_1(input: Tensor, *, max: float | None = None, min: float | None = None) -> Tensor:
    return input if min is None and max is None else torch.clamp(input, min, max)


@sample(clip)
def _(d: Draw) -> Call:
    return call(d.tensor(d.shape()), d.maybe(d.tensor(())), d.maybe(d.tensor(())))


@sample(clip_6, clip_1)
def _(d: Draw) -> Call:
    return call(d.tensor(d.shape()), min=d.maybe(d.real(-10, 1)), max=d.maybe(d.real(1, 10)))

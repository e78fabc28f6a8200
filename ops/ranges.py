"""Range: numbers from start to limit in equal steps.

History: 11, 27 (float16 and bfloat16, stash_type).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from onnxinterp.ops.shapes import MOST_DIMENSIONS
from onnxinterp.registry import host, op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Host, is_known, round_to, sym_max
from onnxinterp.versions import older


@op("Range", since=27)
def range_(
    start: Host, limit: Host, delta: Host, *, stash_type: int = 1, device: torch.device
) -> Tensor:
    """Element i is start + i * delta; onnxruntime adds delta i times, with more rounding errors.

    Types narrower than float are computed in float, which is the only `stash_type` there is.
    """
    del stash_type
    first, step, n = start.numbers[0], delta.numbers[0], _count(start, limit, delta)
    if not start.dtype.is_floating_point:
        numbers = torch.arange(first, first + n * step, step, device=device)
    else:
        wide = torch.promote_types(start.dtype, torch.float32)
        numbers = torch.arange(n, dtype=wide, device=device) * step + first
    return numbers.to(start.dtype)


range_11 = older(range_, since=11, without=["stash_type"])


def _count(start: Host, limit: Host, delta: Host) -> int:
    """How many numbers there are before the limit."""
    if lists := [s.data for s in (start, limit, delta) if len(s.numbers) != 1 or s.rank > 1]:
        raise ValueError(f"{lists[0]} where one number is wanted")
    distance, step = limit.numbers[0] - start.numbers[0], delta.numbers[0]
    if start.dtype.is_floating_point:
        count = math.ceil(round_to(start.dtype, distance) / step)
    else:
        count = -(-distance // step)
    n: int = sym_max(count, 0)
    return n


@host(range_)
def _(start: Host, limit: Host, delta: Host, *, stash_type: int = 1) -> Any:  # noqa: ARG001  # floats are no host values here
    settings = [*start.numbers, *limit.numbers, *delta.numbers]
    if start.dtype.is_floating_point or len(settings) != 3 or not all(map(is_known, settings)):
        return NotImplemented
    if max(start.rank, limit.rank, delta.rank) > 1:
        return NotImplemented  # the tensor kernel refuses a matrix
    numbers = range(*settings)
    return Host(list(numbers), start.dtype) if len(numbers) <= MOST_DIMENSIONS else NotImplemented


@sample(range_)
def _(d: Draw) -> Call:
    start = d.tensor((), lo=-5, hi=5)
    delta = d.choice([1, 2, 3, -1, -2]) * torch.ones_like(start)
    steps = d.integer(-1, 8)
    whole = not start.is_floating_point()
    limit = start + delta * (steps if whole else steps + 0.5)  # a half step off the brink
    return call(start, limit.to(start.dtype), delta)

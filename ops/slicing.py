"""Slice: each step-th element from start to end, along any axes.

History: 1 (attributes, step 1), 10 (inputs, steps), 11 (negative axes), 13 (bfloat16).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from onnxinterp.ops.host_views import strided, strides_of
from onnxinterp.ops.shapes import axes_from_front
from onnxinterp.registry import host, op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Host, Ints, is_known
from onnxinterp.versions import older

ENDS = (2**31 - 1, 2**63 - 1)  # as an end: no limit, also for negative steps, as in version 10
FAR = 2**62  # more than any size, and in 64 bits


@op("Slice", since=10)
def slice_(
    data: Tensor, starts: Ints, ends: Ints, axes: Ints | None = None, steps: Ints | None = None
) -> Tensor:
    """As in Python, but a start before the first element is the first one also for negative steps.

    torch has no negative steps: the axis is flipped, and position i becomes -1 - i.
    """
    index: list[Any] = [slice(None)] * data.ndim
    flipped = []
    steps = steps or [1] * len(starts)
    axes = axes_from_front(axes or range(len(starts)), data.ndim)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        step = _limit_step(step, data.shape[axis])
        if step > 0:
            index[axis] = slice(_bound(start), _end(end), step)
        else:
            flipped.append(axis)
            last = is_known(start) and start == -1  # without a guard on a symbolic size
            first = 0 if last else min(_bound(-1 - start), data.shape[axis] - 1)
            index[axis] = slice(first, None if _end(end) is None else _end(-1 - end), -step)
    return (data.flip(flipped) if flipped else data)[tuple(index)]


def _limit_step(step: int, size: int) -> int:
    """Limit a step to the size: torch multiplies it by a stride, which may overflow 64 bits."""
    if not is_known(step) or not is_known(size) or abs(step) <= size:
        return step
    return max(size, 1) if step > 0 else -max(size, 1)


def _bound(place: int) -> int:
    return max(place, -FAR) if is_known(place) else place


def _end(place: int) -> int | None:
    return None if is_known(place) and place in ENDS else _bound(place)


slice_1 = older(slice_, since=1, without=["steps"], attributes=["starts", "ends", "axes"])


@host(slice_)
def _(
    data: Host, starts: Ints, ends: Ints, axes: Ints | None = None, steps: Ints | None = None
) -> Any:
    steps = steps or [1] * len(starts)
    if not all(map(is_known, starts + ends + steps)):
        return NotImplemented
    if data.rank == 1 and axes in (None, [0], [-1]):  # most are, and a list is sliced fast
        (start,), (end,), (step,) = starts, ends, steps
        return Host(data.numbers[_part(start, end, step, len(data.numbers))], data.dtype)
    sizes, strides, first = list(data.shape), strides_of(data.shape), 0
    axes = axes_from_front(axes or range(len(starts)), data.rank)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        inside = range(sizes[axis])[_part(start, end, step, sizes[axis])]
        sizes[axis], first = len(inside), first + inside.start * strides[axis]
        strides[axis] *= step
    return strided(data, sizes, strides, first)


def _part(start: int, end: int, step: int, size: int) -> slice:
    """The same part as Python slices it."""
    if step > 0:
        return slice(start, end, step)
    return slice(max(start, -size), None if end in ENDS else end, step)


def _draw_bounds(d: Draw, n: int) -> tuple[int, int]:
    """Start and end: inside, outside, or huge."""
    far = [d.integer(-n - 2, n + 2), d.integer(-n - 2, n + 2), *ENDS, -ENDS[0] - 1]
    return d.choice(far), d.choice(far)


@sample(slice_)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=1))
    every = d.boolean()
    axes = list(range(x.ndim)) if every else d.axes(x.ndim, 1)
    if d.opset < 11:
        axes = [a % x.ndim for a in axes]
    bounds = [_draw_bounds(d, x.shape[a]) for a in axes]
    starts, ends = [b[0] for b in bounds], [b[1] for b in bounds]
    if d.opset < 10:
        return call(x, starts=starts, ends=ends, axes=None if every else axes)
    steps = d.maybe([d.choice([1, 2, 3, -1, -2]) for _ in axes])
    return call(x, starts, ends, None if every and steps is None else axes, steps)

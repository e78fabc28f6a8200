"""Softmax family: Softmax, LogSoftmax, Hardmax.

History: 1 (the axes from `axis` on are flattened into one), 11 (negative axes), 13 (one axis only).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from onnxinterp.ops.shapes import from_front
from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call


@op("Softmax", since=13)
def softmax(input: Tensor, *, axis: int = -1) -> Tensor:
    return input.softmax(axis)


@op("LogSoftmax", since=13)
def log_softmax(input: Tensor, *, axis: int = -1) -> Tensor:
    return input.log_softmax(axis)


@op("Hardmax", since=13)
def hardmax(input: Tensor, *, axis: int = -1) -> Tensor:
    """1 at the first maximum along the axis, 0 elsewhere."""
    if input.shape[axis] == 0:
        return input  # it has no elements
    first = input.argmax(axis, keepdim=True)
    return torch.zeros_like(input).scatter(axis, first, 1)


def _flatten_from(rule: Callable[..., Tensor], x: Tensor, axis: int) -> Tensor:
    """Apply a rule to the axes from `axis` on, flattened into one."""
    axis = from_front(axis, x.ndim)
    return rule(x.reshape(*x.shape[:axis], -1), axis=-1).reshape(x.shape)


@op("Softmax", since=1)
def softmax_1(input: Tensor, *, axis: int = 1) -> Tensor:
    return _flatten_from(softmax, input, axis)


@op("LogSoftmax", since=1)
def log_softmax_1(input: Tensor, *, axis: int = 1) -> Tensor:
    return _flatten_from(log_softmax, input, axis)


@op("Hardmax", since=1)
def hardmax_1(input: Tensor, *, axis: int = 1) -> Tensor:
    return _flatten_from(hardmax, input, axis)


@sample(softmax, log_softmax, hardmax)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=1))
    return call(x, axis=d.maybe(d.axis(x.ndim)))


def _draw_old_axis(d: Draw, rank: int) -> int | None:
    return d.maybe(d.axis(rank) if d.opset >= 11 else d.integer(0, rank - 1))


@sample(softmax_1, log_softmax_1, hardmax_1)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=2))
    return call(x, axis=_draw_old_axis(d, x.ndim))

"""Softmax family: Softmax, LogSoftmax, Hardmax.

History: 1 (the axes from `axis` on are flattened into one), 11 (negative axes), 13 (one axis only).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from onnxinterp.ops.elementwise import Kernel, register
from onnxinterp.ops.shapes import from_front
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call, draw_axis


def _family(op_type: str, rule: Callable[[Tensor, int], Tensor]) -> tuple[Kernel, Kernel]:
    """Register `rule` along one axis, and version 1: along all axes from `axis` on, flattened."""

    def kernel(input: Tensor, *, axis: int = -1) -> Tensor:
        return rule(input, axis)

    def version_1(input: Tensor, *, axis: int = 1) -> Tensor:
        kept = input.shape[: from_front(axis, input.ndim)]
        return rule(input.reshape(*kept, -1), -1).reshape(input.shape)

    register(kernel, op_type, 13)
    return kernel, register(version_1, op_type, 1, f"{kernel.__name__}_1")


def _hardmax(x: Tensor, axis: int) -> Tensor:
    """1 at the first maximum along the axis, 0 elsewhere."""
    if x.shape[axis] == 0:
        return x  # it has no elements
    first = x.argmax(axis, keepdim=True)
    return torch.zeros_like(x).scatter(axis, first, 1)


softmax, softmax_1 = _family("Softmax", torch.softmax)
log_softmax, log_softmax_1 = _family("LogSoftmax", torch.log_softmax)
hardmax, hardmax_1 = _family("Hardmax", _hardmax)


@sample(softmax, log_softmax, hardmax)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=1))
    return call(x, axis=d.maybe(d.axis(x.ndim)))


@sample(softmax_1, log_softmax_1, hardmax_1)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=2))
    return call(x, axis=d.maybe(draw_axis(d, x.ndim)))

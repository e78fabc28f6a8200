"""Positions and values of the largest and smallest elements: ArgMax, ArgMin, TopK.

History: ArgMax, ArgMin 1, 11 (negative axes), 12 (`select_last_index`), 13 (bfloat16). TopK 1 (`k`
is an attribute), 10 (an input), 11 (`largest`, `sorted`; integers), 24 (bfloat16).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from onnxinterp.ops.elementwise import Kernel, register
from onnxinterp.ops.shapes import from_front
from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call, draw_axis
from onnxinterp.values import Flag, is_traced
from onnxinterp.versions import older


def _position(op_type: str, rule: Callable[..., Tensor]) -> tuple[Kernel, Kernel]:
    """Register the position of the first, or last, extreme element along an axis."""

    def kernel(
        data: Tensor, *, axis: int = 0, keepdims: Flag = 1, select_last_index: Flag = 0
    ) -> Tensor:
        axis = from_front(axis, data.ndim)  # torch takes any axis of a scalar
        if not select_last_index:
            return rule(data, axis, keepdim=bool(keepdims))
        return data.shape[axis] - 1 - rule(data.flip(axis), axis, keepdim=bool(keepdims))

    register(kernel, op_type, 12, uint64="order")
    return kernel, older(kernel, since=1, without=["select_last_index"])


arg_max, arg_max_1 = _position("ArgMax", torch.argmax)
arg_min, arg_min_1 = _position("ArgMin", torch.argmin)


def stable_sort(x: Tensor, axis: int, *, descending: bool) -> tuple[Tensor, Tensor]:
    """Values and indices; equal elements keep their order.

    A trace has the form without `stable`, the only one that torch's exporter of traces converts:
    to TopK, which keeps the order. On the CPU torch keeps it as well.
    """
    if is_traced():
        return x.sort(dim=axis, descending=descending)
    return x.sort(dim=axis, descending=descending, stable=True)


@op("TopK", since=11, uint64="order")
def top_k(
    X: Tensor, K: int, *, axis: int = -1, largest: Flag = 1, sorted: Flag = 1
) -> tuple[Tensor, Tensor]:
    """Equal elements are in the order of their indices, which torch.topk does not guarantee.

    `sorted` has no effect: any order is allowed if it is 0.
    """
    del sorted
    values, indices = stable_sort(X, axis, descending=bool(largest))
    return values.narrow(axis, 0, K), indices.narrow(axis, 0, K)


top_k_10 = older(top_k, since=10, without=["largest", "sorted"])


@op("TopK", since=1, uint64="order")
def top_k_1(X: Tensor, *, k: int, axis: int = -1) -> tuple[Tensor, Tensor]:
    return top_k(X, k, axis=axis)


@sample(arg_max, arg_min)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=1), lo=-3, hi=3)
    last = d.maybe(d.integer(0, 1)) if d.opset >= 12 else None
    keepdims = d.maybe(d.integer(0, 1))
    return call(x, axis=d.maybe(draw_axis(d, x.ndim)), keepdims=keepdims, select_last_index=last)


@sample(top_k, top_k_1)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=1))
    axis = d.maybe(draw_axis(d, x.ndim))
    side = x.shape[-1 if axis is None else axis]
    k = d.integer(min(1, side), side)
    if d.opset < 10:
        return call(x, axis=axis, k=k, outputs=2)
    if d.opset < 11:
        return call(x, [k], axis=axis, outputs=2)
    # the order of several is undefined otherwise
    in_order = d.maybe(d.integer(0 if k == 1 else 1, 1))
    largest = d.maybe(d.integer(0, 1))
    return call(x, [k], axis=axis, largest=largest, sorted=in_order, outputs=2)

"""Reductions: ReduceSum, Mean, Prod, Max, Min, L1, L2, SumSquare, LogSum and LogSumExp.

History: 1 (`axes` is an attribute), 11 (negative axes), 12 (Max, Min: 8-bit integers), 13 (Sum:
`axes` is an input; bfloat16), 18 (all others follow Sum), 20 (Max, Min: bool), 28 (LogSum,
LogSumExp: floating types only).

Over no elements at all Sum, L1, L2 and SumSquare give 0, Prod 1, LogSum and LogSumExp -inf, Max the
lowest and Min the highest value of the type.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import reduce
from typing import Any, TypeAlias

import torch
from torch import Tensor

from onnxinterp.ops.spatial import at_least
from onnxinterp.registry import host, op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag, Host, Ints, round_to, sym_max, sym_min

Rule: TypeAlias = Callable[[Tensor, list[int], bool], Tensor]
Kernel: TypeAlias = Callable[..., Tensor]


def _reduction(
    op_type: str, rule: Rule, axes_input_since: int = 18, **declared: Any
) -> tuple[Kernel, Kernel]:
    """Register a reduction: the kernel that takes `axes` as an input, and the older one."""

    def kernel(
        data: Tensor,
        axes: Ints | None = None,
        *,
        keepdims: Flag = 1,
        noop_with_empty_axes: Flag = 0,
    ) -> Tensor:
        if axes and not data.ndim:
            raise IndexError(f"axes {axes} of a scalar")  # to which torch gives one
        if not axes and not noop_with_empty_axes:
            axes = list(range(data.ndim))
        if not axes:
            return rule(data.unsqueeze(-1), [-1], False)  # each element is reduced by itself
        return rule(data, axes, bool(keepdims))

    def kernel_1(data: Tensor, *, axes: list[int] | None = None, keepdims: Flag = 1) -> Tensor:
        return kernel(data, axes, keepdims=keepdims)

    name = re.sub(r"(?<!^)(?=[A-Z])", "_", op_type).lower()
    kernel.__name__ = kernel.__qualname__ = name
    kernel_1.__name__ = kernel_1.__qualname__ = f"{name}_1"
    newer, older = (op(op_type, since=since, **declared) for since in (axes_input_since, 1))
    return newer(kernel), older(kernel_1)


def _sum(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    return x.sum(axes, keepdim, dtype=x.dtype)


def _mean(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    """The mean of integers is rounded towards zero; that of none is 0, as onnxruntime has it."""
    if x.is_floating_point():
        return x.mean(axes, keepdim)
    count = at_least(math.prod([x.shape[a] for a in axes]), 1)
    if x.dtype is torch.uint64:
        return (x.double().sum(axes, keepdim) / count).to(x.dtype)
    return torch.div(_sum(x, axes, keepdim), count, rounding_mode="trunc")


def _prod(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    for axis in axes:
        x = x.prod(axis, keepdim=True, dtype=x.dtype)
    return x if keepdim else x.squeeze(axes)


def _extreme(x: Tensor, axes: list[int], keepdim: bool, rule: Rule, identity: float) -> Tensor:
    """The greatest or least element; `identity` where there is none."""
    if any(x.shape[a] == 0 for a in axes):
        return torch.full_like(_sum(x, axes, keepdim), identity)
    return rule(x, axes, keepdim)


def _max(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    return _extreme(x, axes, keepdim, torch.amax, _range_of(x.dtype)[0])


def _min(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    return _extreme(x, axes, keepdim, torch.amin, _range_of(x.dtype)[1])


def _range_of(dtype: torch.dtype) -> tuple[float, float]:
    """The lowest and the highest value of a type."""
    if dtype.is_floating_point:
        return -math.inf, math.inf
    return (0, 1) if dtype is torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)


def _l1(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    if x.dtype is torch.uint64:  # none is negative, and a sum of bits is the sum modulo 2**64
        return _sum(x.view(torch.int64), axes, keepdim).view(x.dtype)
    return _sum(x.abs(), axes, keepdim)


def _l2(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, 2, axes, keepdim)
    return norm


def _sum_square(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    return _sum(x.square(), axes, keepdim)


def _log_sum(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    return x.sum(axes, keepdim).log()


def _in_float64(rule: Rule) -> Rule:
    """A rule of real numbers for integers too: its result is rounded towards zero."""

    def either(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
        if x.is_floating_point():
            return rule(x, axes, keepdim)
        return rule(x.double(), axes, keepdim).to(x.dtype)

    return either


reduce_sum, reduce_sum_1 = _reduction("ReduceSum", _sum, axes_input_since=13, uint64="bits")
reduce_mean, reduce_mean_1 = _reduction("ReduceMean", _mean)
reduce_prod, reduce_prod_1 = _reduction("ReduceProd", _prod, uint64="bits")
reduce_max, reduce_max_1 = _reduction("ReduceMax", _max, uint64="order")
reduce_min, reduce_min_1 = _reduction("ReduceMin", _min, uint64="order")
reduce_l1, reduce_l1_1 = _reduction("ReduceL1", _l1)
reduce_l2, reduce_l2_1 = _reduction("ReduceL2", _in_float64(_l2))
reduce_sum_square, reduce_sum_square_1 = _reduction("ReduceSumSquare", _sum_square, uint64="bits")
reduce_log_sum, reduce_log_sum_1 = _reduction("ReduceLogSum", _in_float64(_log_sum))
reduce_log_sum_exp, reduce_log_sum_exp_1 = _reduction(
    "ReduceLogSumExp", _in_float64(torch.logsumexp)
)


def _host_rule(rule: Callable[[list[Any]], Any], kernel: Kernel, kernel_1: Kernel) -> None:
    """Attach a rule for lists of plain numbers to both kernels of a reduction."""

    def reduced(data: Host, axes: list[int] | None, keepdims: Flag, noop: int = 0) -> Any:
        if axes and (not data.rank or axes not in ([0], [-1])):
            return NotImplemented
        if not data.rank or (noop and not axes):
            return data
        if not data.data and rule in (_greatest, _least):
            return NotImplemented
        try:
            answer = round_to(data.dtype, rule(data.data))
        except OverflowError:
            return NotImplemented  # a tensor wraps
        return Host([answer] if keepdims else answer, data.dtype)

    @host(kernel)
    def _(
        data: Host,
        axes: Ints | None = None,
        *,
        keepdims: Flag = 1,
        noop_with_empty_axes: Flag = 0,
    ) -> Any:
        return reduced(data, axes, keepdims, noop_with_empty_axes)

    @host(kernel_1)
    def _(data: Host, *, axes: list[int] | None = None, keepdims: Flag = 1) -> Any:
        return reduced(data, axes, keepdims)


def _greatest(numbers: list[Any]) -> Any:
    return reduce(sym_max, numbers)


def _least(numbers: list[Any]) -> Any:
    return reduce(sym_min, numbers)


_host_rule(sum, reduce_sum, reduce_sum_1)
_host_rule(math.prod, reduce_prod, reduce_prod_1)
_host_rule(_greatest, reduce_max, reduce_max_1)
_host_rule(_least, reduce_min, reduce_min_1)


def _call(d: Draw, x: Tensor) -> Call:
    """Axes as an input: none, an empty list, some."""
    noop = d.maybe(d.integer(0, 1))
    axes, keepdims = d.maybe(d.axes(x.ndim)), d.maybe(d.integer(0, 1))
    return call(x, axes, keepdims=keepdims, noop_with_empty_axes=noop)


def _call_1(d: Draw, x: Tensor) -> Call:
    """Axes as an attribute, negative ones from opset 11 on."""
    axes = d.axes(x.ndim, min_size=1)
    if d.opset < 11:
        axes = [axis % x.ndim for axis in axes]
    return call(x, axes=d.maybe(axes), keepdims=d.maybe(d.integer(0, 1)))


@sample(reduce_sum, reduce_mean, reduce_max, reduce_min, reduce_sum_square)
def _(d: Draw) -> Call:
    return _call(d, d.tensor(d.shape(min_dims=1)))


@sample(reduce_sum_1, reduce_mean_1, reduce_max_1, reduce_min_1, reduce_sum_square_1)
def _(d: Draw) -> Call:
    return _call_1(d, d.tensor(d.shape(min_dims=1)))


@sample(reduce_prod)
def _(d: Draw) -> Call:
    return _call(d, _small(d))


@sample(reduce_prod_1)
def _(d: Draw) -> Call:
    return _call_1(d, _small(d))


@sample(reduce_l1, reduce_l2, reduce_log_sum, reduce_log_sum_exp)
def _(d: Draw) -> Call:
    return _call(d, _positive(d))


@sample(reduce_l1_1, reduce_l2_1, reduce_log_sum_1, reduce_log_sum_exp_1)
def _(d: Draw) -> Call:
    return _call_1(d, _positive(d))


def _small(d: Draw) -> Any:
    """Elements whose product fits in every type."""
    return d.tensor(d.shape(min_dims=1, max_dims=3, max_side=3), lo=-1.5, hi=1.5)


def _positive(d: Draw) -> Any:
    """Elements away from 0, where norms have a kink and logarithms a pole."""
    return d.tensor(d.shape(min_dims=1), lo=1, hi=10)

"""Reductions: ReduceSum, Mean, Prod, Max, Min, L1, L2, SumSquare, LogSum and LogSumExp.

History: 1 (`axes` is an attribute), 11 (negative axes), 12 (Max, Min: 8-bit integers), 13 (Sum:
`axes` is an input; bfloat16), 18 (all others follow Sum), 20 (Max, Min: bool), 28 (LogSum,
LogSumExp: floating types only).

Over 0 elements Sum, L1, L2 and SumSquare return 0, Prod 1, LogSum and LogSumExp -inf, Max the
lowest and Min the highest value of the type.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial, reduce
from typing import Any, TypeAlias

import torch
from torch import Tensor

from onnxinterp.ops.elementwise import Kernel, register
from onnxinterp.ops.host_views import permuted
from onnxinterp.ops.shapes import axes_from_front
from onnxinterp.ops.spatial import at_least
from onnxinterp.registry import host, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag, Host, Ints, round_to, sym_max, sym_min
from onnxinterp.versions import older

Rule: TypeAlias = Callable[[Tensor, list[int], bool], Tensor]


def _reduction(
    op_type: str,
    rule: Rule,
    draw: Callable[[Draw], Any],
    axes_input_since: int = 18,
    host_rule: Callable[[list[Any]], Any] | None = None,
    **options: Any,
) -> tuple[Kernel, Kernel]:
    """Register a reduction: the kernel with `axes` as an input, and the older one.

    Args:
        op_type: the operator.
        rule: reduces a tensor over some of its axes, keeping them or not.
        draw: draws a tensor for the samples.
        axes_input_since: the first opset with `axes` as an input.
        host_rule: reduces a list of plain numbers; no such rule if None.
        options: of the registrations.
    """

    def kernel(
        data: Tensor,
        axes: Ints | None = None,
        *,
        keepdims: Flag = 1,
        noop_with_empty_axes: Flag = 0,
    ) -> Tensor:
        if axes and not data.ndim:
            raise IndexError(f"axes must be empty for a scalar, got {axes}")  # torch takes one
        if not axes and not noop_with_empty_axes:
            axes = list(range(data.ndim))
        if not axes:
            return rule(data.unsqueeze(-1), [-1], False)  # each element is reduced by itself
        return rule(data, axes, bool(keepdims))

    register(kernel, op_type, axes_input_since, **options)
    sample(kernel)(lambda d: _call(d, draw(d)))
    version_1 = older(kernel, since=1, without=["noop_with_empty_axes"], attributes=["axes"])
    sample(version_1)(lambda d: _call_1(d, draw(d)))
    if host_rule is not None:
        host(kernel)(partial(_host_reduction, host_rule))
    return kernel, version_1


def _host_reduction(
    rule: Callable[[list[Any]], Any],
    data: Host,
    axes: Ints | None = None,
    *,
    keepdims: Flag = 1,
    noop_with_empty_axes: Flag = 0,
) -> Any:
    """Apply a rule for plain numbers to a host value."""
    if not data.rank and axes:
        return NotImplemented  # the kernel raises
    if not data.rank or (noop_with_empty_axes and not axes):
        return data
    reduced = axes_from_front(axes or range(data.rank), data.rank)
    kept = [axis for axis in range(data.rank) if axis not in reduced]
    left, n = [data.shape[axis] for axis in kept], math.prod([data.shape[a] for a in reduced])
    if not n and rule in (_greatest, _least):
        return NotImplemented
    numbers = permuted(data, kept + reduced).numbers
    rows = [numbers[i * n : (i + 1) * n] for i in range(math.prod(left))]
    try:
        answers = [round_to(data.dtype, rule(row)) for row in rows]
    except OverflowError:
        return NotImplemented  # a tensor wraps
    sizes = [1 if axis in reduced else size for axis, size in enumerate(data.shape)]
    return Host(answers, data.dtype, tuple(sizes if keepdims else left))


def _sum(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    return x.sum(axes, keepdim, dtype=x.dtype)


def _mean(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    """The mean of integers is rounded towards zero; that of 0 integers is 0, as in onnxruntime."""
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


def _extreme(rule: Rule, end: int) -> Rule:
    """The greatest or least element; an end of the range of the type if there are no elements."""

    def reduced(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
        if any(x.shape[a] == 0 for a in axes):
            return torch.full_like(_sum(x, axes, keepdim), _range_of(x.dtype)[end])
        return rule(x, axes, keepdim)

    return reduced


def _range_of(dtype: torch.dtype) -> tuple[float, float]:
    """The lowest and the highest value of a type."""
    if dtype.is_floating_point:
        return -math.inf, math.inf
    return (0, 1) if dtype is torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)


def _l1(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    if x.dtype is torch.uint64:  # not negative, and int64 sums are right modulo 2**64
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
    """A rule for floating-point numbers, also for integers: these are rounded towards zero."""

    def either(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
        if x.is_floating_point():
            return rule(x, axes, keepdim)
        return rule(x.double(), axes, keepdim).to(x.dtype)

    return either


def _greatest(numbers: list[Any]) -> Any:
    return reduce(sym_max, numbers)


def _least(numbers: list[Any]) -> Any:
    return reduce(sym_min, numbers)


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


def _any(d: Draw) -> Any:
    return d.tensor(d.shape(min_dims=1))


def _small(d: Draw) -> Any:
    """Elements whose product fits in every type."""
    return d.tensor(d.shape(min_dims=1, max_dims=3, max_side=3), lo=-1.5, hi=1.5)


def _positive(d: Draw) -> Any:
    """Elements away from 0, where norms have a kink and logarithms a pole."""
    return d.tensor(d.shape(min_dims=1), lo=1, hi=10)


_reduction("ReduceSum", _sum, _any, 13, sum, uint64="bits")
reduce_mean, reduce_mean_1 = _reduction("ReduceMean", _mean, _any)
_reduction("ReduceProd", _prod, _small, host_rule=math.prod, uint64="bits")
_reduction("ReduceMax", _extreme(torch.amax, 0), _any, host_rule=_greatest, uint64="order")
_reduction("ReduceMin", _extreme(torch.amin, 1), _any, host_rule=_least, uint64="order")
_reduction("ReduceL1", _l1, _positive)
_reduction("ReduceL2", _in_float64(_l2), _positive)
_reduction("ReduceSumSquare", _sum_square, _any, uint64="bits")
_reduction("ReduceLogSum", _in_float64(_log_sum), _positive)
_reduction("ReduceLogSumExp", _in_float64(torch.logsumexp), _positive)

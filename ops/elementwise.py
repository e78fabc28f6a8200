"""What elementwise operators share: factories for kernels, the old broadcasting, and host rules.

Before opset 7 the second input broadcasts only if `broadcast` is 1. `axis` is the axis of the first
input at which the axes of the second one begin; without it these are the last axes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from onnxinterp.ops.host_views import broadcast_shape, expanded
from onnxinterp.registry import add_kernel, find_kernel, op
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag, Host, Operand, round_to

Kernel: TypeAlias = Callable[..., Tensor]
DrawPair: TypeAlias = Callable[[Draw, Sequence[int], Sequence[int]], Call]  # of these shapes


def register(
    kernel: Kernel, op_type: str, since: int, name: str | None = None, **options: Any
) -> Kernel:
    """Register a kernel that a factory made; by default its name is that of the operator."""
    name = name or re.sub(r"(?<!^)(?=[A-Z])", "_", op_type).lower()
    kernel.__name__ = kernel.__qualname__ = name
    return op(op_type, since=since, **options)(kernel)


def unary(
    op_type: str,
    rule: Callable[[Tensor], Tensor],
    *,
    since: int = 1,
    name: str | None = None,
    **options: Any,
) -> Kernel:
    """Register and return a kernel that applies `rule` to its one input."""

    def kernel(X: Tensor) -> Tensor:
        return rule(X)

    return register(kernel, op_type, since, name, **options)


def binary(
    op_type: str,
    rule: Callable[..., Tensor],
    *,
    since: int,
    operands: Collection[str] = ("B",),
    name: str | None = None,
    **options: Any,
) -> Kernel:
    """Register and return a kernel that applies `rule` to A and B, which broadcast.

    Args:
        op_type: the operator.
        rule: the function of torch.
        since: the first opset of the kernel.
        operands: the inputs that may be plain numbers.
        name: of the kernel.
        options: of the registration.
    """

    def kernel(A: Tensor, B: Tensor) -> Tensor:
        return rule(A, B)

    kernel.__annotations__.update(dict.fromkeys(operands, Operand))
    return register(kernel, op_type, since, name, **options)


def aligned_version(kernel: Kernel, **options: Any) -> Kernel:
    """Register and return version 1 of a binary operator, with the old broadcasting."""

    def version(A: Tensor, B: Tensor, *, axis: int | None = None, broadcast: Flag = 0) -> Tensor:
        return kernel(A, align(A, B, axis, broadcast))

    newer = find_kernel(kernel)
    assert newer is not None, "the kernel is registered"
    version.__name__ = version.__qualname__ = f"{kernel.__name__}_1"
    add_kernel(replace(newer, function=version, since=1, **options))
    return version


def align(A: Tensor, B: Tensor, axis: int | None, broadcast: Flag) -> Tensor:
    """B with axes of size 1 after its own axes, so that these begin at `axis` of A."""
    if axis is None or not broadcast:
        return B
    behind = A.ndim - axis % max(A.ndim, 1) - B.ndim
    return B.reshape(*B.shape, *[1] * behind)


def elementwise(
    rule: Callable[..., Any], dtype: torch.dtype | None = None, *, exact: bool = False
) -> Callable[..., Any]:
    """A host rule that applies `rule` to numbers element by element; shapes broadcast.

    Args:
        rule: a function of as many numbers as there are inputs; the numbers may be symbolic.
        dtype: of the result; by default that of the first input.
        exact: the result is never rounded, because it is one of the inputs, an integer or a bool.
    """

    def apply(*operands: Host, axis: int | None = None, **_: Any) -> Any:
        result = operands[0].dtype if dtype is None else dtype
        shape = broadcast_shape(*[x.shape for x in operands])
        if shape is None or (axis is not None and len(shape) > 1):
            return NotImplemented
        columns = [expanded(x, shape) for x in operands]
        if any(x is NotImplemented for x in columns):
            return NotImplemented  # too large
        try:
            numbers = [rule(*row) for row in zip(*[x.numbers for x in columns], strict=True)]
            if not exact:
                numbers = [round_to(result, x) for x in numbers]
        except (ArithmeticError, ValueError):
            return NotImplemented  # Python raises; a tensor holds inf or nan, or wraps
        return Host(numbers, result, shape)

    return apply


def draw_shapes(d: Draw) -> tuple[Sequence[int], Sequence[int]]:
    """Two shapes that broadcast, the smaller one first or second."""
    shape = d.shape()
    smaller = d.broadcastable(shape)
    return (shape, smaller) if d.boolean() else (smaller, shape)


def two_tensors(draw: DrawPair) -> Callable[[Draw], Call]:
    """A sample of calls of `draw` for two shapes that broadcast, as they do in the version."""
    return lambda d: draw(d, *draw_shapes(d)) if d.opset >= 7 else _draw_aligned(d, draw)


def draw_terms(d: Draw, A: Sequence[int], B: Sequence[int]) -> Call:
    """Two tensors of any numbers."""
    return call(d.tensor(A), d.tensor(B))


def _draw_aligned(d: Draw, draw: DrawPair) -> Call:
    """A call of `draw` for two shapes, with the attributes of the old broadcasting.

    B has the last axes of A: no oracle supports others.
    """
    shape = d.shape(min_dims=1)
    start = d.integer(0, len(shape))
    smaller = d.choice([shape[start:], (1,) * len(shape[start:])])
    drawn = draw(d, shape, smaller)
    axis = start if start < len(shape) and d.boolean() else None
    broadcast = 1 if smaller != shape else d.maybe(d.integer(0, 1))
    return call(*drawn.inputs, **drawn.attrs, axis=axis, broadcast=broadcast)

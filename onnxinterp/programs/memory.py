"""Elementwise functions write into an argument that nothing reads afterwards.

The numbers are the same; no memory is allocated, and less of it is moved through the caches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from onnxinterp.programs.aliases import Families, is_torch, written_families
from onnxinterp.programs.calls import Call, Program, Value, values_in
from onnxinterp.programs.functions import name_of, names

ELEMENTWISE = names(
    "add sub mul div pow relu sigmoid tanh clamp exp log sqrt rsqrt abs neg square erf sin",
    "cos floor ceil round reciprocal silu hardswish leaky_relu hardsigmoid hardtanh elu",
    "masked_fill",
)
"""Functions that compute each element of the result of the same element of the first argument."""
COMMUTATIVE = frozenset(["add", "mul"])


def reuse_memory(program: Program) -> Program:
    """A program in which elementwise functions run in place where nothing else can see it.

    Args:
        program: without gradients.
    """
    families = Families(program)
    kept = shared_families(program, families)
    last: dict[Value, int] = {}
    for index, call in enumerate(program.calls):
        last.update(dict.fromkeys(families.of_all(call.reads()), index))
    calls = []
    for index, call in enumerate(program.calls):
        dead = {f for f in families.of_all(call.reads()) if last[f] == index and f not in kept}
        calls.append(_in_place(call, families, dead))
    return replace(program, calls=calls)


def shared_families(program: Program, families: Families) -> set[Value]:
    """Families of values that belong to others than the program, or that it writes to anyway."""
    steps = (v for c in program.calls if not is_torch(c) for v in c.results if v is not None)
    weights = (value for value, _ in program.weights)
    outputs = values_in(program.outputs)
    kept = families.of_all([*program.inputs, *program.constants, *weights, *outputs, *steps])
    return kept | written_families(program, families)


def _in_place(call: Call, families: Families, dead: set[Value]) -> Call:
    """The call in place, where one of its arguments may be written to."""
    name = name_of(call.function)
    result = call.results[0] if len(call.results) == 1 else None
    if name not in ELEMENTWISE or result is None or not is_torch(call) or not call.args:
        return call
    if (method := in_place(name)) is None:
        return call
    orders: list[tuple[Any, ...]] = [call.args]
    if name in COMMUTATIVE and len(call.args) == 2 and not call.kwargs:
        orders.append(call.args[::-1])
    for target, *others in orders:
        if not isinstance(target, Value) or families.of(target) not in dead:
            continue
        if (target.shape, target.dtype) != (result.shape, result.dtype) or not is_whole(target):
            continue
        rest = families.of_all(value for value in others if isinstance(value, Value))
        if families.of(target) not in rest:
            args = (target, *others)
            return Call(method, args, call.kwargs, call.results, False, call.step)
    return call


@cache
def in_place(name: str) -> Callable[..., Any] | None:
    """The variant of a function that writes to its first argument."""
    found: Callable[..., Any] | None = getattr(Tensor, f"{name}_", None)
    return found or getattr(getattr(torch._C, "_nn"), f"{name}_", None)  # noqa: B009 - no attribute


def is_whole(value: Value) -> bool:
    """Whether each element has a place of its own in memory."""
    places = sorted(
        (stride, size) for stride, size in zip(value.strides, value.shape, strict=True) if size > 1
    )
    end = 0
    for stride, size in places:
        if stride <= end:
            return False
        end += stride * (size - 1)
    return True

"""Activations that kernels compute in two steps, as the one function that torch has for them.

`hardswish` is infinite beyond a sixth of the largest number, where the product of two steps is not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.nn import functional

from onnxinterp.programs.aliases import Families, is_torch, written_families
from onnxinterp.programs.calls import Call, Program, Value, values_in
from onnxinterp.programs.functions import name_of

GATED: dict[str, Callable[..., Tensor]] = {
    "hardsigmoid": functional.hardswish,
    "sigmoid": functional.silu,
}
"""Name of a function f -> x * f(x)."""


def join_activations(program: Program) -> Program:
    """A program with one call in place of x * sigmoid(x) and x * hardsigmoid(x)."""
    families = Families(program)
    written = written_families(program, families)
    readers = Counter(v for call in program.calls for v in set(call.reads()))
    readers.update(values_in(program.outputs))
    gates: dict[Value, Call] = {}
    calls: list[Call] = []
    for call in program.calls:
        gate = _gate(call, gates, readers)
        if gate is not None and families.of(gate.args[0]) not in written:
            function = GATED[name_of(gate.function)]
            calls.remove(gate)
            call = replace(call, function=function, args=gate.args, kwargs={})
        elif _is_gate(call):
            gates.update((value, call) for value in call.results if value is not None)
        calls.append(call)
    return replace(program, calls=calls)


def _is_gate(call: Call) -> bool:
    is_plain = len(call.args) == 1 and isinstance(call.args[0], Value) and not call.kwargs
    return is_torch(call) and name_of(call.function) in GATED and is_plain


def _gate(call: Call, gates: dict[Value, Call], readers: Counter[Any]) -> Call | None:
    """The gate that a product multiplies its own argument with."""
    if name_of(call.function) != "mul" or len(call.args) != 2 or call.kwargs:
        return None
    for x, gated in (call.args, call.args[::-1]):
        gate = gates.get(gated) if isinstance(gated, Value) else None
        if gate is not None and gate.args[0] is x and readers[gated] == 1:
            return gate
    return None

"""Partial evaluation: calls whose arguments are all known run once, not in each call.

What is known are the constants of the plan. For a snapshot the weights are known, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from onnxinterp.programs.aliases import (
    Families,
    is_random,
    is_torch,
    writes,
    written_families,
)
from onnxinterp.programs.calls import Call, Check, Program, Value, mapped, values_in
from onnxinterp.programs.functions import name_of

FOLDED_BYTES = 1 << 20  # of a result, where weights are not known


def fold(
    program: Program, known: Mapping[Value, Tensor] | None = None, limit: int = FOLDED_BYTES
) -> Program:
    """A program whose constants include all that depends on constants alone.

    Args:
        program: as recorded.
        known: further values that are the same in each call.
        limit: bytes of a result; larger ones are computed in each call.
    """
    constants = {**program.constants, **(known or {})}
    families = Families(program)
    written = written_families(program, families)
    fixed = written | families.of_all(values_in(program.outputs))
    calls = []
    for call in program.calls:
        results = [v for v in call.results if v is not None]
        if results and not families.of_all(results) & fixed and _is_known(call, constants):
            found = _run(call, constants)
            if sum(t.numel() * t.element_size() for t in found) <= limit:
                constants.update(zip(results, found, strict=True))
                continue
        calls.append(call)
    weights = [(value, place) for value, place in program.weights if value not in constants]
    return Program(program.inputs, weights, constants, calls, program.outputs).pruned()


def _is_known(call: Call, constants: Mapping[Value, Tensor]) -> bool:
    """Whether a call returns the same each time."""
    return (
        is_torch(call)
        and not isinstance(call, Check)
        and not is_random(name_of(call.function))
        and not writes(call)
        and all(value in constants for value in call.reads())
    )


def _run(call: Call, constants: Mapping[Value, Tensor]) -> list[Tensor]:
    def tensor(leaf: Any) -> Any:
        return constants[leaf] if isinstance(leaf, Value) else leaf

    with torch.no_grad():
        result = call.function(*mapped(call.args, tensor), **mapped(call.kwargs, tensor))
    many = result if isinstance(result, (tuple, list)) else [result]
    return [t for t, value in zip(many, call.results, strict=True) if value is not None]

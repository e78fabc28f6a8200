"""Calls that were made before: what they return is there already.

The layers of a language model compute the same masks, positions and rotations of the same inputs,
each for itself.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any

from torch import Tensor

from onnxinterp.programs.aliases import Families, is_random, is_torch, written_families
from onnxinterp.programs.calls import Call, Check, Program, Value, values_in
from onnxinterp.programs.functions import name_of

MAX_COMPARED_ELEMENTS = 256  # of constants whose elements are compared


def share_repeats(program: Program) -> Program:
    """A program that makes each call once.

    Values that are written to, and those that are returned, stay tensors of their own.
    """
    families = Families(program)
    own = written_families(program, families) | families.of_all(values_in(program.outputs))
    same = _equal_constants(program)
    made: dict[Hashable, list[Value | None]] = {}
    calls = []
    for call in program.calls:
        call = call.reading(same)
        around = families.of_all([*call.reads(), *filter(None, call.results)])
        if _is_pure(call) and not around & own:
            key = (call.function, _key(call.args), _key(call.kwargs), call.is_many)
            before = made.setdefault(key, call.results)
            if before is not call.results:
                pairs = zip(call.results, before, strict=True)
                same.update((r, b) for r, b in pairs if r is not None and b is not None)
                continue
        calls.append(call)
    return replace(program, calls=calls)


def _is_pure(call: Call) -> bool:
    """Whether the results are determined by the arguments, and nothing else happens."""
    is_plain = is_torch(call) and not isinstance(call, Check) and None not in call.results
    return is_plain and not is_random(name_of(call.function))


def _equal_constants(program: Program) -> dict[Value, Value]:
    """Small constants -> an earlier one that is equal bit by bit."""
    first: dict[Hashable, Value] = {}
    same = {}
    for value, tensor in program.constants.items():
        if tensor.numel() > MAX_COMPARED_ELEMENTS or tensor.is_complex() or tensor.is_sparse:
            continue
        data = tensor.detach().cpu().contiguous()
        key = (tensor.dtype, tensor.device, tensor.shape, tensor.stride(), str(data.tolist()))
        before = first.setdefault(key, value)
        if before is not value:
            same[value] = before
    return same


def _key(structure: Any) -> Hashable:
    """Arguments as a key: equal only where they are of the same types, -0.0 apart from 0.0."""
    if isinstance(structure, (list, tuple)):
        return type(structure), tuple([_key(part) for part in structure])
    if isinstance(structure, dict):
        return tuple([(name, _key(part)) for name, part in sorted(structure.items())])
    if isinstance(structure, slice):
        return slice, _key((structure.start, structure.stop, structure.step))
    if isinstance(structure, float):
        return float, structure.hex()
    if isinstance(structure, Tensor):
        return Tensor, id(structure)
    return type(structure), structure if isinstance(structure, Hashable) else id(structure)

"""Calls that only rearrange a tensor: fewer of them, in the form that torch takes fastest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from onnxinterp.programs.aliases import Families, is_torch, written_families
from onnxinterp.programs.calls import Call, Program, Value
from onnxinterp.programs.functions import name_of
from onnxinterp.programs.pieces import is_slice, without_unread

UNPACKED = ("reshape", "view", "expand", "permute")  # methods that take a list, or numbers


def simplify(program: Program) -> Program:
    """A program with fewer permutations of axes, which computes the same."""
    families = Families(program)
    written = written_families(program, families)
    made: dict[Value, Call] = {}  # the permutation that a value is the result of
    calls = []
    for call in program.calls:
        axes = _axes(call)
        if axes is not None and not families.of_all(call.reads()) & written:
            source: Any = call.args[0]
            if (before := made.get(source)) is not None:
                axes = [_axes_of(before)[axis] for axis in axes]
                source = before.args[0]
            call = Call(Tensor.permute, (source, axes), {}, call.results, False, call.step)
            for result in call.results:
                if result is not None:
                    made[result] = call
        calls.append(call)
    calls = [_unpacked(call) for call in without_unread(calls, program.outputs)]
    return replace(program, calls=calls)


def _axes(call: Call) -> list[int] | None:
    """The order of axes that a call puts a tensor into."""
    name, args = name_of(call.function), call.args
    if not is_torch(call) or not args or not isinstance(args[0], Value) or call.kwargs:
        return None
    rank = len(args[0].shape)
    if name in ("transpose", "swapaxes") and len(args) == 3:
        order = list(range(rank))
        first, second = args[1] % rank, args[2] % rank
        order[first], order[second] = second, first
        return order
    if name == "t" and rank == 2:
        return [1, 0]
    if name == "permute":
        listed = args[1] if len(args) == 2 and isinstance(args[1], (list, tuple)) else args[1:]
        return [axis % rank for axis in listed]
    return None


def _axes_of(call: Call) -> Sequence[int]:
    axes: Sequence[int] = call.args[1]
    return axes


def _unpacked(call: Call) -> Call:
    """The call with numbers in place of a list of them; an exchange of two axes as `transpose`."""
    args = call.args
    if name_of(call.function) == "__getitem__" and is_slice(args[1]):
        return _narrowed(call)
    if name_of(call.function) not in UNPACKED or call.kwargs or len(args) != 2:
        return call
    if not isinstance(args[1], (list, tuple)) or not args[1]:
        return call
    numbers = tuple(args[1])
    moved = [i for i, axis in enumerate(numbers) if i != axis]
    fields = (call.kwargs, call.results, call.is_many, call.step)
    if name_of(call.function) == "permute" and len(moved) == 2:
        return Call(Tensor.transpose, (args[0], *moved), *fields)
    if not hasattr(Tensor, name_of(call.function)):
        return call
    return Call(getattr(Tensor, name_of(call.function)), (args[0], *numbers), *fields)


def _narrowed(call: Call) -> Call:
    """A slice of one axis as `narrow`."""
    source, index = call.args
    parts = index if isinstance(index, tuple) else (index,)
    bounds = [part.indices(size)[:2] for part, size in zip(parts, source.shape, strict=False)]
    cut = [
        (axis, begin, max(end - begin, 0))
        for axis, (begin, end) in enumerate(bounds)
        if (begin, end) != (0, source.shape[axis])
    ]
    if len(cut) != 1:
        return call
    return replace(call, function=Tensor.narrow, args=(source, *cut[0]))

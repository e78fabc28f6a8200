"""Rows that are taken apart and put together again: a value that is another one is not computed.

Exporters write the gates of a recurrent layer in ONNX's order, by slices and a concatenation; the
kernel brings them back into torch's. Each call would copy all weights twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from onnxinterp.programs.aliases import Families, is_random, is_torch, writes, written_families
from onnxinterp.programs.calls import Call, Check, Program, Value, in_place_of, values_in
from onnxinterp.programs.functions import name_of


class Rows(NamedTuple):
    """Rows of a value: its elements `[begin:end]`."""

    source: Value
    begin: int
    end: int


def join_pieces(program: Program) -> Program:
    """A program without slices and concatenations that return what there is already."""
    families = Families(program)
    # what is returned belongs to the caller: it is not another value
    kept = written_families(program, families) | families.of_all(values_in(program.outputs))
    pieces: dict[Value, tuple[Rows, ...]] = {}
    elements: dict[Value, list[tuple[Rows, ...]]] = {}  # what each row of a value is
    same: dict[Value, Value] = {}
    calls = []
    for call in program.calls:
        call = call.reading(same)
        around_it = families.of_all([*call.reads(), *filter(None, call.results)])
        if not around_it & kept and not isinstance(call, Check) and _is_fixed(call):
            for result, found in _pieces(call, pieces, elements):
                pieces[result] = found
                if len(found) == 1 and _is_all(found[0]):
                    same[result] = found[0].source
            _note_elements(call, pieces, elements)
            _note_whole(call, same)
        calls.append(call)
    outputs = in_place_of(program.outputs, same)
    calls = without_unread(calls, outputs)
    return replace(program, calls=calls, outputs=outputs)


def _is_fixed(call: Call) -> bool:
    """Whether all sizes are numbers, not symbols of a graph that is written down."""
    values = [*call.reads(), *filter(None, call.results)]
    return all(type(size) is int for value in values for size in value.shape)


def without_unread(calls: Sequence[Call], outputs: Any) -> list[Call]:
    """The calls whose results are read, and those that do more than to return a result."""
    read = {*values_in(outputs)}
    found = []
    for call in reversed(calls):
        results = [v for v in call.results if v is not None]
        is_pure = is_torch(call) and not is_random(name_of(call.function)) and not writes(call)
        if results and is_pure and not isinstance(call, Check) and not read.intersection(results):
            continue
        read.update(call.reads())
        found.append(call)
    return found[::-1]


def _is_all(rows: Rows) -> bool:
    return rows.begin == 0 and rows.end == rows.source.shape[0]


def _pieces(
    call: Call,
    pieces: dict[Value, tuple[Rows, ...]],
    elements: dict[Value, list[tuple[Rows, ...]]],
) -> Iterator[tuple[Value, tuple[Rows, ...]]]:
    """The results of a call that are rows of other values."""
    name, args = name_of(call.function), call.args
    if not is_torch(call) or call.kwargs or not args:
        return
    if name == "cat" and (len(args) == 1 or args[1] == 0):
        parts = [pieces.get(v, (Rows(v, 0, v.shape[0]),)) for v in args[0] if v.shape]
        kinds = {(rows.source.shape[1:], rows.source.dtype) for part in parts for rows in part}
        if len(kinds) == 1 and call.results[0]:  # others are promoted
            yield call.results[0], _merged(rows for part in parts for rows in part)
    source = args[0]
    if not isinstance(source, Value) or not source.shape:
        return
    row = _row(name, args)
    if row is not None and source in elements and call.results[0] is not None:
        yield call.results[0], elements[source][row]
    known = _known(source, pieces)
    if name in ("chunk", "split", "split_with_sizes") and args[2:] in ((), (0,)):
        begin = 0
        for result in call.results:
            if result is not None:
                yield result, _cut(known, begin, begin + result.shape[0])
                begin += result.shape[0]
    elif (bounds := _bounds(name, args)) is not None and call.results[0] is not None:
        yield call.results[0], _cut(known, *bounds)


def _bounds(name: str, args: tuple[Any, ...]) -> tuple[int, int] | None:
    """The first row that a slice takes, and the one after the last."""
    rows = args[0].shape[0]
    if name == "narrow" and args[1] == 0:
        begin, length = args[2:]
        return (begin, begin + length) if isinstance(begin, int) else None
    if name != "__getitem__":
        return None
    first, *rest = args[1] if isinstance(args[1], tuple) else (args[1],)
    if not isinstance(first, slice) or any(r != slice(None) for r in rest):
        return None
    if not is_slice(first):
        return None
    begin, end, step = first.indices(rows)
    return (begin, end) if step == 1 and begin <= end else None


def _cut(pieces: Sequence[Rows], begin: int, end: int) -> tuple[Rows, ...]:
    """Rows of a concatenation."""
    found, position = [], 0
    for rows in pieces:
        size = rows.end - rows.begin
        first, last = max(begin - position, 0), min(end - position, size)
        if first < last:
            found.append(Rows(rows.source, rows.begin + first, rows.begin + last))
        position += size
    return tuple(found)


def _merged(pieces: Iterator[Rows]) -> tuple[Rows, ...]:
    """The same rows in fewer pieces."""
    found: list[Rows] = []
    for rows in pieces:
        if found and found[-1].source is rows.source and found[-1].end == rows.begin:
            found[-1] = found[-1]._replace(end=rows.end)
        else:
            found.append(rows)
    return tuple(found)


def _known(value: Value, pieces: dict[Value, tuple[Rows, ...]]) -> tuple[Rows, ...]:
    """What the rows of a value are: perhaps its own."""
    return pieces.get(value, (Rows(value, 0, value.shape[0]),))


def _row(name: str, args: tuple[Any, ...]) -> int | None:
    """The row that a call takes of a value."""
    row: Any = None
    if name == "__getitem__":
        row = args[1][0] if isinstance(args[1], tuple) and len(args[1]) == 1 else args[1]
    elif name == "select" and args[1:2] == (0,):
        row = args[2]
    elif name == "squeeze" and args[1:] in ((0,), ([0],)) and args[0].shape[0] == 1:
        row = 0
    is_row = type(row) is int and -args[0].shape[0] <= row < args[0].shape[0]
    return row if is_row else None


def _note_elements(
    call: Call,
    pieces: dict[Value, tuple[Rows, ...]],
    elements: dict[Value, list[tuple[Rows, ...]]],
) -> None:
    """Note what the rows of a value are that a call puts together."""
    name, args = name_of(call.function), call.args
    result = call.results[0] if len(call.results) == 1 else None
    if result is None or call.kwargs or not args or not is_torch(call):
        return
    if name == "stack" and args[1:] in ((), (0,)) and all(v.shape for v in args[0]):
        elements[result] = [_known(value, pieces) for value in args[0]]
    source = args[0]
    if not isinstance(source, Value) or not source.shape:
        return
    if name == "unsqueeze" and args[1:] == (0,):
        elements[result] = [_known(source, pieces)]
    elif name in ("reshape", "view") and len(source.shape) == 1 and len(result.shape) == 2:
        length, known = result.shape[1], _known(source, pieces)
        rows = range(result.shape[0])
        elements[result] = [_cut(known, row * length, (row + 1) * length) for row in rows]


def _note_whole(call: Call, same: dict[Value, Value]) -> None:
    """Note a slice that takes all of a value."""
    result = call.results[0] if len(call.results) == 1 else None
    if result is None or not is_torch(call) or name_of(call.function) != "__getitem__":
        return
    source, index = call.args
    if is_slice(index) and result.shape == source.shape:
        same[result] = source


def is_slice(index: Any) -> bool:
    """Whether an index of `__getitem__` takes slices, in order, of the first axes."""
    parts = index if isinstance(index, tuple) else (index,)
    bounds = (bound for p in parts if isinstance(p, slice) for bound in (p.start, p.stop))
    return all(isinstance(p, slice) and p.step in (None, 1) for p in parts) and all(
        isinstance(bound, (int, type(None))) for bound in bounds
    )

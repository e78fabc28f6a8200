"""How large a model is once its functions are inlined, computed without inlining them.

Thirty functions, each of which calls the next one twice, are a billion nodes. The size of a
function is computed once, as a sum over its calls. A call may pass a graph as an attribute, and the
function may use it several times. So a size also has, for each attribute, how often a graph that
is passed there counts.

The number of nodes is not enough: a node may have ten thousand outputs, which each call of its
function repeats. So the names that nodes and graphs have are counted as well: their width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from onnxinterp.errors import InvalidModelError, UnsafeModelError
from onnxinterp.reading.validation.operators import FunctionKey

WIDTH = 16  # allowed for each allowed node, besides the width of the file; most have up to 8


class Size(NamedTuple):
    """A number of nodes, their depth in subgraphs and in functions, and the sum of their widths."""

    nodes: int
    subgraphs: int = 0
    functions: int = 0
    width: int = 0


Sizes: TypeAlias = "dict[str, Size]"
""""" -> the size; attribute -> how often, and how deep, a graph that is passed there counts."""


@dataclass(eq=False)
class Unit:
    """What determines the size of a graph or a function.

    Attributes:
        where: its name in messages.
        nodes: number of its own nodes.
        width: number of inputs, outputs, tensors and attributes that it and its nodes have.
        parts: subgraphs of its nodes.
        calls: functions that it calls without passing graphs -> how often.
        passed: functions that it calls with graphs, or with attributes that may be graphs: units,
            or names of attributes of the function around it.
        references: attributes of the function around it that its nodes refer to -> how often.
        defaults: the default values of its attributes that are graphs.
    """

    where: str
    nodes: int = 0
    width: int = 0
    parts: list[Unit] = field(default_factory=list)
    calls: Counter[FunctionKey] = field(default_factory=Counter)
    passed: list[tuple[FunctionKey, dict[str, Unit | str]]] = field(default_factory=list)
    references: Counter[str] = field(default_factory=Counter)
    defaults: dict[str, Unit] = field(default_factory=dict)


def check_size(root: Unit, functions: Mapping[FunctionKey, Unit], most: Size) -> None:
    """Check the size of a model once its functions are inlined.

    Raises:
        InvalidModelError: a function calls itself, directly or through others.
        UnsafeModelError: the size is larger than `most`.
    """
    sizes: dict[Unit, Sizes] = {}
    stack, path = [root], {root}
    while stack:
        unit = stack[-1]
        waiting = [u for u in _needs(unit, functions) if u not in sizes]
        if not waiting:
            if unit not in sizes:
                sizes[unit] = _sizes(unit, functions, sizes)
                _check(unit, sizes[unit][""], most)
            path.discard(stack.pop())
            continue
        path.add(unit)
        for other in waiting:
            if other in path:
                raise InvalidModelError(f"{other.where} calls itself")
        stack += waiting


def _needs(unit: Unit, functions: Mapping[FunctionKey, Unit]) -> Iterator[Unit]:
    """The units whose sizes are parts of its own."""
    yield from unit.parts
    for key in unit.calls:
        yield functions[key]
    for key, graphs in unit.passed:
        yield functions[key]
        yield from (graph for graph in graphs.values() if isinstance(graph, Unit))
    yield from unit.defaults.values()


def _sizes(unit: Unit, functions: Mapping[FunctionKey, Unit], known: Mapping[Unit, Sizes]) -> Sizes:
    sizes = {"": Size(unit.nodes, width=unit.width)}
    for part in unit.parts:
        _add(sizes, known[part], Size(1, subgraphs=1))
    for name, count in unit.references.items():
        _add(sizes, {name: Size(1)}, Size(count, subgraphs=1))
    for graph in unit.defaults.values():  # instantiated at each call
        _add(sizes, known[graph], Size(1, subgraphs=1))
    calls: list[tuple[FunctionKey, dict[str, Unit | str], int]] = [
        *((key, {}, count) for key, count in unit.calls.items()),
        *((key, graphs, 1) for key, graphs in unit.passed),
    ]
    for key, graphs, count in calls:
        function = functions[key]
        for name, size in known[function].items():
            times = Size(size.nodes * count, size.subgraphs, size.functions + 1)
            given = graphs.get(name) or function.defaults.get(name)
            if not name:
                _add(sizes, {"": size}, Size(count, functions=1))
            elif given is not None:
                _add(sizes, known[given] if isinstance(given, Unit) else {given: Size(1)}, times)
        for passed in graphs.values():  # instantiated where they are passed
            if isinstance(passed, Unit):
                _add(sizes, known[passed], Size(1, subgraphs=1))
    return sizes


def _add(sizes: Sizes, more: Sizes, times: Size) -> None:
    """Add sizes, `times.nodes` times and deeper by the depths of `times`."""
    for name, size in more.items():
        old = sizes.get(name, Size(0))
        sizes[name] = Size(
            old.nodes + size.nodes * times.nodes,
            max(old.subgraphs, size.subgraphs + times.subgraphs),
            max(old.functions, size.functions + times.functions),
            old.width + size.width * times.nodes,
        )


def _check(unit: Unit, size: Size, most: Size) -> None:
    counted = {
        "nodes": "nodes after inlining functions",
        "subgraphs": "levels of nested subgraphs after inlining functions",
        "functions": "levels of nested function calls",
        "width": "inputs, outputs, tensors and attributes of nodes after inlining functions",
    }
    for name, what in counted.items():
        limit, count = getattr(most, name), getattr(size, name)
        if count > limit:
            raise UnsafeModelError(f"{unit.where} must have at most {limit} {what}, got {count}")

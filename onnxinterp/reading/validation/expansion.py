"""How much a model is once its functions are opened, without opening them.

Thirty functions that call each other twice are a billion nodes. How many they are is a sum over
calls, counted once a function. A function may be handed a graph, as an attribute, and may use it
several times; so its size is a number, and for each attribute how often a graph given there counts.

Nodes are not all of it: a node of a function may have ten thousand outputs, and each call of the
function makes them anew. So what nodes and graphs name is counted as well, their width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from onnxinterp.errors import InvalidModelError, UnsafeModelError
from onnxinterp.reading.validation.operators import FunctionKey

WIDTH = 16  # for each node that is allowed, beside what the file spells out; most have up to 8


class Size(NamedTuple):
    """How many nodes there are, how deep in subgraphs and in functions, and how wide together."""

    nodes: int
    subgraphs: int = 0
    functions: int = 0
    width: int = 0


Sizes: TypeAlias = "dict[str, Size]"
""""" -> its own size; attribute -> how often, and how deep, a graph given there counts."""


@dataclass(eq=False)
class Unit:
    """A graph or a function as far as its size goes.

    Attributes:
        where: what to call it.
        nodes: how many it has itself.
        width: how many inputs, outputs, tensors and attributes they and it have.
        parts: subgraphs of its nodes.
        calls: functions it calls without handing them graphs -> how often.
        handed: functions it calls with graphs, or with attributes that may be some: these are
            units, or names of its own function's attributes.
        refers: attributes of its function that its nodes take as they are -> how often.
        defaults: graphs that stand for attributes that are not given.
    """

    where: str
    nodes: int = 0
    width: int = 0
    parts: list[Unit] = field(default_factory=list)
    calls: Counter[FunctionKey] = field(default_factory=Counter)
    handed: list[tuple[FunctionKey, dict[str, Unit | str]]] = field(default_factory=list)
    refers: Counter[str] = field(default_factory=Counter)
    defaults: dict[str, Unit] = field(default_factory=dict)


def check_size(root: Unit, functions: Mapping[FunctionKey, Unit], most: Size) -> None:
    """Refuse what is too large once it is opened.

    Raises:
        InvalidModelError: a function calls itself, be it through others.
        UnsafeModelError: there are more nodes than `most` has, or they stand deeper, or are wider.
    """
    sizes: dict[Unit, Sizes] = {}
    stack, path = [root], {root}
    while stack:
        unit = stack[-1]
        waiting = [u for u in _needs(unit, functions) if u not in sizes]
        if not waiting:
            if unit not in sizes:
                sizes[unit] = _sizes(unit, functions, sizes)
                _refuse(unit, sizes[unit][""], most)
            path.discard(stack.pop())
            continue
        path.add(unit)
        for other in waiting:
            if other in path:
                raise InvalidModelError(f"{other.where} calls itself")
        stack += waiting


def _needs(unit: Unit, functions: Mapping[FunctionKey, Unit]) -> Iterator[Unit]:
    """The units whose sizes its own is made of."""
    yield from unit.parts
    for key in unit.calls:
        yield functions[key]
    for key, graphs in unit.handed:
        yield functions[key]
        yield from (graph for graph in graphs.values() if isinstance(graph, Unit))
    yield from unit.defaults.values()


def _sizes(unit: Unit, functions: Mapping[FunctionKey, Unit], known: Mapping[Unit, Sizes]) -> Sizes:
    sizes = {"": Size(unit.nodes, width=unit.width)}
    for part in unit.parts:
        _add(sizes, known[part], Size(1, subgraphs=1))
    for name, count in unit.refers.items():
        _add(sizes, {name: Size(1)}, Size(count, subgraphs=1))
    for graph in unit.defaults.values():  # decoded at each call
        _add(sizes, known[graph], Size(1, subgraphs=1))
    calls: list[tuple[FunctionKey, dict[str, Unit | str], int]] = [
        *((key, {}, count) for key, count in unit.calls.items()),
        *((key, graphs, 1) for key, graphs in unit.handed),
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
        for handed in graphs.values():  # decoded where they are handed over
            if isinstance(handed, Unit):
                _add(sizes, known[handed], Size(1, subgraphs=1))
    return sizes


def _add(sizes: Sizes, more: Sizes, times: Size) -> None:
    """Add sizes, so many times and so much deeper."""
    for name, size in more.items():
        old = sizes.get(name, Size(0))
        sizes[name] = Size(
            old.nodes + size.nodes * times.nodes,
            max(old.subgraphs, size.subgraphs + times.subgraphs),
            max(old.functions, size.functions + times.functions),
            old.width + size.width * times.nodes,
        )


def _refuse(unit: Unit, size: Size, most: Size) -> None:
    if size.functions > most.functions:
        raise UnsafeModelError(f"{unit.where}: functions call each other {size.functions} deep")
    if size.subgraphs > most.subgraphs:
        raise UnsafeModelError(
            f"{unit.where}: subgraphs stand in each other {size.subgraphs} deep "
            "once functions are opened"
        )
    if size.nodes > most.nodes:
        raise UnsafeModelError(
            f"{unit.where} has {size.nodes} nodes once functions are opened; "
            f"{most.nodes} are allowed"
        )
    if size.width > most.width:
        raise UnsafeModelError(
            f"{unit.where} has {size.width} inputs, outputs, tensors and attributes of nodes "
            f"once functions are opened; {most.width} are allowed"
        )

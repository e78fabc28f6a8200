"""Sizes in a body: which are read off a tensor, which follow from these, and their names.

A size that is one of a tensor's becomes a variable where the tensor is made. One that no tensor of
the body has is passed by the caller.
"""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, count
from typing import Any, TypeAlias

import sympy
import torch
from torch.utils._sympy.printers import PythonPrinter

from onnxinterp.programs.calls import Value, mapped
from onnxinterp.python_source.bodies import Body, Size, bodies_of

NAMELESS = re.compile(r"s\d+|unk__\d+|dynamic_axes_.*|.*_dim_\d+|\W*|\d.*")
"""What exporters write where a size has no name."""


Place: TypeAlias = "tuple[int, Value | None, int]"
"""Number of a call, the value that it makes, and the axis."""
AFTER: Place = (sys.maxsize, None, 0)


def expression_of(number: Any) -> Any:
    """A size of a value as a number or an expression."""
    return number.node.expr if isinstance(number, torch.SymInt) else number


def printed(expression: Any, names: Mapping[sympy.Symbol, str]) -> str:
    """An expression in Python."""
    if not isinstance(expression, sympy.Basic):
        return repr(expression)
    free: Any = expression.free_symbols
    symbols = {s: sympy.Symbol(names[s], integer=True) for s in free}
    text = str(PythonPrinter().doprint(expression.xreplace(symbols)))
    return _tidied(text)


def _tidied(text: str) -> str:
    """The text without doubled brackets, and with blanks around operators."""
    before = None
    while before != text:
        before = text
        text = re.sub(r"\(\(([^()]*)\)\)", r"(\1)", text)
    text = re.sub(r"(?<=[\w)])(//|\*)(?=[\w(])", r" \1 ", text)
    whole = re.fullmatch(r"\(([^()]*)\)", text)
    return whole[1] if whole else text


def sizes_in(structure: Any) -> Iterator[Size]:
    """All sizes in nested lists, tuples, dicts and slices."""
    found: list[Size] = []

    def visit(leaf: Any) -> None:
        if isinstance(leaf, Size):
            found.append(leaf)

    mapped(structure, visit)
    return iter(found)


def own_sizes(body: Body) -> Iterator[tuple[int, Size]]:
    """The sizes that a body computes with, and before which call they must be known."""
    for place, call in enumerate(body.calls):
        yield from ((place, size) for size in sizes_in((call.args, call.kwargs)))
        for inner in bodies_of(call):
            if inner.is_subgraph:
                yield from ((place, size) for _, size in own_sizes(inner))
    yield from ((len(body.calls), size) for size in sizes_in(body.outputs))


def name_symbols(
    symbols: Mapping[sympy.Symbol, str], others: Iterable[sympy.Symbol], taken: Iterable[str]
) -> dict[sympy.Symbol, str]:
    """A name for each symbol: that of the file, where it has one.

    Args:
        symbols: those of inputs -> their names in the file.
        others: symbols of data.
        taken: names of other things.
    """
    found: dict[sympy.Symbol, str] = {}
    used = set(taken)
    for symbol in dict.fromkeys([*symbols, *others]):
        declared = symbols.get(symbol, "")
        base = re.sub(r"\W", "_", declared, flags=re.ASCII)
        base = "size" if NAMELESS.fullmatch(declared) or keyword.iskeyword(base) else base
        further = (f"{base}_{number}" for number in count(2))
        found[symbol] = next(n for n in chain([base], further) if n not in used)
        used.add(found[symbol])
    return found


class BodySizes:
    """How the sizes of one body are found.

    Attributes:
        read: value -> (axis, expression) of the sizes that are read off it.
        passed: symbols that the caller passes.
        names: of what is read or passed.
    """

    def __init__(
        self, body: Body, symbols: Mapping[sympy.Symbol, str], simplify: Any, taken: Iterable[str]
    ) -> None:
        self.simplify = simplify
        self._taken = set(taken)
        self.names: dict[Any, str] = {}
        self.read: dict[Value, list[tuple[int, Any]]] = {}
        self.passed: list[sympy.Symbol] = []
        needed: dict[Any, int] = {}
        for place, size in own_sizes(body):
            needed.setdefault(simplify(size.expression), place)
        places = self._places(body)
        for size in body.inputs:
            if isinstance(size, Size):
                self._name(simplify(size.expression), symbols)
        for expression, place in needed.items():
            is_read = expression in self.names or places.get(expression, AFTER)[0] < place
            wanted = [expression] if is_read else sorted(expression.free_symbols, key=str)
            for part in wanted:
                self._find(part, place, places, symbols)

    def _places(self, body: Body) -> dict[Any, Place]:
        """Expression -> the first value that has such a size: where it is made, and the axis."""
        values = [(-1, v) for v in body.inputs if isinstance(v, Value)]
        values += [
            (i, v) for i, c in enumerate(body.calls) for v in c.results if isinstance(v, Value)
        ]
        found: dict[Any, Place] = {}
        for place, value in values:
            for axis, size in enumerate(value.shape):
                if isinstance(size, torch.SymInt):
                    found.setdefault(self.simplify(size.node.expr), (place, value, axis))
        return found

    def _find(
        self,
        part: Any,
        before: int,
        places: Mapping[Any, Place],
        symbols: Mapping[sympy.Symbol, str],
    ) -> None:
        if part in self.names:
            return
        place, value, axis = places.get(part, AFTER)
        if value is not None and place < before:
            self.read.setdefault(value, []).append((axis, part))
        else:
            self.passed.append(part)
        self._name(part, symbols)

    def _name(self, part: Any, symbols: Mapping[sympy.Symbol, str]) -> None:
        further = (f"size_{number}" for number in count(2))
        name = symbols.get(part) or next(n for n in further if n not in self._taken)
        self._taken.add(name)
        self.names[part] = name

    def of_inputs(self, body: Body, condition: Any, names: Mapping[Value, str]) -> str | None:
        """A condition by sizes of the inputs; None where it is about other sizes."""
        places = {part: (v, axis) for part, (at, v, axis) in self._places(body).items() if at < 0}
        read = {}
        for symbol in condition.free_symbols:
            value, axis = places.get(symbol, (None, 0))
            if value is None:
                return None
            read[symbol] = f"{names[value]}.shape[{axis}]"
        return printed(condition, read)

    def text(self, size: Size) -> str:
        """A size by the variables of the body."""
        expression = self.simplify(size.expression)
        if expression in self.names:
            return self.names[expression]
        return printed(expression, self.names)

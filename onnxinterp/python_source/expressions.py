"""Expressions of Python: their text, how tightly they bind, and where they may be broken."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from onnxinterp.programs.calls import Call, Value
from onnxinterp.programs.functions import name_of
from onnxinterp.python_source.bodies import Seeded, Size
from onnxinterp.python_source.functions import (
    ATOM,
    PRODUCT,
    SIGN,
    SUM,
    defaults_of,
    is_method,
    operator_of,
    public_name,
    takes_one_for_all,
)

SPREAD = frozenset(["reshape", "view", "expand", "permute", "repeat"])
"""Methods that take numbers in place of a list."""
WIDTH = 88  # columns: what formatters take unless they are told otherwise


@dataclass(frozen=True)
class Expression:
    """An expression.

    Attributes:
        text: in one line.
        binds: how tightly its outermost operator binds.
        head: what stands before its arguments, with the bracket; "" where it cannot be broken.
        parts: its arguments.
        depth: calls inside each other.
    """

    text: str
    binds: int = ATOM
    head: str = ""
    parts: tuple[Expression, ...] = ()
    depth: int = 0

    def inside(self, binds: int) -> str:
        """The text as an operand of an operator that binds so tightly."""
        return self.text if self.binds >= binds else f"({self.text})"

    def lines(self, before: str, indent: int, after: str = "") -> list[str]:
        """The expression behind some text, broken where it does not fit in a line."""
        margin = " " * indent
        whole = f"{margin}{before}{self.text}{after}"
        if len(whole) <= WIDTH:
            return [whole]
        if not self.head or not self.parts:
            return self._broken_sum(before, indent, after) or [whole]
        close = {"(": ")", "[": "]", "{": "}"}[self.head[-1]]
        joined = ", ".join([part.text for part in self.parts])
        inner = f"{margin}    {joined}"
        first, last = f"{margin}{before}{self.head}", f"{margin}{close}{after}"
        if len(inner) <= WIDTH and self.head[-1] == "(":
            return [first, inner, last]
        broken = [part.lines("", indent + 4, ",") for part in self.parts]
        return [first, *[line for lines in broken for line in lines], last]

    def _broken_sum(self, before: str, indent: int, after: str) -> list[str]:
        """A sum in several lines, or what follows an assignment in brackets; [] where neither."""
        margin = " " * (indent + (4 if before else 0))
        terms = _terms(self.text)
        fits = len(f"{margin}{self.text}") <= WIDTH
        if not before and len(terms) < 2:
            return []
        lines = [f"{margin}{term}" for term in ([self.text] if fits and before else terms)]
        if not before:
            return [*lines[:-1], lines[-1] + after]
        around = " " * indent
        return [f"{around}{before}(", *lines, f"{around}){after}"]


def _terms(text: str) -> list[str]:
    """The terms of a sum, the operators at their beginnings."""
    depth, begin, found = 0, 0, []
    for place, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if not depth and text[place : place + 3] in (" + ", " - "):
            found.append(text[begin:place])
            begin = place + 1
    return [*found, text[begin:]]


def call_of(head: str, arguments: Sequence[Expression]) -> Expression:
    """A call."""
    depth = 1 + max([a.depth for a in arguments], default=0)
    text = f"{head}({', '.join([a.text for a in arguments])})"
    return Expression(text, ATOM, f"{head}(", tuple(arguments), depth)


class Expressions:
    """Writes calls and arguments.

    Args:
        value: returns the expression of a value.
        size: returns the expression of a size.
        device: returns the expression of the device that tensors are made on.
    """

    def __init__(
        self,
        value: Callable[[Value], Expression],
        size: Callable[[Size], Expression],
        device: Callable[[], Expression],
    ) -> None:
        self.value = value
        self.size = size
        self.device = device

    def call(self, call: Call) -> Expression:
        """A call of a function of torch."""
        return self._as_syntax(call) or self._as_function(call)

    def _as_syntax(self, call: Call) -> Expression | None:
        """A call that Python has an operator, an index or an attribute for."""
        name, n_given = name_of(call.function), len(call.args) + len(call.kwargs)
        operator = operator_of(call.function)
        if operator and n_given == len(call.args) == 2:
            return self._operator(operator, [self.of(argument) for argument in call.args])
        source = self.of(call.args[0]) if call.args else Expression("")
        if name == "neg" and n_given == 1:
            return Expression(f"-{source.inside(SIGN)}", SIGN, depth=source.depth + 1)
        if name == "__getitem__":
            text = f"{source.inside(ATOM)}[{self._index(call.args[-1])}]"
            return Expression(text, ATOM, depth=source.depth + 1)
        if getattr(call.function, "__name__", "") == "__get__":
            return Expression(f"{source.inside(ATOM)}.{name}", ATOM, depth=source.depth + 1)
        return None

    def _as_function(self, call: Call) -> Expression:
        function, arguments = call.function, call.args
        keywords = dict(call.kwargs)
        if takes_one_for_all(function):
            arguments = tuple(map(one_for_all, arguments))
            keywords = {key: one_for_all(value) for key, value in keywords.items()}
        defaults = defaults_of(function)
        given = [self.of(argument) for argument in arguments]
        given += [
            self._keyword(key, self.of(value))
            for key, value in keywords.items()
            if not (key in defaults and _is_same(value, defaults[key]))
        ]
        public = public_name(function)
        assert public is not None, "the recording has checked it"
        if not is_method(function):
            return call_of(public, given)
        source, *rest = given
        if public in SPREAD and len(arguments) == 2 and isinstance(arguments[1], (list, tuple)):
            rest = [self.of(number) for number in arguments[1]] or rest
        found = call_of(f"{source.inside(ATOM)}.{public}", rest)
        return Expression(
            found.text, ATOM, found.head, found.parts, max(found.depth, source.depth + 1)
        )

    def _operator(self, operator: tuple[str, int, bool], operands: list[Expression]) -> Expression:
        symbol, binds, is_reversed = operator
        left, right = operands[::-1] if is_reversed else operands
        text = f"{left.inside(binds)} {symbol} {right.inside(binds + 1)}"
        return Expression(text, binds, depth=1 + max(left.depth, right.depth))

    def _keyword(self, name: str, value: Expression) -> Expression:
        return Expression(
            f"{name}={value.text}",
            ATOM,
            f"{name}={value.head}" if value.head else "",
            value.parts,
            value.depth,
        )

    def of(self, structure: Any) -> Expression:
        """An argument."""
        if isinstance(structure, Value):
            return self.value(structure)
        if isinstance(structure, Size):
            return self.size(structure)
        if isinstance(structure, Seeded):
            made = call_of("torch.Generator", [self.device()])
            return call_of(f"{made.text}.manual_seed", [Expression(str(structure.seed))])
        if isinstance(structure, (list, tuple)):
            return self._sequence(structure)
        if isinstance(structure, slice):
            bounds = (structure.start, structure.stop, structure.step)
            return call_of("slice", [self.of(bound) for bound in bounds])
        if isinstance(structure, torch.device):
            return self.device()
        if structure is Ellipsis:
            return Expression("...")
        if isinstance(structure, float) and not math.isfinite(structure):
            sign = "-" if structure < 0 else ""
            return Expression("math.nan" if structure != structure else f"{sign}math.inf")
        if isinstance(structure, str):
            return Expression(quoted(structure))
        is_negative = isinstance(structure, (int, float)) and structure < 0
        text = repr(structure).replace("e+", "e")
        return Expression(text, SIGN if is_negative else ATOM)

    def _sequence(self, structure: Sequence[Any]) -> Expression:
        parts = [self.of(part) for part in structure]
        joined = ", ".join([part.text for part in parts])
        depth = max([part.depth for part in parts], default=0)
        if isinstance(structure, list):
            return Expression(f"[{joined}]", ATOM, "[", tuple(parts), depth)
        comma = "," if len(parts) == 1 else ""
        return Expression(f"({joined}{comma})", ATOM, "(", tuple(parts), depth)

    def _index(self, index: Any) -> str:
        parts = index if isinstance(index, tuple) else (index,)
        joined = ", ".join(map(self._subscript, parts))
        return f"{joined}," if isinstance(index, tuple) and len(parts) == 1 else joined or "()"

    def _subscript(self, part: Any) -> str:
        if not isinstance(part, slice):
            return self.of(part).text
        bounds = [part.start, part.stop] + ([part.step] if part.step not in (None, 1) else [])
        ends = [None if bound is None else self.of(bound) for bound in bounds]
        is_plain = all(end is None or _is_plain(end.text) for end in ends)
        between = ":" if is_plain else " : "
        return between.join(["" if end is None else end.text for end in ends]).strip()


def one_for_all(value: Any) -> Any:
    """One number in place of several equal ones."""
    numbers: list[Any] = list(value) if isinstance(value, (list, tuple)) else []
    is_one = bool(numbers) and all(type(n) is int and n == numbers[0] for n in numbers)
    return numbers[0] if is_one else value


def _is_same(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(value == default)


def _is_plain(text: str) -> bool:
    """Whether a bound is a name or a number, beside which a colon has no blanks."""
    return text.lstrip("-").isidentifier() or text.lstrip("-").isdigit()


def quoted(text: str) -> str:
    """A string as Python writes it, in double quotes."""
    inner = repr(f"'{text}")[2:-1]  # with a quote in it, Python takes double quotes around it
    return repr(text) if '"' in text else f'"{inner}"'


def product(text: str) -> Expression:
    """The text of a sum or product of sizes."""
    binds = SUM if any(c in text for c in "+-") else PRODUCT if " " in text else ATOM
    return Expression(text, binds)

"""Classes that differ in numbers alone become one class, which is given the numbers.

class Block(nn.Module):
def __init__(self, in_channels: int, out_channels: int) -> None:
super().__init__()
self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from inspect import signature
from itertools import chain, count
from typing import Any, NamedTuple

from torch import nn

from onnxinterp.python_source.expressions import Expression, call_of

HEAD = "    def __init__(self) -> None:"
COMMENT = re.compile(r"  # \[.*\]$")
LABELS = {
    "in_channels": "inputs",
    "out_channels": "outputs",
    "in_features": "inputs",
    "out_features": "outputs",
    "num_features": "channels",
    "num_channels": "channels",
    "normalized_shape": "width",
    "embedding_dim": "width",
    "kernel_size": "kernel",
}
"""Argument of a layer -> the name of a parameter."""


class Family(NamedTuple):
    """Members of a class, and the numbers that it is given.

    Attributes:
        members: its lines behind the name.
        arguments: for each class that it replaces, the numbers.
        names: of the parameters.
    """

    members: list[str]
    arguments: list[list[int]]
    names: list[str]


class _Class:
    """The members of a class in parts.

    Attributes:
        statements: those of its constructor.
        numbers: in them, in order, and what each is.
        methods: the lines of its methods.
    """

    def __init__(self, members: list[str], parameters: Mapping[str, Sequence[str]]) -> None:
        self.statements: list[ast.stmt] = []
        self.methods = members
        if HEAD in members:
            end = members.index("") if "" in members else len(members)
            self.methods = members[end:]
            function = ast.parse("\n".join(["class _:", *members[:end]])).body[0]
            self.statements = function.body[0].body  # type: ignore[attr-defined]
        self.numbers = [
            pair for statement in self.statements for pair in _numbers(statement, parameters)
        ]

    def skeleton(self) -> str:
        """The members without numbers and comments."""
        values = [constant.value for constant, _ in self.numbers]
        for constant, _ in self.numbers:
            constant.value = 0
        dumped = [ast.dump(statement) for statement in self.statements]
        for (constant, _), value in zip(self.numbers, values, strict=True):
            constant.value = value
        return "\n".join([*dumped, *[COMMENT.sub("", line) for line in self.methods]])


def families(
    classes: Sequence[list[str]], parameters: Mapping[str, Sequence[str]]
) -> list[tuple[list[int], Family]]:
    """Group classes, given by their lines behind the name.

    Args:
        classes: their members.
        parameters: name of each class that is written already -> names of its parameters.

    Returns:
        For each group the places of its classes, and what they have in common.
    """
    parsed = [_Class(members, parameters) for members in classes]
    groups: dict[str, list[int]] = {}
    for place, found in enumerate(parsed):
        groups.setdefault(found.skeleton(), []).append(place)
    return [(places, _family([parsed[p] for p in places])) for places in groups.values()]


def _numbers(
    statement: ast.stmt, parameters: Mapping[str, Sequence[str]]
) -> Iterator[tuple[ast.Constant, str]]:
    """The numbers among the arguments of calls, and the names of the arguments."""
    for call in ast.walk(statement):
        if isinstance(call, ast.Call):
            names = [*_parameters(call.func, parameters), *["size"] * len(call.args)]
            given = [*zip(names, call.args, strict=False)]
            given += [(str(keyword.arg), keyword.value) for keyword in call.keywords]
            for label, argument in given:
                if isinstance(argument, ast.Constant) and type(argument.value) is int:
                    yield argument, label


def _parameters(function: ast.expr, known: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """The names of the arguments of a class."""
    space, _, name = ast.unparse(function).rpartition(".")
    if space != "nn":
        return known.get(name, ())
    layer = getattr(nn, name, None)
    return list(signature(layer).parameters) if isinstance(layer, type) else ()


def _family(classes: Sequence[_Class]) -> Family:
    """One class for several that have the same skeleton."""
    columns = list(zip(*[c.numbers for c in classes], strict=True))
    values = [tuple([constant.value for constant, _ in column]) for column in columns]
    names: dict[tuple[Any, ...], str] = {}
    renamed: dict[int, str] = {}
    for column, numbers in zip(columns, values, strict=True):
        if len(set(numbers)) > 1:
            constant, label = column[0]
            if numbers not in names:
                names[numbers] = _new_name(label, names.values())
            renamed[id(constant)] = names[numbers]
    lines = []
    if classes[0].statements:
        parameters = [Expression("self"), *[Expression(f"{n}: int") for n in names.values()]]
        lines = call_of("__init__", parameters).lines("def ", 4, " -> None:")
        for statement in classes[0].statements:
            lines += _laid_out(statement, renamed)
    arguments = [list(row) for row in zip(*names, strict=True)] or [[] for _ in classes]
    return Family([*lines, *_common([c.methods for c in classes])], arguments, [*names.values()])


def _laid_out(statement: ast.stmt, renamed: Mapping[int, str]) -> list[str]:
    """The lines of a statement of a constructor."""
    if isinstance(statement, ast.Assign):
        before = f"{ast.unparse(statement.targets[0])} = "
        return _expression(statement.value, renamed).lines(before, 8)
    assert isinstance(statement, ast.Expr), "a constructor assigns and calls"
    return _expression(statement.value, renamed).lines("", 8)


def _expression(node: ast.expr, renamed: Mapping[int, str]) -> Expression:
    if isinstance(node, ast.Call):
        arguments = [_expression(argument, renamed) for argument in node.args]
        for keyword in node.keywords:
            value = _expression(keyword.value, renamed)
            arguments.append(Expression(f"{keyword.arg}={value.text}"))
        head = "super().__init__" if ast.unparse(node.func) == "super().__init__" else None
        return call_of(head or ast.unparse(node.func), arguments)
    if isinstance(node, ast.List):
        parts = [_expression(part, renamed) for part in node.elts]
        text = f"[{', '.join([part.text for part in parts])}]"
        return Expression(text, head="[", parts=tuple(parts))
    return Expression(renamed.get(id(node)) or ast.unparse(node))


def _common(methods: Sequence[list[str]]) -> list[str]:
    """The lines of methods; a comment stays where all classes have it."""
    return [
        column[0] if len(set(column)) == 1 else COMMENT.sub("", column[0])
        for column in zip(*methods, strict=True)
    ]


def _new_name(label: str, taken: Iterable[str]) -> str:
    base = LABELS.get(label, label)
    base = base if base.isidentifier() and not hasattr(builtins, base) else "size"
    further = (f"{base}_{number}" for number in count(2))
    return next(name for name in chain([base], further) if name not in taken)

"""A program as Python source: one statement for each call.

    def program(x0, weights):
        (w0, w1,) = weights
        v0 = conv2d(x0, w0, w1, (1, 1), (0, 0), (1, 1), 1)
        v1 = relu(v0)
        del v0
        return (v1,)

All names are made here: functions by the name that torch gives them, values by number. No string of
a file is in the source; strings and all that has no literal are bound as variables of the function.
"""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from onnxinterp.programs.aliases import is_torch
from onnxinterp.programs.calls import Call, Check, Program, Value
from onnxinterp.programs.functions import for_compiler, name_of

FILE = "<onnxinterp program>"
OWN_NAMES = re.compile(r"[xwcv]\d+|program|weights|slice|_")
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")  # Python would read others as another name
DEFINED = frozenset(["DeviationError", "__builtins__"])
OPERATORS = {
    "__add__": "{} + {}",
    "__sub__": "{} - {}",
    "__mul__": "{} * {}",
    "__truediv__": "{} / {}",
    "__getitem__": "{}[{}]",
}


class DeviationError(Exception):
    """The data of a call led to another branch or size than when the program was recorded."""


def compiled(program: Program) -> tuple[Callable[..., tuple[Any, ...]], str]:
    """The function of a program, called with its inputs and the list of its weights; its source."""
    writer = _Writer(program)
    source = writer.source()
    variables = writer.variables
    exec(compile(source, FILE, "exec"), variables)  # made of our own names alone
    return variables["program"], source


def with_defaults(program: Program) -> Callable[..., tuple[Any, ...]]:
    """The function of a program for `torch.compile`: it reads no globals, which would be guarded.

    What they would be are defaults of keyword arguments.
    """
    calls = [replace(call, function=for_compiler(call.function)) for call in program.calls]
    writer = _Writer(replace(program, calls=calls))
    head, rest = writer.source().split("\n", 1)
    names = [name for name in writer.variables if name not in DEFINED]
    scope: dict[str, Any] = {"DeviationError": DeviationError}
    if names:
        head = head.replace("weights)", f"weights, *, {', '.join(names)})")
    exec(compile(f"{head}\n{rest}", FILE, "exec"), scope)  # made of our own names alone
    function: Any = scope["program"]
    function.__kwdefaults__ = {name: writer.variables[name] for name in names}
    return cast("Callable[..., tuple[Any, ...]]", function)


class _Writer:
    """Writes the source of one program.

    Attributes:
        variables: what names in the source stand for.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.variables: dict[str, Any] = {"DeviationError": DeviationError}
        self._bound: dict[int, str] = {}
        self._names: dict[Value, str] = {}
        self._count = 0

    def source(self) -> str:
        """The source of the function `program`."""
        program = self.program
        arguments = [self._name(value, f"x{i}") for i, value in enumerate(program.inputs)]
        names = [self._name(value, f"w{i}") for i, (value, _) in enumerate(program.weights)]
        for i, (value, tensor) in enumerate(program.constants.items()):
            self.variables[self._name(value, f"c{i}")] = tensor
        lines = [f"def program({', '.join([*arguments, 'weights'])}):"]
        if names:
            lines.append(f"    ({', '.join(names)},) = weights")
        for call, dead in zip(program.calls, program.last_uses(), strict=True):
            lines += [f"    {line}" for line in self._statement(call)]
            if dead:
                lines.append(f"    del {', '.join([self._names[value] for value in dead])}")
        lines.append(f"    return {self._expression(tuple(program.outputs))}")
        return "\n".join(lines)

    def _name(self, value: Value, name: str) -> str:
        self._names[value] = name
        return name

    def _new(self, value: Value) -> str:
        if value not in self._names:
            self._count += 1
            self._names[value] = f"v{self._count}"
        return self._names[value]

    def _statement(self, call: Call) -> list[str]:
        text = self._call(call)
        if isinstance(call, Check):
            expected = self._expression(call.expected)
            test = f"{text} != {expected}"
            if _has_float(call.expected):  # 0.0 == -0.0, and nan != nan
                known = self._bind(repr(call.expected), "k")
                test = f"{self._bind(repr, 'repr')}({text}) != {known}"
            return [f"if {test}:", "    raise DeviationError"]
        targets = ["_" if value is None else self._new(value) for value in call.results]
        if not targets:
            return [text]
        return [f"{', '.join(targets)}{',' if call.is_many else ''} = {text}"]

    def _call(self, call: Call) -> str:
        function, args = call.function, call.args
        name = name_of(function)
        values = [self._expression(a) for a in args]
        if name in OPERATORS and len(args) == 2 and not call.kwargs:
            pairs = zip(values, args, strict=True)
            texts = [f"({t})" if isinstance(a, (int, float)) else t for t, a in pairs]
            return OPERATORS[name].format(*texts)
        if getattr(function, "__name__", "") == "__get__":
            return f"{values[0]}.{name}"
        values += [f"{key}={self._expression(value)}" for key, value in call.kwargs.items()]
        if isinstance(args[0] if args else None, Value) and _is_method(function, name):
            return f"{values[0]}.{name}({', '.join(values[1:])})"
        bound = self._bind(function, name if is_torch(call) else "step")
        return f"{bound}({', '.join(values)})"

    def _expression(self, structure: Any) -> str:
        kind = type(structure)
        if isinstance(structure, Value):
            return self._names[structure]
        if kind in (list, tuple, torch.Size):
            parts = [self._expression(part) for part in structure]
            if kind is list:
                return f"[{', '.join(parts)}]"
            return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
        if kind is slice:
            parts = [structure.start, structure.stop, structure.step]
            return f"slice({', '.join(map(self._expression, parts))})"
        if kind is dict:
            raise TypeError("no torch function takes a dict")
        if kind in (int, bool, type(None)) or (kind is float and math.isfinite(structure)):
            return repr(structure)
        return self._bind(structure, "k")

    def _bind(self, thing: Any, name: str) -> str:
        """The name of a variable that holds a thing."""
        if (found := self._bound.get(id(thing))) is not None:
            return found
        base = name if IDENTIFIER.fullmatch(name) and not keyword.iskeyword(name) else "function"
        base = f"{base}_" if OWN_NAMES.fullmatch(base) else base
        unique, number = base, 1
        while unique in self.variables:
            unique, number = f"{base}_{number}", number + 1
        self.variables[unique] = thing
        self._bound[id(thing)] = unique
        return unique


def _is_method(function: Any, name: str) -> bool:
    """Whether a function is the method of that name of each tensor."""
    return getattr(Tensor, name, None) is function


def _has_float(structure: Any) -> bool:
    if isinstance(structure, (list, tuple)):
        return any(map(_has_float, structure))
    return isinstance(structure, (float, complex))

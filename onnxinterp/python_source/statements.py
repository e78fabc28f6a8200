"""The statements of a body.

A value that one call reads, in order, is written inside that call, as far as a line holds it. A
variable whose value is not read any more is used again: `x = self.conv1(x)`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

from onnxinterp.programs.aliases import is_random, writes
from onnxinterp.programs.calls import Call, Value, values_in
from onnxinterp.programs.functions import name_of
from onnxinterp.python_source.bodies import Body, Choice, Layer, Size, reads_of
from onnxinterp.python_source.expressions import (
    WIDTH,
    Expression,
    Expressions,
    call_of,
    product,
    quoted,
)
from onnxinterp.python_source.sizes import BodySizes

MAX_DEPTH = 3  # calls inside each other in one statement
NAMES = ("x", "y", "z", "u", "v", "w", "p", "q", "r", "s", "t")


class Surroundings(Protocol):
    """What a body sees of the module around it."""

    def module(self, body: Body, function: Any) -> str:
        """The expression of a module inside, or of a layer."""
        ...

    def tensor(self, body: Body, value: Value) -> str | None:
        """The expression of a weight or a constant; None for other values."""
        ...

    def calls(self, body: Body) -> list[Call]:
        """The calls of a body, layers without a place of their own expanded."""
        ...

    def shape(self, value: Value) -> str:
        """The sizes of a value, for a comment."""
        ...


@dataclass
class _Pending:
    """A call that is written where its result is read."""

    call: Call
    value: Value
    expression: Expression
    freed: list[str]


class Statements:
    """Writes one body.

    Args:
        body: what is written.
        calls: its calls, layers without a place of their own expanded.
        names: value -> name of those that the body starts with.
        sizes: how its sizes are found.
        around: what it sees of the module.
        indent: blanks before each line.
    """

    def __init__(
        self,
        body: Body,
        calls: list[Call],
        names: Mapping[Value, str],
        sizes: BodySizes,
        around: Surroundings,
        indent: int = 8,
    ) -> None:
        self.body = body
        self.calls = calls
        self.sizes = sizes
        self.around = around
        self.indent = indent
        self.lines: list[str] = []
        self._names = dict(names)
        self._first = next(iter(names.values()), "")
        self._live = {*names.values(), *sizes.names.values()}
        self._uses = Counter(v for call in calls for v in reads_of(call))
        self._uses.update(values_in(body.outputs))
        self._pending: list[_Pending] = []
        self._expressions = Expressions(self._value, self._size, self._device)

    def write(self) -> list[str]:
        """All lines of the body."""
        self._read_sizes([v for v in self.body.inputs if isinstance(v, Value)])
        for call in self.calls:
            self._write_call(call)
        self._write_return()
        return self.lines

    def _value(self, value: Value) -> Expression:
        for pending in self._pending:
            if pending.value is value:
                return pending.expression
        if value in self._names:
            return Expression(self._names[value])
        text = self.around.tensor(self.body, value)
        assert text is not None, "a value is an input, a result, a weight or a constant"
        return Expression(text)

    def _size(self, size: Size) -> Expression:
        return product(self.sizes.text(size))

    def _device(self) -> Expression:
        if self._first:
            return Expression(f"{self._first}.device")
        for call in self.calls:
            layer = call.function
            held = layer.weights.values() if isinstance(layer, Layer) else reads_of(call)
            for value in held:
                if (text := self.around.tensor(self.body, value)) is not None:
                    return Expression(f"{text}.device")
        return Expression('torch.device("cpu")')

    def _write_call(self, call: Call) -> None:
        results = [v for v in call.results if isinstance(v, Value)]
        if _is_module(call) and results and all(v in self._names for v in results):
            return  # a module that returns what it is called with
        if isinstance(call.function, Choice):
            self._write_choice(call, call.function)
            return
        n_read = self._waiting_for([v for v in reads_of(call) if v not in self._names])
        expression = self._expression(call)
        if n_read and not self._is_short(expression, results):
            self._flush()
            n_read, expression = 0, self._expression(call)
        freed = self._free(call)
        rest = len(self._pending) - n_read
        for pending in self._pending[rest:]:
            freed = pending.freed + freed
        del self._pending[rest:]
        if len(call.results) == 1 == len(results) and self._can_wait(call, results[0]):
            self._pending.append(_Pending(call, results[0], expression, freed))
        else:
            self._flush()
            self._assign(call, expression, freed)

    def _write_choice(self, call: Call, choice: Choice) -> None:
        """Write an `if`: both branches assign the same variables."""
        self._flush()
        margin = " " * self.indent
        condition = self._expressions.of(call.args[0]).text
        targets = [self._new_name() for _ in call.results]
        for head, body in ((f"if {condition}:", choice.then), ("else:", choice.otherwise)):
            branch = Statements(
                body, self.around.calls(body), self._names, self.sizes, self.around, self.indent + 4
            )
            branch._live |= self._live
            branch._uses.update(dict.fromkeys(self._names, len(self.calls)))
            self.lines += [f"{margin}{head}", *branch.write_into(targets)]
        for name in self._free(call):
            self._live.discard(name)
        for value, name in zip(call.results, targets, strict=True):
            if isinstance(value, Value):
                self._names[value] = name
        self._read_sizes([v for v in call.results if isinstance(v, Value)])

    def write_into(self, targets: Sequence[str]) -> list[str]:
        """The lines of a branch, which assign its results."""
        if self.body.error:
            raised = call_of("ValueError", [Expression(quoted(self.body.error))])
            return raised.lines("raise ", self.indent)
        for call in self.calls:
            self._write_call(call)
        read = [v for v in values_in(self.body.outputs) if v not in self._names]
        if self._waiting_for(read) < len(self._pending):
            self._flush()
        for target, output in zip(targets, self.body.outputs, strict=True):
            expression = self._expressions.of(output)
            if expression.text != target:
                self.lines += expression.lines(f"{target} = ", self.indent)
        return self.lines or [f"{' ' * self.indent}pass"]

    def _new_name(self) -> str:
        name = next(n for n in chain(NAMES, _numbered()) if n not in self._live)
        self._live.add(name)
        return name

    def _waiting_for(self, read: list[Value]) -> int:
        """How many of those that wait last are read, in this order; others are written now."""
        waiting = [p.value for p in self._pending]
        read = [value for value in read if value in waiting]
        if read != waiting[len(waiting) - len(read) :]:
            self._flush()
            return 0
        return len(read)

    def _flush(self) -> None:
        taken, self._pending = self._pending, []
        for pending in taken:
            self._assign(pending.call, pending.expression, pending.freed)

    def _can_wait(self, call: Call, value: Value) -> bool:
        """Whether a result is read once, and may be computed where it is read."""
        return (
            self._uses[value] == 1
            and not call.is_many
            and value not in self.sizes.read
            and not isinstance(call.function, Choice)
            and not (_is_torch(call) and (writes(call) or is_random(name_of(call.function))))
        )

    def _is_short(self, expression: Expression, results: list[Value]) -> bool:
        longest = max([len(n) for n in self._live], default=1)
        width = self.indent + longest * max(len(results), 1) + 3 + len(expression.text)
        return width <= WIDTH and expression.depth <= MAX_DEPTH

    def _expression(self, call: Call) -> Expression:
        function = call.function
        if isinstance(function, (Body, Layer)):
            head = self.around.module(self.body, function)
            return call_of(head, [self._expressions.of(a) for a in call.args])
        return self._expressions.call(call)

    def _free(self, call: Call) -> list[str]:
        """Variables whose values are not read after a call."""
        freed = []
        for value in reads_of(call):
            self._uses[value] -= 1
            if not self._uses[value] and value in self._names:
                freed.append(self._names[value])
        return freed

    def _assign(self, call: Call, expression: Expression, freed: list[str]) -> None:
        results = [v if isinstance(v, Value) else None for v in call.results]
        read = [v for v in results if v is not None and self._uses[v]]
        for name in freed:
            self._live.discard(name)
        free = [name for name in freed if name in NAMES]
        is_in_place = all(v in self._names for v in results) and not _is_module(call)
        targets = []
        for value in results:
            if value is None or (not self._uses[value] and call.is_many):
                targets.append("_")
                continue
            if is_in_place:
                targets.append(self._names[value])
                continue
            name = next((n for n in chain(free, NAMES, _numbered()) if n not in self._live), "x")
            self._names[value] = name
            self._live.add(name)
            targets.append(name)
        joined = f"({targets[0]},)" if len(targets) == 1 and call.is_many else ", ".join(targets)
        before = f"{joined} = " if targets and not is_in_place else ""
        lines = expression.lines(before, self.indent)
        if len(lines) == 1 and len(read) == 1:
            comment = f"  # {self.around.shape(read[0])}"
            if len(lines[0] + comment) <= WIDTH:
                lines[0] += comment
        self.lines += lines
        for value in results:
            if value is not None and not self._uses[value]:
                self._live.discard(self._names.get(value, ""))
        self._read_sizes(read)

    def _read_sizes(self, values: list[Value]) -> None:
        """Write the variables of sizes that are read off some values."""
        for value in values:
            wanted = self.sizes.read.get(value, [])
            if not wanted:
                continue
            name = self._names[value]
            targets = [self.sizes.names[part] for _, part in wanted]
            sources = [f"{name}.shape[{axis}]" for axis, _ in wanted]
            if [axis for axis, _ in wanted] == list(range(len(value.shape))) and len(wanted) > 1:
                sources = [f"{name}.shape"]
            self.lines.append(f"{' ' * self.indent}{', '.join(targets)} = {', '.join(sources)}")

    def _write_return(self) -> None:
        read = [v for v in values_in(self.body.outputs) if v not in self._names]
        if self._waiting_for(read) < len(self._pending):
            self._flush()
        parts = [self._expressions.of(output) for output in self.body.outputs]
        text = ", ".join([part.text for part in parts])
        if self._pending and len(text) + self.indent + 7 > WIDTH:
            self._flush()
            parts = [self._expressions.of(output) for output in self.body.outputs]
            text = ", ".join([part.text for part in parts])
        if len(parts) == 1:
            lines = parts[0].lines("return ", self.indent)
        else:
            lines = Expression(text, head="(", parts=tuple(parts)).lines("return ", self.indent)
        if len(lines) == 1 and len(parts) == 1 and isinstance(self.body.outputs[0], Value):
            comment = f"  # {self.around.shape(self.body.outputs[0])}"
            if len(lines[0] + comment) <= WIDTH:
                lines[0] += comment
        self.lines += lines


def _is_module(call: Call) -> bool:
    return isinstance(call.function, Body)


def _is_torch(call: Call) -> bool:
    return not isinstance(call.function, (Body, Layer, Choice))


def _numbered() -> Iterator[str]:
    number = 1
    while True:
        yield f"x{number}"
        number += 1

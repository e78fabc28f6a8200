"""The classes of the modules of a tree: equal modules share one."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import chain, count
from typing import Any

import sympy
import torch
from torch import Tensor, nn

from onnxinterp.programs.calls import Call, Value
from onnxinterp.python_source.bodies import Body, Recorded, Size, bodies_of
from onnxinterp.python_source.constructors import constructor
from onnxinterp.python_source.expressions import Expression, call_of, quoted
from onnxinterp.python_source.families import families
from onnxinterp.python_source.simplified import is_chain
from onnxinterp.python_source.sizes import BodySizes, expression_of, name_symbols, printed
from onnxinterp.python_source.statements import NAMES, Statements
from onnxinterp.python_source.tree import FEW, Node, Tree, is_uniform

ROOT = "Net"
TAKEN = frozenset(["Net", "Tensor", "Path", "F", "nn", "math", "torch"])


class Classes:
    """Writes the classes of a tree.

    Attributes:
        lines: of all classes, those inside first.
    """

    def __init__(self, recorded: Recorded, tree: Tree, simplify: Any) -> None:
        self.recorded = recorded
        self.tree = tree
        self.simplify = simplify
        self.lines: list[str] = []
        self._made: dict[Node, Expression] = {}
        self._parameters: dict[str, list[str]] = {}
        self._names: set[str] = set(TAKEN)
        self._symbols = self._symbol_names()
        self._sizes = self._body_sizes()

    def _body_sizes(self) -> dict[Body, BodySizes]:
        """How the sizes of each body are found; callers pass what a body cannot find."""
        bodies = list(self.recorded.body.walk())
        callers = {inner: call for b in bodies for call in b.calls for inner in bodies_of(call)}
        found = {}
        for body in bodies:
            names = () if body.path else self.recorded.input_names
            taken = (*NAMES, *names, *self._symbols.values())
            found[body] = BodySizes(body, self._symbols, self.simplify, taken)
            passed = [Size(symbol) for symbol in found[body].passed]
            if passed:
                body.inputs += passed
                callers[body].args = (*callers[body].args, *passed)
        return found

    def write(self) -> list[str]:
        """The lines of all classes."""
        levels: dict[int, list[Node]] = {}
        for node in self.tree.root.walk():
            if node.path and self._list_kind(node) is None and node.layer is None:
                levels.setdefault(node.height(), []).append(node)
        for height in sorted(levels):
            self._write_level(levels[height])
        self._write_class(self.tree.root, ROOT, self._members(self.tree.root))
        return self.lines

    def _write_level(self, nodes: Sequence[Node]) -> None:
        """Write the classes of modules of which none is inside of another."""
        for places, family in families([self._members(n) for n in nodes], self._parameters):
            name = self._new_name(nodes[places[0]])
            self._parameters[name] = family.names
            self._write_class(nodes[places[0]], name, family.members)
            for place, numbers in zip(places, family.arguments, strict=True):
                arguments = [Expression(str(number)) for number in numbers]
                self._made[nodes[place]] = call_of(name, arguments)

    def _symbol_names(self) -> dict[sympy.Symbol, str]:
        """Names of all symbols, for comments."""
        values = [v for b in self.recorded.body.walk() for c in b.calls for v in c.results]
        shapes = [expression_of(size) for v in values if v is not None for size in v.shape]
        others = {s for e in shapes for s in getattr(self.simplify(e), "free_symbols", ())}
        taken = (*NAMES, *TAKEN, *self.recorded.input_names)
        return name_symbols(self.recorded.symbols, sorted(others, key=str), taken)

    def shape(self, value: Value) -> str:
        """The sizes of a value, for a comment."""
        parts = []
        for size in value.shape:
            expression = self.simplify(expression_of(size))
            parts.append(printed(expression, self._symbols))
        return f"[{', '.join(parts)}]"

    def calls(self, body: Body) -> list[Call]:
        """As in `statements.Surroundings`."""
        return self.tree.calls[body]

    def module(self, body: Body, function: Any) -> str:
        """As in `statements.Surroundings`."""
        return self.tree.module(body, function)

    def tensor(self, body: Body, value: Value) -> str | None:
        """As in `statements.Surroundings`."""
        return self.tree.tensor(body, value)

    def _constructor(self, node: Node) -> Expression:
        """The expression that makes a module."""
        if node.layer is not None:
            made = constructor(node.layer)
            assert made is not None, "the tree has checked it"
            return made
        kind = self._list_kind(node)
        return self._made[node] if kind is None else self._list(kind, node)

    def _list_kind(self, node: Node) -> str | None:
        """The class of torch that a module is, where it is a list of modules and nothing else."""
        has_own = bool(node.weights or node.constants)
        if has_own or not node.children or not all(name.isdigit() for name in node.children):
            return None
        if not node.bodies:
            return "nn.ModuleList"
        is_sequence = len(node.bodies) == 1 and is_chain(node.bodies[0])
        return "nn.Sequential" if is_sequence else None

    def _list(self, kind: str, node: Node) -> Expression:
        parts = self._children(node)
        if kind == "nn.Sequential":
            return call_of(kind, parts)
        if len({part.text for part in parts}) == 1 and len(parts) > 2:
            every = f"[{parts[0].text} for _ in range({len(parts)})]"
            return Expression(f"{kind}({every})", head=f"{kind}(", parts=(Expression(every),))
        return call_of(kind, [Expression(_listed(parts), head="[", parts=tuple(parts))])

    def _children(self, node: Node) -> list[Expression]:
        """What makes the modules of a list; there is nothing at some places."""
        numbers = {int(name): child for name, child in node.children.items() if name.isdigit()}
        return [
            self._constructor(numbers[i]) if i in numbers else call_of("nn.Identity", [])
            for i in range(max(numbers) + 1)
        ]

    def _write_class(self, node: Node, name: str, members: list[str]) -> None:
        base = "nn.ModuleList" if _is_list(node) else "nn.Module"
        self.lines += ["", "", f"class {name}({base}):", *members]

    def _new_name(self, node: Node) -> str:
        parts = [part for part in node.path if not part.isdigit()]
        base = node.kind or "".join(
            p.capitalize() for p in re.split(r"_+", parts[-1] if parts else "block")
        )
        if not node.kind and node.path[-1].isdigit():
            base += "Block"
        base = re.sub(r"\W", "", base) or "Block"
        further = (f"{base}{chr(ord('A') + n)}" if n < 26 else f"{base}{n}" for n in count(1))
        name = next(n for n in chain([base], further) if n not in self._names)
        self._names.add(name)
        return name

    def _members(self, node: Node) -> list[str]:
        """The lines of a class behind its name."""
        head = ["    def __init__(self) -> None:", "        super().__init__()"]
        made: list[str] = []
        named = node.children
        if _is_list(node):
            children = self._children(node)
            listed = Expression(_listed(children), head="[", parts=tuple(children))
            head[1:] = call_of("super().__init__", [listed]).lines("", 8)
            named = {name: child for name, child in named.items() if not name.isdigit()}
        for attribute, tensor in node.weights.items():
            made += _parameter(attribute, tensor)
        for attribute, tensor in node.constants.items():
            made += _constant(attribute, tensor)
        for attribute, child in named.items():
            made += self._constructor(child).lines(f"self.{attribute} = ", 8)
        if not node.path:
            for alias, path in self._ties():
                made += Expression(f"self{path}").lines(f"self{alias} = ", 8)
        methods: list[str] = []
        for number, body in enumerate(node.bodies):
            methods += ["", *self._method(body, f"part_{number + 1}" if number else "forward")]
        if not made and not _is_list(node):
            return methods[1:]
        return [*head, *made, *methods]

    def _ties(self) -> list[tuple[str, str]]:
        return [(_indexed(alias), _indexed(path)) for alias, path in self.tree.ties.items()]

    def _method(self, body: Body, name: str) -> list[str]:
        sizes = self._sizes[body]
        parameters, names = ["self"], {}
        free = iter(self.recorded.input_names if not body.path else NAMES)
        for given in body.inputs:
            if isinstance(given, Value):
                names[given] = next(free)
                parameters.append(f"{names[given]}: Tensor")
            else:
                assert isinstance(given, Size), "sizes and values are what a body takes"
                parameters.append(f"{sizes.names[self.simplify(given.expression)]}: int")
        many = len(body.outputs) != 1
        result = "tuple[Tensor, ...]" if many else "Tensor"
        head = call_of(name, [Expression(p) for p in parameters])
        lines = head.lines("def ", 4, f" -> {result}:")
        if not body.path:
            lines += self._conditions(body, names, sizes)
        calls = self.tree.calls[body]
        return [*lines, *Statements(body, calls, names, sizes, self).write()]

    def _conditions(self, body: Body, names: Mapping[Value, str], sizes: BodySizes) -> list[str]:
        """The lines that refuse sizes for which the network is not right."""
        inputs = list(names.values())
        found = [f"{inputs[i]}.shape[{axis}] == 1" for i, axis in self.recorded.fixed]
        for condition in self.recorded.conditions:
            text = sizes.of_inputs(body, condition, names)
            if text is not None:
                found.append(text)
        lines = []
        for text in found:
            condition = Expression(f"({text})", head="(", parts=(Expression(text),))
            lines += condition.lines("if not ", 8, ":")
            lines += call_of("ValueError", [Expression(quoted(text))]).lines("raise ", 12)
        return lines


def _is_list(node: Node) -> bool:
    """Whether a module has modules by number."""
    return any(name.isdigit() for name in node.children)


def _listed(parts: Sequence[Expression]) -> str:
    return f"[{', '.join([part.text for part in parts])}]"


def _indexed(path: str) -> str:
    """A path behind `self`, with numbers as indices."""
    return re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", f".{path}")


def _dtype(tensor: Tensor, default: torch.dtype = torch.float32) -> list[Expression]:
    return [] if tensor.dtype is default else [Expression(f"dtype={tensor.dtype}")]


def _parameter(name: str, tensor: Tensor) -> list[str]:
    """The line that declares a parameter or a buffer."""
    sizes = [Expression(str(size)) for size in tensor.shape] or [Expression("()")]
    empty = call_of("torch.empty", [*sizes, *_dtype(tensor)])
    rest = []
    kind = "nn.Parameter" if isinstance(tensor, nn.Parameter) else "nn.Buffer"
    if isinstance(tensor, nn.Parameter) and not tensor.requires_grad:
        rest = [Expression("requires_grad=False")]
    return call_of(kind, [empty, *rest]).lines(f"self.{name} = ", 8)


def _constant(name: str, tensor: Tensor) -> list[str]:
    """The line that declares a tensor that is no part of the state."""
    if is_uniform(tensor):
        number = Expression(_literal(tensor.flatten()[0].item()))
        shape = Expression(repr(tuple(tensor.shape)))
        made = call_of("torch.full", [shape, number, Expression(f"dtype={tensor.dtype}")])
    elif tensor.numel() > FEW or 0 in tensor.shape:
        sizes = [Expression(str(size)) for size in tensor.shape]
        made = call_of("torch.empty", [*sizes, *_dtype(tensor)])
    else:
        usual = torch.float32 if tensor.is_floating_point() else torch.int64
        usual = torch.bool if tensor.dtype is torch.bool else usual
        made = call_of(
            "torch.tensor", [Expression(_literal(tensor.tolist())), *_dtype(tensor, usual)]
        )
    return call_of("nn.Buffer", [made, Expression("persistent=False")]).lines(f"self.{name} = ", 8)


def _literal(numbers: Any) -> str:
    if isinstance(numbers, list):
        return f"[{', '.join(map(_literal, numbers))}]"
    if isinstance(numbers, float) and not math.isfinite(numbers):
        return "math.nan" if numbers != numbers else "-math.inf" if numbers < 0 else "math.inf"
    return repr(numbers)

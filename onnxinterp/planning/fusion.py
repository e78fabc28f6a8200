"""Several nodes that are one function in torch: a linear layer, GELU, attention.

An exporter spells out what ONNX had no operator for at its opset. Run node by node, GELU keeps five
tensors for the gradient where torch's own keeps one. Which nodes are one function is declared
beside the kernels, as a pattern built of them:

    @fuse((mul, "X", (sigmoid, "X")))
    def silu(X: Tensor) -> Tensor: ...

    (kernel, ...)   a node that this kernel serves, and what its inputs are; last may stand a dict
                    of attributes. Attributes that nobody names have their defaults
    "X"             any value, the same one wherever the name stands
    0.5, [1]        a constant that never trains, with this value in its type
    None            an input that is left out

The function is written like a kernel: positional parameters are the values of these names, None for
one that the pattern lacks; keyword-only parameters are constants and attributes of these names. It
gives what the nodes give, up to rounding; or NotImplemented, where shapes or types are others than
it is for: then the nodes run as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from inspect import signature
from typing import Any, get_type_hints

import torch

from onnxinterp.registry import COMMUTATIVE, ENGINE_KEYWORDS, FUSIONS, Kind, kind_of
from onnxinterp.runtime.interpreter import Step
from onnxinterp.values import Host


def fused(
    steps: Sequence[Step],
    outputs: Sequence[str],
    hosts: Mapping[str, Host],
    constants: Mapping[str, Any],
) -> list[Step]:
    """Steps in which all that match a pattern are one; it stands where their last one stood.

    They are left alone where somebody else reads a value between them.

    Args:
        steps: in order.
        outputs: what the plan gives: these values are made as the file has them.
        hosts: constants as plain numbers.
        constants: values that are known, by their names in the frame.
    """
    matcher = _Matcher(steps, hosts, constants)
    reads = Counter([*outputs, *(name for s in steps for name in s.reads)])
    gone: set[str] = set()  # first outputs of the steps that another one stands for
    result = []
    for step in reversed(steps):
        if step.outputs[0] in gone:
            continue
        for parts, made in matcher.found(step):
            inside = Counter(name for s in parts for name in s.reads)
            inner = {s.outputs[0] for s in parts} - {step.outputs[0]}
            if gone.isdisjoint(inner) and all(inside[name] == reads[name] for name in inner):
                gone |= inner
                step = made
                break
        result.append(step)
    return result[::-1]


@dataclass(frozen=True)
class _Match:
    """What the names of a pattern stand for, and the steps that its nodes are."""

    values: dict[str, str] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)


class _Matcher:
    """Compares patterns with the steps of a plan."""

    def __init__(
        self, steps: Sequence[Step], hosts: Mapping[str, Host], constants: Mapping[str, Any]
    ) -> None:
        self.hosts = hosts
        self.constants = constants
        self.order = {s.outputs[0]: i for i, s in enumerate(steps)}
        self.made = {s.outputs[0]: s for s in steps if s.direct and not s.updates}

    def found(self, root: Step) -> Iterator[tuple[list[Step], Step]]:
        """The steps of each match that ends with `root`, in order, and the one in their place."""
        for pattern, function in FUSIONS.get(root.kernel, ()):
            if not self._is_made(pattern, root.outputs[0]):
                continue
            positional, keywords = _parameters(function)
            for match in self._value(pattern, root.outputs[0], _Match(), keywords):
                parts = sorted(match.steps.values(), key=lambda s: self.order[s.outputs[0]])
                names = [match.values.get(name, "") for name in positional]
                yield parts, self._joined(function, names, match.constants, parts)

    def _is_made(self, pattern: Any, name: str) -> bool:
        """Whether the right kernels make a value, whatever else they are given: most are not."""
        if not isinstance(pattern, tuple):
            return True
        step = self.made.get(name)
        if step is None or step.kernel is not pattern[0]:
            return False
        orders = (step.inputs, step.inputs[::-1])[: 1 + (step.kernel in COMMUTATIVE)]
        return any(all(map(self._is_made, pattern[1:], names)) for names in orders)

    def _value(
        self, pattern: Any, name: str, match: _Match, keywords: Mapping[str, Kind]
    ) -> Iterator[_Match]:
        """All ways in which a value is what a part of a pattern says."""
        host = self.hosts.get(name.partition("\0")[0])
        if isinstance(pattern, tuple):
            step = self.made.get(name)
            if step is not None and step.kernel is pattern[0]:
                yield from self._node(pattern[1:], step, match, keywords)
        elif isinstance(pattern, str) and pattern in keywords:
            found = None if host is None else _constant(host, keywords[pattern])
            if found is not None and match.constants.get(pattern, found) == found:
                yield replace(match, constants={**match.constants, pattern: found})
        elif isinstance(pattern, str):
            if match.values.get(pattern, name) == name != "":
                yield replace(match, values={**match.values, pattern: name})
        elif not name if pattern is None else host is not None and _is(host, pattern):
            yield match

    def _node(
        self, arguments: Sequence[Any], step: Step, match: _Match, keywords: Mapping[str, Kind]
    ) -> Iterator[_Match]:
        wanted = arguments[-1] if arguments and isinstance(arguments[-1], dict) else {}
        arguments = [a for a in arguments if not isinstance(a, dict)]
        constants = dict(match.constants)
        assert step.node.kernel is not None
        for name, parameter in step.node.kernel.attributes.items():
            if name not in ENGINE_KEYWORDS:
                value = step.attributes.get(name, parameter.default)
                known = constants.setdefault(name, value) if name in keywords else parameter.default
                if value != wanted.get(name, known):
                    return
        given = [*step.inputs, *[""] * (len(arguments) - len(step.inputs))]
        arguments += [None] * (len(given) - len(arguments))
        steps = {**match.steps, step.outputs[0]: step}
        start = replace(match, constants=constants, steps=steps)
        yield from self._inputs(arguments, given, start, keywords)
        if step.kernel in COMMUTATIVE:
            yield from self._inputs(arguments, given[::-1], start, keywords)

    def _inputs(
        self,
        patterns: Sequence[Any],
        names: Sequence[str],
        match: _Match,
        keywords: Mapping[str, Kind],
    ) -> Iterator[_Match]:
        if not patterns:
            yield match
            return
        for first in self._value(patterns[0], names[0], match, keywords):
            yield from self._inputs(patterns[1:], names[1:], first, keywords)

    def _joined(
        self,
        function: Callable[..., Any],
        names: Sequence[str],
        attributes: dict[str, Any],
        parts: list[Step],
    ) -> Step:
        """One step for several: it reads what they read, and runs them if the function declines."""
        made = {s.outputs[0] for s in parts}
        reads = [name for s in parts for name in s.inputs if name not in made]
        known = {name: self.constants[name] for name in reads if name in self.constants}
        inputs = tuple(dict.fromkeys([*names, *(name for name in reads if name not in known)]))
        positions = [inputs.index(name) for name in names]

        def run(*args: Any, **attributes: Any) -> Any:
            result = function(*[args[i] for i in positions], **attributes)
            if result is not NotImplemented:
                return result
            values = {**known, **dict(zip(inputs, args, strict=True))}
            for step in parts:
                result = step.kernel(*[values[name] for name in step.inputs], **step.attributes)
                values[step.outputs[0]] = result
            return result

        run.__name__ = function.__name__
        return replace(parts[-1], kernel=run, inputs=inputs, attributes=attributes, kinds=())


@cache
def _parameters(function: Callable[..., Any]) -> tuple[tuple[str, ...], dict[str, Kind]]:
    """The names of a function's values, and of its constants with what it wants them as."""
    parameters, hints = signature(function).parameters.values(), get_type_hints(function)
    positional = tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)
    keywords = (p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
    return positional, {name: kind_of(hints[name]) for name in keywords}


def _constant(host: Host, kind: Kind) -> Any:
    """A constant as a function wants it; None where it is none. One element of rank 1 is a number.

    Exporters write scales of either rank; a function for which the rank matters must look itself.
    """
    if kind is Kind.LIST:
        return host.data if host.rank else None
    return host.numbers[0] if len(host.numbers) == 1 else None


def _is(host: Host, value: Any) -> bool:
    """Whether a constant is what a number, or a list of numbers, becomes in its type."""
    return bool(host.data == torch.tensor(value, dtype=host.dtype).tolist())

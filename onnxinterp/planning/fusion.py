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

from onnxinterp.kinds import Kind, kind_of
from onnxinterp.planning.constants import Constants
from onnxinterp.registry import COMMUTATIVE, ENGINE_KEYWORDS, FUSIONS
from onnxinterp.runtime.plan import Key, Step, onnx_name_of
from onnxinterp.values import Host


def fuse(
    steps: Sequence[Step], outputs: Sequence[Key], constants: Constants, *, by_module: bool = False
) -> list[Step]:
    """Replace the steps that match a pattern by one, in the place of their last one.

    They are left alone where another step reads a value between them.

    Args:
        steps: in order.
        outputs: of the plan: these values are computed as the file has them.
        constants: the known values.
        by_module: leave nodes of different torch modules alone.
    """
    matcher = _Matcher(steps, constants)
    reads = Counter([*outputs, *(key for s in steps for key in s.reads)])
    replaced: set[str] = set()  # first outputs of steps that are part of a fused one
    result = []
    for step in reversed(steps):
        if step.outputs[0] in replaced:
            continue
        for fused in matcher.matches(step):
            if by_module and len({s.node.scopes for s in fused.parts}) > 1:
                continue
            inside = Counter(key for s in fused.parts for key in s.reads)
            inner = {s.outputs[0] for s in fused.parts} - {step.outputs[0]}
            if not inner.isdisjoint(fused.reads):  # h + h, where h is a product
                continue
            if replaced.isdisjoint(inner) and all(inside[name] == reads[name] for name in inner):
                replaced |= inner
                step = fused
                break
        result.append(step)
    return result[::-1]


@dataclass(frozen=True)
class _Match:
    """What the names of a pattern stand for, and the steps that its nodes are."""

    values: dict[str, Key] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)


class _Matcher:
    """Compares patterns with the steps of a plan."""

    def __init__(self, steps: Sequence[Step], constants: Constants) -> None:
        self.constants = constants
        self.order = {s.outputs[0]: i for i, s in enumerate(steps)}
        self.made: dict[Key, Step] = {s.outputs[0]: s for s in steps if s.direct and not s.updates}

    def matches(self, root: Step) -> Iterator[Step]:
        """The fused step of each match whose last step is `root`."""
        fusions = FUSIONS.get(root.kernel)
        if fusions is None or root.outputs[0] not in self.made:
            return
        sources = {step.kernel for key in root.inputs if (step := self.made.get(key)) is not None}
        for pattern, function, needed in fusions:
            if not needed <= sources or not self._is_made(pattern, root.outputs[0]):
                continue
            positional, keywords = _parameters(function)
            for match in self._value(pattern, root.outputs[0], _Match(), keywords):
                parts = sorted(match.steps.values(), key=lambda s: self.order[s.outputs[0]])
                names = [match.values.get(name, "") for name in positional]
                yield self._fused(function, names, match.constants, tuple(parts))

    def _is_made(self, pattern: Any, key: Key) -> bool:
        """Whether the right kernels compute a value, whatever their other inputs."""
        if not isinstance(pattern, tuple):
            return True
        step = self.made.get(key)
        if step is None or step.kernel is not pattern[0]:
            return False
        orders = (step.inputs, step.inputs[::-1])[: 1 + (step.kernel in COMMUTATIVE)]
        return any(all(map(self._is_made, pattern[1:], keys)) for keys in orders)

    def _value(
        self, pattern: Any, key: Key, match: _Match, keywords: Mapping[str, Kind]
    ) -> Iterator[_Match]:
        """All ways in which a value is what a part of a pattern says."""
        host = self.constants.hosts.get(onnx_name_of(key))
        if isinstance(pattern, tuple):
            step = self.made.get(key)
            if step is not None and step.kernel is pattern[0]:
                yield from self._node(pattern[1:], step, match, keywords)
        elif isinstance(pattern, str) and pattern in keywords:
            found = None if host is None else _constant(host, keywords[pattern])
            if found is not None and match.constants.get(pattern, found) == found:
                yield replace(match, constants={**match.constants, pattern: found})
        elif isinstance(pattern, str):
            if match.values.get(pattern, key) == key != "":
                yield replace(match, values={**match.values, pattern: key})
        elif not key if pattern is None else host is not None and _is(host, pattern):
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
        keys: Sequence[Key],
        match: _Match,
        keywords: Mapping[str, Kind],
    ) -> Iterator[_Match]:
        if not patterns:
            yield match
            return
        for first in self._value(patterns[0], keys[0], match, keywords):
            yield from self._inputs(patterns[1:], keys[1:], first, keywords)

    def _fused(
        self,
        function: Callable[..., Any],
        keys: Sequence[Key],
        attributes: dict[str, Any],
        parts: tuple[Step, ...],
    ) -> Step:
        """One step for several: it reads what they read, and runs them if the function declines."""
        made = {s.outputs[0] for s in parts}
        reads = [key for s in parts for key in s.inputs if key not in made]
        forms = self.constants.forms
        known = {key: forms[key] for key in reads if key in forms}
        inputs = tuple(dict.fromkeys([*keys, *(key for key in reads if key not in known)]))
        positions = [inputs.index(key) for key in keys]

        def run(*args: Any, **attributes: Any) -> Any:
            result = function(*[args[i] for i in positions], **attributes)
            if result is not NotImplemented:
                return result
            values = {**known, **dict(zip(inputs, args, strict=True))}
            for step in parts:
                result = step.kernel(*[values[key] for key in step.inputs], **step.attributes)
                values[step.outputs[0]] = result
            return result

        run.__name__ = function.__name__
        last = parts[-1]
        return Step(
            node=last.node,
            kernel=run,
            inputs=inputs,
            outputs=last.outputs,
            attributes=attributes,
            parts=parts,
            fused=function,
        )


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
        return host.numbers if host.rank == 1 else None
    return host.numbers[0] if len(host.numbers) == 1 and host.rank <= 1 else None


def _is(host: Host, value: Any) -> bool:
    """Whether a constant is what a number, or a list of numbers, becomes in its type."""
    return bool(host.data == torch.tensor(value, dtype=host.dtype).tolist())

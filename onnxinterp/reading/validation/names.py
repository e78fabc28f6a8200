"""Who makes a value and who reads it: one maker a scope, and no reader without one.

A subgraph sees what is around it and may give a name another meaning, which the specification
forbids, but which leaves no doubt about what is meant. A function sees its own names alone. The
order of nodes does not matter; that they do not need each other in a circle is found out when they
are sorted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from onnx import FunctionProto, GraphProto, NodeProto

from onnxinterp.errors import InvalidModelError
from onnxinterp.reading.validation.traversal import Body


def defined_names(body: Body, nodes: Sequence[NodeProto]) -> set[str]:
    """The names of the values that a graph or a function makes, inputs and tensors included.

    Raises:
        InvalidModelError: one is made twice or has no name, or a function does not make its output.
    """
    outputs = [name for node in nodes for name in node.output if name]
    if isinstance(body, FunctionProto):
        inputs = list(body.input)
        _refuse_twice(body.output, "gives")
        if missing := [name for name in body.output if name not in set(outputs)]:
            raise InvalidModelError(f"gives {missing[0]!r}, which none of its nodes makes")
    else:
        inputs = [info.name for info in body.input]
        stored = _stored(body)
        taken = set(inputs)
        outputs += [name for name in stored if name not in taken]
    made = inputs + outputs
    own = set(made)
    if len(own) < len(made):
        _refuse_twice(made, "defines")
    if "" in own:
        raise InvalidModelError("has an input or a tensor without a name")
    if bytes in map(type, own):  # what protobuf gives for text that is no UTF-8
        raise InvalidModelError("has a name that is no UTF-8")
    return own


def _stored(body: GraphProto) -> list[str]:
    names = [tensor.name for tensor in body.initializer]
    names += [tensor.values.name for tensor in body.sparse_initializer]
    _refuse_twice(names, "stores")
    return names


def _refuse_twice(names: Iterable[str], verb: str) -> None:
    names = list(names)
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        what = repr(twice) if twice else "a value without a name"
        raise InvalidModelError(f"{verb} {what} twice")


def first_undefined(names: Iterable[str], scopes: Sequence[set[str]]) -> str | None:
    """The first of some names that nothing in these scopes makes; absent inputs have none."""
    for name in names:
        if name and not any(name in scope for scope in scopes):
            return name
    return None

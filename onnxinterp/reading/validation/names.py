"""Names of values: each is defined once in a scope, and defined where it is read.

A subgraph sees the values around it. It may define a name again: the specification forbids this,
but the meaning is clear. A function sees only its own names. The order of nodes does not matter
here; cycles are found when the nodes are sorted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from onnx import FunctionProto, NodeProto

from onnxinterp.errors import InvalidModelError
from onnxinterp.reading.validation.traversal import Body


def defined_names(body: Body, nodes: Sequence[NodeProto]) -> set[str]:
    """The names that a graph or a function defines: inputs, stored tensors, outputs of nodes.

    Raises:
        InvalidModelError: one is defined twice or is empty, or an output of a function is missing.
    """
    outputs = [name for node in nodes for name in node.output if name]
    if isinstance(body, FunctionProto):
        inputs = list(body.input)
        _check_unique(body.output, "returns")
        if missing := set(body.output).difference(outputs):
            raise InvalidModelError(f"returns {min(missing)!r}, which none of its nodes computes")
    else:
        inputs = [info.name for info in body.input]
        stored = [tensor.name for tensor in body.initializer]
        stored += [tensor.values.name for tensor in body.sparse_initializer]
        _check_unique(stored, "stores")
        given = set(inputs)  # an initializer may be the default of an input
        outputs += [name for name in stored if name not in given]
    own = _check_unique(inputs + outputs, "defines")
    if "" in own:
        raise InvalidModelError("has an input or a tensor without a name")
    return own


def _check_unique(names: Sequence[str], verb: str) -> set[str]:
    unique = set(names)
    if len(unique) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        what = repr(twice) if twice else "a value without a name"
        raise InvalidModelError(f"{verb} {what} twice")
    return unique


def first_undefined(names: Iterable[str], scopes: Sequence[set[str]]) -> str | None:
    """The first name that no scope defines; "" is an absent input."""
    for name in names:
        if name and name not in scopes[0] and not any(name in scope for scope in scopes):
            return name
    return None

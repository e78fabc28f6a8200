"""Checks that a node's inputs have types that its schema admits, where the file declares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache

import torch

from onnxinterp.dtypes import CARRIER, onnx_name
from onnxinterp.errors import InvalidModelError
from onnxinterp.graph.ir import Graph, Node
from onnxinterp.graph.types import Formal, bind, formals_for, formals_of
from onnxinterp.registry import lookup
from onnxinterp.schemas import schema_of

NUMERIC_KINDS = frozenset({"floating", "integer", "complex"})
STRUCTURES = ("tensor", "sequence", "map")
"""What `ValueInfo.kind` may be here; an optional may stand for what it holds."""


def check_types(graph: Graph, stored: Mapping[str, int]) -> None:
    """Check the inputs of all nodes against their schemas.

    Element types are checked for inputs of the graph and stored tensors only, and by kind:
    kernels also compute with numbers that the schema does not admit, but not with floating-point
    numbers and integers where both must have the same type. Structures (tensor, sequence, map) are
    followed through each graph. Nodes that run by a user's own kernel are not checked.

    Args:
        graph: the main graph.
        stored: weight -> its ONNX type; 0 where it is unknown.

    Raises:
        InvalidModelError: an input has a type that the schema does not admit.
    """
    types = {i.name: i.elem_type for i in graph.inputs if i.kind == "tensor"} | dict(stored)
    structures = {i.name: i.kind for i in graph.inputs if i.kind != "unknown"}
    structures |= dict.fromkeys(stored, "tensor")
    registered = cache(lookup)
    for node in graph.walk():
        called = node.op_type, node.opset, node.domain
        schema = schema_of(*called)
        if schema is None or node.kernel is not registered(*called):
            continue
        inputs, outputs = formals_of(schema)
        inputs = formals_for(inputs, len(node.inputs))
        known = [types.get(name, 0) for name in node.inputs]
        if any(known):
            _check_element_types(node, inputs, known)
        _check_structures(node, inputs, outputs, structures)


def _check_element_types(node: Node, formals: Sequence[Formal], types: Sequence[int]) -> None:
    bound = bind(formals, types)
    for name, formal, elem_type in zip(node.inputs, formals, types, strict=False):
        if not elem_type or not formal.is_parameter:
            continue
        kind, kinds = _kind(elem_type), _kinds(formal.element_types)
        if kind not in kinds and (kind not in NUMERIC_KINDS or kinds.isdisjoint(NUMERIC_KINDS)):
            _refuse(node, name, f"must be {' or '.join(sorted(kinds))}", onnx_name(elem_type))
        first = bound.get(formal.parameter, elem_type) if formal.is_homogeneous else elem_type
        if _kind(first) != kind:
            must = f"must have the same type as the other inputs ({onnx_name(first)})"
            _refuse(node, name, must, onnx_name(elem_type))


def _check_structures(
    node: Node,
    inputs: Sequence[Formal],
    outputs: tuple[Formal, ...],
    structures: dict[str, str],
) -> None:
    """Check the structures of a node's inputs; store those of its outputs."""
    known = [structures.get(name, "") for name in node.inputs]
    for name, formal, structure in zip(node.inputs, inputs, known, strict=False):
        admitted = formal.structures
        if structure in STRUCTURES and admitted.isdisjoint({structure, "optional"}):
            _refuse(node, name, f"must be a {' or '.join(sorted(admitted))}", f"a {structure}")
    bound = bind(inputs, known)
    formals = formals_for(outputs, len(node.outputs))
    for name, formal in zip(node.outputs, formals, strict=False):
        only = next(iter(formal.structures)) if len(formal.structures) == 1 else ""
        structures[name] = only or bound.get(formal.parameter, "")


def _refuse(node: Node, name: str, must: str, found: str) -> None:
    what = f"node {node.name!r} ({node.op_type}): {name!r}"
    raise InvalidModelError(f"{what} {must}, got {found}")


@lru_cache(maxsize=1024)
def _kinds(element_types: frozenset[int]) -> frozenset[str]:
    return frozenset(map(_kind, element_types))


@lru_cache(maxsize=64)
def _kind(elem_type: int) -> str:
    """Floating, integer, complex, or a type of its own."""
    dtype = CARRIER.get(elem_type)
    if dtype is None or dtype is torch.bool:
        return onnx_name(elem_type)
    return "floating" if dtype.is_floating_point else "complex" if dtype.is_complex else "integer"

"""Whether what goes into a node is of the types that its schema admits, as far as the file says."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import onnx.defs
import torch

from onnxinterp.dtypes import CARRIER, onnx_name
from onnxinterp.errors import InvalidModelError
from onnxinterp.graph.ir import Graph, Node
from onnxinterp.planning.carriers import admitted_types
from onnxinterp.registry import lookup, schema_of

NUMERIC_KINDS = frozenset({"floating", "integer", "complex"})
STRUCTURE = {"tensor": "tensor", "seq": "sequence", "map": "map"}
"""How the type strings of schemas begin -> `ValueInfo.kind`; optionals stand for what they hold."""


def check_types(graph: Graph, stored: Mapping[str, int]) -> None:
    """Refuse nodes whose inputs are of types that the schema does not admit, or not together.

    Only tensors whose type the file tells are judged: inputs of the graph, and what it stores; and
    by its kind alone: kernels compute with other numbers than the schema admits, too, but not with
    floating numbers beside integers where these must be alike. Kernels of one's own take all.
    Tensors, sequences and maps are told apart through the whole of each graph.

    Args:
        graph: the main graph.
        stored: weight -> the number of its ONNX type; 0 where that is not told.

    Raises:
        InvalidModelError: there is one; the message names it.
    """
    types = {i.name: i.elem_type for i in graph.inputs if i.kind == "tensor"} | dict(stored)
    structures = {i.name: i.kind for i in graph.inputs} | dict.fromkeys(stored, "tensor")
    for node in graph.walk():
        schema = schema_of(node.op_type, node.opset, node.domain)
        if schema is None or node.kernel is not lookup(node.op_type, node.opset, node.domain):
            continue
        told = [types.get(name, 0) for name in node.inputs]
        if any(told):
            _check(node, schema, told)
        _tell_apart(node, schema, structures)


def _tell_apart(node: Node, schema: onnx.defs.OpSchema, structures: dict[str, str]) -> None:
    """Refuse a tensor for a sequence, and the like; note what the outputs are."""
    admitted, bound = _structures(schema), dict[str, str]()
    for index, name in enumerate(node.inputs if schema.inputs else ()):
        formal = schema.inputs[min(index, len(schema.inputs) - 1)]
        structure, wanted = structures.get(name, ""), admitted[formal.type_str]
        if structure in STRUCTURE.values() and wanted.isdisjoint({structure, "optional"}):
            what = f"node {node.name!r} ({node.op_type}): {name!r} is a {structure}"
            raise InvalidModelError(f"{what}, where a {' or '.join(sorted(wanted))} is wanted")
        if formal.is_homogeneous:
            bound.setdefault(formal.type_str, structure)
    for index, name in enumerate(node.outputs if schema.outputs else ()):
        formal = schema.outputs[min(index, len(schema.outputs) - 1)]
        kinds = admitted[formal.type_str]
        if name:
            bound_to = bound.get(formal.type_str, "")
            structures[name] = next(iter(kinds)) if len(kinds) == 1 else bound_to


@lru_cache(maxsize=1024)
def _structures(schema: onnx.defs.OpSchema) -> dict[str, frozenset[str]]:
    """Type of a schema's inputs and outputs -> what it may be: kinds, and others as they begin."""
    given = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    formals = {f.type_str for f in (*schema.inputs, *schema.outputs)}
    begin = {t: {text.partition("(")[0] for text in given.get(t, [t])} for t in formals}
    return {t: frozenset(STRUCTURE.get(b, b) for b in found) for t, found in begin.items()}


def _check(node: Node, schema: onnx.defs.OpSchema, told: list[int]) -> None:
    if not schema.inputs:
        return
    admitted, bound = admitted_types(schema), dict[str, int]()
    for index, elem_type in enumerate(told):
        formal = schema.inputs[min(index, len(schema.inputs) - 1)]
        if not elem_type or formal.type_str not in admitted:
            continue
        kind, kinds = _kind(elem_type), {_kind(t) for t in admitted[formal.type_str]}
        fits = kind in kinds or (kind in NUMERIC_KINDS and not kinds.isdisjoint(NUMERIC_KINDS))
        what = f"node {node.name!r} ({node.op_type}): {node.inputs[index]!r}"
        if not fits:
            raise InvalidModelError(f"{what} is {onnx_name(elem_type)}, which it does not take")
        other = bound.setdefault(formal.type_str, elem_type) if formal.is_homogeneous else elem_type
        if _kind(other) != kind:
            types = f"{onnx_name(elem_type)} beside {onnx_name(other)}"
            raise InvalidModelError(f"{what} is {types}; they must be alike")


@lru_cache(maxsize=64)
def _kind(elem_type: int) -> str:
    """Floating, integer, complex, or a type of its own."""
    dtype = CARRIER.get(elem_type)
    if dtype is None or dtype is torch.bool:
        return onnx_name(elem_type)
    return "floating" if dtype.is_floating_point else "complex" if dtype.is_complex else "integer"

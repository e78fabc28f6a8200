"""Whether what goes into a node is of the types that its schema admits, as far as the file says."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch

from onnxinterp.carriers import admitted_types
from onnxinterp.dtypes import CARRIER, onnx_name
from onnxinterp.errors import InvalidModelError
from onnxinterp.graph import Graph, Node
from onnxinterp.registry import lookup, schema_of

NUMBERS = frozenset({"floating", "integer", "complex"})


def check_types(graph: Graph, stored: Mapping[str, int]) -> None:
    """Refuse nodes whose inputs are of types that the schema does not admit, or not together.

    Only tensors whose type the file tells are judged: inputs of the graph, and what it stores; and
    by its kind alone: kernels compute with other numbers than the schema admits, too, but not with
    floating numbers beside integers where these must be alike. Kernels of one's own take all.

    Args:
        graph: the main graph.
        stored: weight -> the number of its ONNX type; 0 where that is not told.

    Raises:
        InvalidModelError: there is one; the message names it.
    """
    types = {i.name: i.elem_type for i in graph.inputs if i.kind == "tensor"} | dict(stored)
    for node in graph.walk():
        told = [types.get(name, 0) for name in node.inputs]
        if any(told) and node.kernel is lookup(node.op_type, node.opset, node.domain):
            _check(node, told)


def _check(node: Node, told: list[int]) -> None:
    schema = schema_of(node.op_type, node.opset, node.domain)
    if schema is None or not schema.inputs:
        return
    admitted, bound = admitted_types(schema), dict[str, int]()
    for index, elem_type in enumerate(told):
        formal = schema.inputs[min(index, len(schema.inputs) - 1)]
        if not elem_type or formal.type_str not in admitted:
            continue
        kind, kinds = _kind(elem_type), {_kind(t) for t in admitted[formal.type_str]}
        fits = kind in kinds or (kind in NUMBERS and not kinds.isdisjoint(NUMBERS))
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

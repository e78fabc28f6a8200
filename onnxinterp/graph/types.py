"""Type inference: the ONNX element types of a node's outputs, from its schema and its inputs.

A schema has type parameters ("T", "T1"). Inputs bind them; outputs have the type that is bound.
0 is the number of a type that is not known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
import onnx.defs
from onnx import TensorProto

from onnxinterp.dtypes import ONNX_TYPE, onnx_name
from onnxinterp.errors import InvalidModelError
from onnxinterp.graph.ir import Graph, Node
from onnxinterp.schemas import schema_of

TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "output_datatype")
"""Attributes that hold the element type of an output."""

ELEMENT = {f"tensor({onnx_name(t)})": t for t in TensorProto.DataType.values()}
"""Type string of a schema -> element type."""

STRUCTURE = {"seq": "sequence"}
"""How a type string begins -> `ValueInfo.kind`, where they differ."""

T = TypeVar("T")


class Formal(NamedTuple):
    """An input or an output as its schema declares it.

    Attributes:
        parameter: the type parameter, or the type string where there is no choice.
        is_homogeneous: whether all values of a variadic one have the same type.
        element_types: the element types that the schema admits.
        structures: what else it admits of a value, as in `ValueInfo.kind`.
        is_parameter: whether `parameter` is one of the schema's type parameters.
    """

    parameter: str
    is_homogeneous: bool
    element_types: frozenset[int]
    structures: frozenset[str]
    is_parameter: bool


def type_of(value: Any) -> int:
    """The ONNX type of a constant; 0 where its dtype stands for several."""
    if isinstance(value, np.ndarray):
        return TensorProto.STRING
    return ONNX_TYPE.get(value.dtype, 0)


@lru_cache(maxsize=1024)
def formals_of(schema: onnx.defs.OpSchema) -> tuple[tuple[Formal, ...], tuple[Formal, ...]]:
    """The inputs and the outputs that a schema declares."""
    parameters = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}

    def formal(declared: onnx.defs.OpSchema.FormalParameter) -> Formal:
        type_strings = parameters.get(declared.type_str, [declared.type_str])
        elements = (re.search(r"tensor\(\w+\)", string) for string in type_strings)
        structures = {string.partition("(")[0] for string in type_strings}
        return Formal(
            declared.type_str,
            declared.is_homogeneous,
            frozenset(ELEMENT[m[0]] for m in elements if m and m[0] in ELEMENT),
            frozenset(STRUCTURE.get(s, s) for s in structures),
            declared.type_str in parameters,
        )

    return tuple(map(formal, schema.inputs)), tuple(map(formal, schema.outputs))


def formals_for(formals: tuple[Formal, ...], count: int) -> tuple[Formal, ...]:
    """One formal for each of `count` values: the last one is repeated; none where there is none."""
    return formals[:count] + formals[-1:] * (count - len(formals))


def bind(formals: Sequence[Formal], types: Sequence[T]) -> dict[str, T]:
    """Type parameter -> its type: that of the first value whose type is known."""
    bound: dict[str, T] = {}
    for formal, type_ in zip(formals, types, strict=False):
        if type_ and formal.is_homogeneous:
            bound.setdefault(formal.parameter, type_)
    return bound


def infer_types(graph: Graph, known: Mapping[str, int]) -> dict[str, int]:
    """The ONNX type of each value, in subgraphs too; 0 where it is unknown.

    Args:
        graph: the main graph.
        known: the types of its weights and constants.

    Raises:
        InvalidModelError: no types can be inferred for a node.
    """
    types = dict(known)
    _infer_types(graph, types)
    return types


def _infer_types(graph: Graph, types: dict[str, int]) -> None:
    types.update({i.name: i.elem_type for i in graph.inputs if i.elem_type})
    for node in graph.nodes:
        bodies = []
        for body in node.subgraphs.values():
            if len(body.inputs) == len(node.inputs):  # as passed where undeclared
                passed = zip(body.inputs, node.inputs, strict=True)
                types.update({i.name: types.get(n, 0) for i, n in passed})
            _infer_types(body, types)
            if node.kernel is None or not node.kernel.subgraph_of:
                bodies.append([o.elem_type or types.get(o.name, 0) for o in body.outputs])
        inputs = [types.get(name, 0) for name in node.inputs]
        try:
            types.update(zip(node.outputs, output_types(node, inputs, bodies), strict=True))
        except Exception as error:
            message = f"node {node.name!r} ({node.op_type}, opset {node.opset}): {error}"
            raise InvalidModelError(message) from error


def output_types(
    node: Node, inputs: Sequence[int], bodies: Sequence[Sequence[int]] = ()
) -> tuple[int, ...]:
    """The ONNX types of a node's outputs; 0 where neither its schema nor its subgraphs tell.

    A sequence or an optional has the type of its elements.

    Args:
        node: the node.
        inputs: the types of its inputs, 0 where unknown.
        bodies: the types of the outputs of its subgraphs; the last ones are the node's.
    """
    count = len(node.outputs)
    if bodies:
        aligned = [([0] * count + list(types))[-count:] for types in bodies]
        return tuple(next(filter(None, types), 0) for types in zip(*aligned, strict=True))
    schema = schema_of(node.op_type, node.opset, node.domain)
    infer = node.kernel.infer_output_type if node.kernel is not None else None
    if schema is None or not schema.outputs:
        types = (0,) * count
        return types if infer is None else (infer(node.attributes, inputs), *types[1:])
    declared, outputs = formals_of(schema)
    bound = bind(formals_for(declared, len(inputs)), inputs)
    attributes = node.attributes
    named = next((t for a in TYPE_ATTRIBUTES if isinstance(t := attributes.get(a), int)), 0)
    likely = (_candidates(o, declared, bound, named) for o in formals_for(outputs, count))
    types = tuple([next(filter(None, candidates), 0) for candidates in likely])
    return types if infer is None else (infer(attributes, inputs), *types[1:])


def _candidates(
    output: Formal, inputs: Sequence[Formal], bound: Mapping[str, int], named: int
) -> Iterator[int]:
    """The types that an output may have, the surest first; `named` is that of an attribute."""
    if not output.is_homogeneous:
        return
    yield bound.get(output.parameter, 0)
    if len(output.element_types) == 1:
        yield next(iter(output.element_types))
    yield named
    # an input that admits the same types: T of a sequence S made of it, T1 where T2 is its like
    admitted = {i.parameter: i.element_types for i in inputs if i.is_parameter}
    yield from (t for p, t in bound.items() if admitted.get(p) == output.element_types)

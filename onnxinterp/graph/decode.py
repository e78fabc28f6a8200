"""Decodes protobuf messages: bodies of graphs and functions, under the names that the file has.

A body is decoded once. `build` makes a graph of it: the main graph and its subgraphs once, the body
of a function once per call.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
)

from onnxinterp.graph.ir import ValueInfo, value_info
from onnxinterp.graph.scopes import scopes_of
from onnxinterp.reading.toposort import toposort
from onnxinterp.reading.validation.operators import (
    ATTRIBUTE_FIELDS,
    GRAPH_TYPES,
    domain_of,
)
from onnxinterp.reading.validation.structure import opsets_of


class Attribute(NamedTuple):
    """An attribute of a node, or the default of an attribute of a function.

    Attributes:
        name: its name.
        reference: the attribute of the enclosing function that it takes its value from, or "".
        value: the decoded value: strings as str, graphs as `GraphBody`, other messages as they are;
            None for a reference.
        proto: the message.
    """

    name: str
    reference: str
    value: Any
    proto: AttributeProto


class NodeFields(NamedTuple):
    """A decoded node.

    Attributes:
        op_type: operator name.
        domain: "" for ai.onnx.
        overload: which of several functions of one name it calls.
        name: the node's name, or "".
        inputs: names of values; "" is an absent input.
        outputs: names of values, up to the last one that has a name.
        unnamed: number of outputs after these.
        attributes: its attributes.
        scopes: the paths of the torch modules it came from, outermost first.
        proto: the message.
    """

    op_type: str
    domain: str
    overload: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    unnamed: int
    attributes: tuple[Attribute, ...]
    scopes: tuple[str, ...]
    proto: NodeProto


class GraphBody(NamedTuple):
    """A decoded graph; its nodes in topological order."""

    name: str
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    stored: dict[str, TensorProto | SparseTensorProto]
    nodes: tuple[NodeFields, ...]


class FunctionBody(NamedTuple):
    """A decoded function; its nodes in topological order.

    Attributes:
        inputs: names of its inputs.
        outputs: names of its outputs.
        defaults: attribute -> value where a call does not give one.
        graphs: the defaults that are graphs.
        opsets: the opsets it imports: domain -> version.
        nodes: its nodes.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    defaults: dict[str, Any]
    graphs: tuple[Attribute, ...]
    opsets: dict[str, int]
    nodes: tuple[NodeFields, ...]


def parse_graph(proto: GraphProto) -> GraphBody:
    """Decode a graph with its subgraphs.

    Raises:
        InvalidModelError: its nodes depend on each other in a cycle.
    """
    stored: dict[str, TensorProto | SparseTensorProto] = {
        **{t.name: t for t in proto.initializer},
        **{s.values.name: s for s in proto.sparse_initializer},
    }
    inputs, outputs = (tuple(map(value_info, infos)) for infos in (proto.input, proto.output))
    return GraphBody(proto.name, inputs, outputs, stored, _parse_nodes(proto))


def parse_function(proto: FunctionProto) -> FunctionBody:
    """Decode a function with its subgraphs.

    Raises:
        InvalidModelError: its nodes depend on each other in a cycle.
    """
    attributes = _parse_attributes(proto.attribute_proto)
    return FunctionBody(
        tuple(proto.input),
        tuple(proto.output),
        {a.name: a.value for a in attributes if a.proto.type not in GRAPH_TYPES},
        tuple(a for a in attributes if a.proto.type in GRAPH_TYPES),
        opsets_of(proto.opset_import, 0),
        _parse_nodes(proto),
    )


def _parse_nodes(body: GraphProto | FunctionProto) -> tuple[NodeFields, ...]:
    return tuple([_parse_node(node) for node in toposort(body.node)])


def _parse_node(proto: NodeProto) -> NodeFields:
    outputs = list(proto.output)
    count = len(outputs)
    while outputs and not outputs[-1]:
        outputs.pop()
    return NodeFields(
        proto.op_type,
        domain_of(proto.domain),
        proto.overload,
        proto.name,
        tuple(proto.input),
        tuple(outputs),
        count - len(outputs),
        _parse_attributes(proto.attribute),
        scopes_of(proto),
        proto,
    )


def _parse_attributes(protos: Iterable[AttributeProto]) -> tuple[Attribute, ...]:
    return tuple([_parse_attribute(proto) for proto in protos])


def _parse_attribute(proto: AttributeProto) -> Attribute:
    reference = proto.ref_attr_name
    return Attribute(proto.name, reference, None if reference else attribute_value(proto), proto)


def attribute_value(proto: AttributeProto) -> Any:
    """The decoded value of an attribute, which is no reference."""
    field = ATTRIBUTE_FIELDS[proto.type]
    value = getattr(proto, field.name)
    if field.element is GraphProto:
        return [parse_graph(v) for v in value] if field.is_list else parse_graph(value)
    if field.element is str:
        return [_string(v) for v in value] if field.is_list else _string(value)
    return list(value) if field.is_list else value


def _string(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def has_type(value: Any, attribute_type: int) -> bool:
    """Whether a decoded value is of an attribute type; messages are of any type.

    A reference to an attribute of the function may leave the type undefined: then any is right.
    """
    field = ATTRIBUTE_FIELDS.get(attribute_type)
    if field is None or field.element not in (float, int, str):
        return True
    if not field.is_list:
        return type(value) is field.element
    return isinstance(value, list) and all(type(v) is field.element for v in value)

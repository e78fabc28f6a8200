"""What the messages of graphs and nodes say, in Python's own types."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
)

from onnxinterp.graph.ir import ValueInfo, value_info
from onnxinterp.reading.validation.operators import GRAPH_TYPES, domain_of, label_of

Attribute: TypeAlias = "tuple[str, str, AttributeProto]"  # its name, what it refers to, it


def _scope(node: NodeProto) -> str:
    """The path of the torch module a node came from: torch's newer exporter notes it.

    The note is a list of ever longer paths, then the name of the operation; a module called again
    has `@` and a number behind its path.
    """
    notes = (str(p.value) for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes")
    quoted = re.findall(r"'([^']*)'", next(notes, ""))
    return quoted[-2].partition("@")[0] if len(quoted) > 1 else ""


class NodeFields(NamedTuple):
    """What a node says.

    Attributes:
        label: its name, or what stands for it where it has none.
        outputs: up to the last that has a name.
        unnamed: how many others follow.
    """

    op_type: str
    domain: str
    overload: str
    name: str
    label: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    unnamed: int
    attributes: tuple[Attribute, ...]
    scope: str


def parse_node(proto: NodeProto) -> NodeFields:
    """Read a node."""
    wanted = max((i for i, name in enumerate(proto.output, 1) if name), default=0)
    return NodeFields(
        proto.op_type,
        domain_of(proto.domain),
        proto.overload,
        proto.name,
        label_of(proto),
        tuple(proto.input),
        tuple(proto.output[:wanted]),
        len(proto.output) - wanted,
        attributes_of(proto.attribute),
        _scope(proto),
    )


class GraphFields(NamedTuple):
    """What a graph says, but for its nodes."""

    name: str
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    stored: dict[str, TensorProto | SparseTensorProto]


def parse_graph(proto: GraphProto) -> GraphFields:
    """Read a graph but for its nodes."""
    stored: dict[str, TensorProto | SparseTensorProto] = {
        **{t.name: t for t in proto.initializer},
        **{s.values.name: s for s in proto.sparse_initializer},
    }
    inputs, outputs = (tuple(map(value_info, infos)) for infos in (proto.input, proto.output))
    return GraphFields(proto.name, inputs, outputs, stored)


class Signature(NamedTuple):
    """What a function says, but for its nodes.

    Attributes:
        inputs: names of its inputs.
        outputs: names of its outputs.
        defaults: attributes that need not be given.
        graphs: those of them that are graphs, which each call has of its own.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    defaults: tuple[Attribute, ...]
    graphs: tuple[Attribute, ...]


def signature_of(function: FunctionProto) -> Signature:
    """Read a function but for its nodes."""
    attributes = attributes_of(function.attribute_proto)
    graphs = tuple(a for a in attributes if a[2].type in GRAPH_TYPES)
    others = tuple(a for a in attributes if a[2].type not in GRAPH_TYPES)
    return Signature(tuple(function.input), tuple(function.output), others, graphs)


def output_names(protos: Iterable[NodeProto]) -> tuple[str, ...]:
    """The names of what nodes make."""
    return tuple(name for proto in protos for name in proto.output if name)


def attributes_of(attributes: Iterable[AttributeProto]) -> tuple[Attribute, ...]:
    """Read attributes but for their values."""
    return tuple((a.name, a.ref_attr_name, a) for a in attributes)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


ATTRIBUTE_VALUE: dict[int, Callable[[AttributeProto], Any]] = {
    AttributeProto.FLOAT: lambda a: a.f,
    AttributeProto.INT: lambda a: a.i,
    AttributeProto.STRING: lambda a: _text(a.s),
    AttributeProto.TENSOR: lambda a: a.t,
    AttributeProto.SPARSE_TENSOR: lambda a: a.sparse_tensor,
    AttributeProto.TYPE_PROTO: lambda a: a.tp,
    AttributeProto.FLOATS: lambda a: list(a.floats),
    AttributeProto.INTS: lambda a: list(a.ints),
    AttributeProto.STRINGS: lambda a: [_text(s) for s in a.strings],
    AttributeProto.TENSORS: lambda a: list(a.tensors),
    AttributeProto.SPARSE_TENSORS: lambda a: list(a.sparse_tensors),
    AttributeProto.TYPE_PROTOS: lambda a: list(a.type_protos),
}
LISTED: dict[int, type] = {
    AttributeProto.FLOATS: float,
    AttributeProto.INTS: int,
    AttributeProto.STRINGS: str,
}
SINGLE: dict[int, type] = {
    AttributeProto.FLOAT: float,
    AttributeProto.INT: int,
    AttributeProto.STRING: str,
}


def is_of(value: Any, kind: int) -> bool:
    """Whether the value of an attribute is one of a type; graphs and tensors count as any."""
    if kind in LISTED:
        return isinstance(value, list) and all(type(v) is LISTED[kind] for v in value)
    return kind not in SINGLE or type(value) is SINGLE[kind]

"""What a model says, decoded: `building` makes it, `planning` reads it.

    Model
        Graph           inputs, outputs and ordered nodes of the main graph or of a subgraph
            Node        one operator call: its kernel, value names and decoded attributes
            ValueInfo   an input or output: name, type, shape
        Tie             a weight that shares its tensor in the file

Every value of a model has a name of its own, across subgraphs and functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import onnx
import torch
from onnx import TensorProto

from onnxinterp.dtypes import CARRIER, onnx_name
from onnxinterp.errors import InvalidModelError, MissingOp
from onnxinterp.registry import KERNELS, NEWEST, Kernel


@dataclass(frozen=True)
class ValueInfo:
    """A graph input or output: its type as far as the file declares it.

    Attributes:
        name: the ONNX name.
        elem_type: the ONNX number of the element type, of a sequence's elements or a map's values;
            0 where unknown.
        shape: a size, a symbol or None per dimension; None where the rank is unknown.
        kind: "tensor", "sequence", "optional", "map" or "unknown".
        key_type: the ONNX number of the type of a map's keys, also where a sequence holds maps.
    """

    name: str
    elem_type: int = 0
    shape: tuple[int | str | None, ...] | None = None
    kind: str = "unknown"
    key_type: int = 0

    @property
    def dtype(self) -> torch.dtype | None:
        """The torch dtype; None for strings and where the file does not say."""
        return CARRIER.get(self.elem_type)

    def __str__(self) -> str:
        if self.kind != "tensor":
            return f"{self.name}: {self.type_text}"
        dims = "?" if self.shape is None else ", ".join(str(d) if d else "?" for d in self.shape)
        return f"{self.name}: {self.type_text}[{dims}]"

    @property
    def type_text(self) -> str:
        """The type without the shape: "float", "sequence of int64", "map of string to float"."""
        element = onnx_name(self.elem_type) if self.elem_type else "?"
        if self.key_type:
            element = f"map of {onnx_name(self.key_type)} to {element}"
        if self.kind in ("tensor", "map"):
            return element
        return f"{self.kind} of {element}" if self.elem_type else self.kind


def value_info(proto: onnx.ValueInfoProto, name: str | None = None) -> ValueInfo:
    """Decode the declared type of a value."""
    kind = proto.type.WhichOneof("value") or "unknown"
    name = proto.name if name is None else name
    if kind not in ("tensor_type", "sparse_tensor_type"):
        key_type, elem_type = _element_types(proto.type)
        return ValueInfo(name, elem_type, kind=kind.removesuffix("_type"), key_type=key_type)
    tensor = getattr(proto.type, kind)
    if not tensor.HasField("shape"):
        return ValueInfo(name, tensor.elem_type, None, "tensor")
    shape = tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else d.dim_param or None
        for d in tensor.shape.dim  # some exporters write -1 for a size they do not know
    )
    return ValueInfo(name, tensor.elem_type, shape, "tensor")


def _element_types(proto: onnx.TypeProto) -> tuple[int, int]:
    """The types of the keys and of the elements at the bottom of a type; 0 where there is none."""
    kind = proto.WhichOneof("value")
    if kind == "map_type":
        return proto.map_type.key_type, _element_types(proto.map_type.value_type)[1]
    if kind in ("sequence_type", "optional_type"):
        return _element_types(getattr(proto, kind).elem_type)
    if kind in ("tensor_type", "sparse_tensor_type"):
        return 0, getattr(proto, kind).elem_type
    return 0, 0


@dataclass(frozen=True)
class WeightRef:
    """In place of an attribute that a kernel wants as a tensor: the weight that holds it."""

    name: str


@dataclass(frozen=True, eq=False)
class Node:
    """One call of an operator.

    Attributes:
        op_type: operator name.
        domain: "" for ai.onnx.
        name: the node's name, or one made of its first output.
        opset: the opset version the call is written in.
        inputs: names of values; "" is an absent input.
        outputs: names of values.
        attributes: decoded; tensors stay protos until a kernel's signature says what they are for.
        kernel: what serves it; None where nothing does.
        scope: the path of the torch module it came from, where the exporter wrote it down.
        is_copy: it stands for another node, which keeps the state they share (see `extraction`).
        prepared: what the kernel's `prepare` made of the attributes.
    """

    op_type: str
    domain: str
    name: str
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    kernel: Kernel | None
    scope: str = ""
    is_copy: bool = False
    prepared: Any = None

    @cached_property
    def subgraphs(self) -> dict[str, Graph]:
        """Attribute name -> the graph it holds: the body of a Loop, the branches of an If."""
        return {k: v for k, v in self.attributes.items() if isinstance(v, Graph)}

    @cached_property
    def weights(self) -> dict[str, str]:
        """Attribute name -> name of the weight it holds."""
        return {k: v.name for k, v in self.attributes.items() if isinstance(v, WeightRef)}

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """All it depends on: its inputs, weights in attributes, what its subgraphs capture."""
        captured = (name for graph in self.subgraphs.values() for name in graph.captures)
        return tuple(dict.fromkeys([*filter(None, self.inputs), *self.weights.values(), *captured]))

    def missing(self) -> MissingOp:
        """The entry of this node in the error that lists what is not supported."""
        served = tuple(sorted(KERNELS.get((self.domain, self.op_type), {})))
        newest = NEWEST.get(self.domain)
        return MissingOp(self.domain, self.op_type, self.opset, self.name, served, newest)


@dataclass(frozen=True, eq=False)
class Graph:
    """Ordered nodes between inputs and outputs; a subgraph also reads values around it."""

    name: str
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    nodes: tuple[Node, ...]

    @cached_property
    def captures(self) -> tuple[str, ...]:
        """Names that are read but not made here: outer values and weights."""
        made = {i.name for i in self.inputs}.union(o for n in self.nodes for o in n.outputs)
        reads = [r for n in self.nodes for r in n.reads] + [o.name for o in self.outputs]
        return tuple(r for r in dict.fromkeys(reads) if r not in made)

    @cached_property
    def depth(self) -> int:
        """How many graphs stand in each other below it."""
        values = (v for node in self.nodes for v in node.attributes.values())
        return max((1 + v.depth for v in values if isinstance(v, Graph)), default=0)

    @cached_property
    def straight_through(self) -> frozenset[str]:
        """Values all of whose readers take floating numbers in place of integers."""
        taken: set[str] = set()
        others = {o.name for o in self.outputs}
        for node in self.nodes:
            kernel = node.kernel
            for index, name in enumerate(node.inputs):
                parameter = kernel.parameter(index) if kernel else None
                takes = kernel and parameter and parameter.name in kernel.accepts_float_for_int
                (taken if takes else others).add(name)
            others.update(set(node.reads).difference(node.inputs))
        return frozenset(taken - others)

    def pruned(self, outputs: Sequence[ValueInfo]) -> Graph:
        """The same graph with other outputs and without the nodes they do not need."""
        needed, nodes = {o.name for o in outputs}, []
        for node in reversed(self.nodes):
            if not needed.isdisjoint(node.outputs):
                needed.update(node.reads)
                nodes.append(node)
        return Graph(self.name, self.inputs, tuple(outputs), tuple(reversed(nodes)))

    def graphs(self) -> Iterable[Graph]:
        """Itself and all subgraphs."""
        yield self
        for node in self.nodes:
            for value in node.attributes.values():
                if isinstance(value, Graph):
                    yield from value.graphs()

    def walk(self) -> Iterable[Node]:
        """All nodes, those of subgraphs included."""
        for node in self.nodes:
            yield node
            for value in node.attributes.values():
                if isinstance(value, Graph):
                    yield from value.walk()


Holder: TypeAlias = "TensorProto | onnx.SparseTensorProto | onnx.AttributeProto | Node"
"""What holds a weight: a tensor, the floats of an attribute, or a Constant node."""


class Tie(NamedTuple):
    """How the file has a weight that was made of another one's tensor.

    Attributes:
        origin: the name it is read under.
        readers: the nodes that read it: first output, and which input; None for the input of the
            Identity that makes it.
        together: whether the file would not show it any more if only others of the same origin
            became tensors of their own.
    """

    origin: str
    readers: tuple[tuple[str, int | None], ...]
    together: bool


@dataclass(frozen=True, eq=False)
class Model:
    """A whole model, decoded but for its tensors.

    Attributes:
        graph: the main graph.
        tensors: weight name -> what holds it.
        opset_imports: domain ("" for ai.onnx) -> version.
        producer: name and version of what wrote the file.
        protos: first output of a node -> its proto: of Constant nodes that hold a weight, and of
            all nodes that stand in no function.
        ties: weight that was made of another one's tensor -> how the file has it.
    """

    graph: Graph
    tensors: dict[str, Holder]
    opset_imports: dict[str, int]
    producer: str = ""
    ir_version: int = 0
    metadata: dict[str, str] = field(default_factory=dict)
    protos: dict[str, onnx.NodeProto] = field(default_factory=dict)
    ties: dict[str, Tie] = field(default_factory=dict)

    def infos(self, names: Sequence[str] | None) -> tuple[ValueInfo, ...]:
        """What the file declares of some values; None: of the graph's outputs.

        Raises:
            InvalidModelError: the graph has no such value.
        """
        graph = self.graph
        if names is None:
            return graph.outputs
        declared = {v.name: v for v in (*graph.inputs, *graph.outputs)}
        made = {o for n in graph.nodes for o in n.outputs} | declared.keys() | self.tensors.keys()
        if unknown := ", ".join([repr(name) for name in names if name not in made]):
            raise InvalidModelError(f"the graph has no values called {unknown}")
        return tuple(declared.get(name, ValueInfo(name)) for name in names)

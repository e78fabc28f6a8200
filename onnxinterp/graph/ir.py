"""The decoded model: `build` makes it, planning reads it.

    Model
        Graph           inputs, outputs and ordered nodes of the main graph or of a subgraph
            Node        one operator call: its kernel, value names and decoded attributes
            ValueInfo   an input or output: name, type, shape
        Tie             a weight that shares its tensor with others in the file

The name of a value is unique in the model, across subgraphs and functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import onnx
import torch
from onnx import TensorProto

from onnxinterp.dtypes import CARRIER, onnx_name
from onnxinterp.errors import InvalidModelError, MissingOp, UnsupportedOpError, plain
from onnxinterp.graph.scopes import path_of
from onnxinterp.lazy import lazy
from onnxinterp.registry import KERNELS, REFUSED, Kernel
from onnxinterp.schemas import NEWEST


@dataclass(frozen=True)
class ValueInfo:
    """A graph input or output and the type that the file declares for it.

    Attributes:
        name: the ONNX name.
        elem_type: the ONNX element type, also of a sequence's elements or a map's values; 0 where
            it is unknown.
        shape: for each dimension its size, its symbol, or None; None where the rank is unknown.
        kind: "tensor", "sequence", "optional", "map" or "unknown".
        key_type: the ONNX type of a map's keys, also for a sequence of maps; otherwise 0.
    """

    name: str
    elem_type: int = 0
    shape: tuple[int | str | None, ...] | None = None
    kind: str = "unknown"
    key_type: int = 0

    @property
    def dtype(self) -> torch.dtype | None:
        """The torch dtype; None for strings and where the type is unknown."""
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


def value_info(proto: onnx.ValueInfoProto) -> ValueInfo:
    """Decode the declared type of a value."""
    name, kind = proto.name, proto.type.WhichOneof("value") or "unknown"
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
    """The types of the keys and of the innermost elements; 0 where there are none."""
    kind = proto.WhichOneof("value")
    if kind == "map_type":
        return proto.map_type.key_type, _element_types(proto.map_type.value_type)[1]
    if kind in ("sequence_type", "optional_type"):
        return _element_types(getattr(proto, kind).elem_type)
    if kind in ("tensor_type", "sparse_tensor_type"):
        return 0, getattr(proto, kind).elem_type
    return 0, 0


MAX_REPR_NAME_BYTES = 100
MAX_REPR_NAMES = 12  # of each list of names
NO_SUBGRAPHS: Mapping[str, Graph] = {}  # one for all nodes


@dataclass(frozen=True)
class WeightRef:
    """Replaces an attribute that a kernel takes as a tensor: the name of the weight."""

    name: str


@dataclass(frozen=True, eq=False)
class Node:
    """One call of an operator.

    Attributes:
        op_type: operator name.
        domain: "" for ai.onnx.
        name: the node's name, or that of its first output.
        opset: the opset version that defines the call.
        inputs: names of values; "" is an absent input.
        outputs: names of values.
        attributes: name -> value: numbers, strings and lists of them as Python objects, subgraphs
            as `Graph`, tensors that are weights as `WeightRef`, other messages as they are.
        kernel: the kernel that runs it; None where there is none.
        scopes: the torch modules in whose calls it was recorded, outermost first (`scopes`).
        is_copy: whether it is a copy of another node, which alone updates their common state (see
            `extract`).
        prepared: what the kernel's `prepare` returned for the attributes.
    """

    op_type: str
    domain: str
    name: str
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    kernel: Kernel | None
    scopes: tuple[str, ...] = ()
    is_copy: bool = False
    prepared: Any = None

    def __repr__(self) -> str:
        """As `Conv conv1 (x, conv1.weight) -> y`; of bounded length, whatever the names are."""
        op, name = plain(self.op_type, MAX_REPR_NAME_BYTES), plain(self.name, MAX_REPR_NAME_BYTES)
        domain = f"{plain(self.domain, MAX_REPR_NAME_BYTES)}::" if self.domain else ""
        return f"{domain}{op} {name} ({_listed(self.inputs)}) -> {_listed(self.outputs)}"

    @property
    def scope(self) -> str:
        """The path of the innermost torch module it came from; "" where none is known."""
        return path_of(self.scopes[-1]) if self.scopes else ""

    @lazy
    def subgraphs(self) -> Mapping[str, Graph]:
        """Attribute -> subgraph."""
        return {n: v for n, v in self.attributes.items() if isinstance(v, Graph)} or NO_SUBGRAPHS

    @lazy
    def weights(self) -> Mapping[str, str]:
        """Attribute -> name of the weight it holds."""
        return {n: v.name for n, v in self.attributes.items() if isinstance(v, WeightRef)}

    @lazy
    def reads(self) -> tuple[str, ...]:
        """All names it depends on: inputs, weights in attributes, captures of its subgraphs."""
        reads = [*filter(None, self.inputs), *self.weights.values()]
        for graph in self.subgraphs.values():
            reads.extend(graph.captures)
        return tuple(dict.fromkeys(reads))

    def missing(self) -> MissingOp:
        """The entry of this node in the list of unsupported operators."""
        versions = tuple(sorted(KERNELS.get((self.domain, self.op_type), {})))
        newest = NEWEST.get(self.domain)
        advice = REFUSED.get((self.domain, self.op_type), "")
        return MissingOp(self.domain, self.op_type, self.opset, self.name, versions, newest, advice)


@dataclass(frozen=True, eq=False)
class Graph:
    """A graph or subgraph: nodes in topological order.

    Attributes:
        name: its name in the file.
        inputs: in the order of the file; initializers that are inputs too are among them.
        outputs: in the order of the file.
        nodes: each after those whose outputs it reads.
    """

    name: str
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    nodes: tuple[Node, ...]

    def __repr__(self) -> str:
        """As `Graph main (x) -> y, 12 nodes`."""
        inputs, outputs = (_listed([v.name for v in vs]) for vs in (self.inputs, self.outputs))
        name = plain(self.name, MAX_REPR_NAME_BYTES)
        return f"Graph {name} ({inputs}) -> {outputs}, {len(self.nodes)} nodes"

    @lazy
    def captures(self) -> tuple[str, ...]:
        """Names that are read but not defined here: outer values and weights."""
        own = {i.name for i in self.inputs}.union(o for n in self.nodes for o in n.outputs)
        reads = [r for n in self.nodes for r in n.reads] + [o.name for o in self.outputs]
        return tuple(r for r in dict.fromkeys(reads) if r not in own)

    @lazy
    def depth(self) -> int:
        """How deep subgraphs are nested in it."""
        inner = (g for node in self.nodes for g in node.subgraphs.values())
        return max((1 + graph.depth for graph in inner), default=0)

    @lazy
    def straight_through(self) -> frozenset[str]:
        """Values whose readers all accept floating-point numbers in place of integers."""
        accepted: set[str] = set()
        others = {o.name for o in self.outputs}
        for node in self.nodes:
            kernel = node.kernel
            for index, name in enumerate(node.inputs):
                parameter = kernel.parameter(index) if kernel else None
                accepts = kernel and parameter and parameter.name in kernel.accepts_float_for_int
                (accepted if accepts else others).add(name)
            others.update(set(node.reads).difference(node.inputs))
        return frozenset(accepted - others)

    def pruned(self, outputs: Sequence[ValueInfo]) -> Graph:
        """The same graph with other outputs, without the nodes that these do not depend on."""
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
            for graph in node.subgraphs.values():
                yield from graph.graphs()

    def walk(self) -> Iterable[Node]:
        """All nodes; those of its subgraphs follow a node."""
        for node in self.nodes:
            yield node
            for graph in node.subgraphs.values():
                yield from graph.walk()


def _listed(names: Sequence[str]) -> str:
    """The first names, each cut; an absent input is `_`."""
    shown = [plain(name, MAX_REPR_NAME_BYTES) or "_" for name in names[:MAX_REPR_NAMES]]
    more = len(names) - len(shown)
    return ", ".join([*shown, f"{more} more"] if more else shown)


def check_kernels(graph: Graph) -> None:
    """Check that each node has a kernel.

    Raises:
        UnsupportedOpError: operators are missing; all are listed.
    """
    missing = [node.missing() for node in graph.walk() if node.kernel is None]
    if missing:
        raise UnsupportedOpError({(m.domain, m.op_type): m for m in reversed(missing)}.values())


Holder: TypeAlias = "TensorProto | onnx.SparseTensorProto | onnx.AttributeProto | Node"
"""What stores a weight: a tensor, the floats of an attribute, or a Constant node."""


class Tie(NamedTuple):
    """How the file stores a weight that was separated from another one's tensor.

    Attributes:
        origin: the name of the tensor in the file.
        readers: the nodes that read it: first output and index of the input; the index is None for
            the Identity whose output it is.
        together: whether all weights of this origin must become tensors of their own together: the
            file would no longer show the tie if only the others did.
    """

    origin: str
    readers: tuple[tuple[str, int | None], ...]
    together: bool


@dataclass(frozen=True, eq=False)
class Model:
    """A whole model, decoded except for the data of its tensors.

    Attributes:
        graph: the main graph.
        tensors: weight name -> what stores it.
        opset_imports: domain ("" for ai.onnx) -> version.
        producer: name and version of the program that wrote the file.
        ir_version: the version of the file format.
        metadata: the file's metadata.
        protos: first output of a node -> its message, for Constant nodes that are weights and for
            all nodes outside of functions.
        ties: weight that was separated from another one's tensor -> how the file stores it.
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
        """The declared types of some values; those of the graph's outputs for None.

        Raises:
            InvalidModelError: the graph has no such value.
        """
        graph = self.graph
        if names is None:
            return graph.outputs
        declared = {v.name: v for v in (*graph.inputs, *graph.outputs)}
        known = {o for n in graph.nodes for o in n.outputs} | declared.keys() | self.tensors.keys()
        if unknown := ", ".join([repr(name) for name in names if name not in known]):
            raise InvalidModelError(f"the graph has no values called {unknown}")
        return tuple(declared.get(name, ValueInfo(name)) for name in names)

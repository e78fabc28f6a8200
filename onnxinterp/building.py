"""From a ModelProto to a Model: nodes in order, attributes decoded, functions opened, names unique.

Calls of functions, those the model ships and those an operator's schema gives as its meaning, are
replaced by their bodies. Names of the main graph stay verbatim, names in subgraphs and functions
get a suffix where they clash.
"""

from __future__ import annotations

import re
from collections import ChainMap, Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx
from google.protobuf.message import Message
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    NodeProto,
    TensorProto,
    numpy_helper,
)

from onnxinterp.errors import InvalidModelError, UnsafeModelError
from onnxinterp.extraction import extract
from onnxinterp.graph import Graph, Holder, Model, Node, WeightRef, value_info
from onnxinterp.limits import Limits
from onnxinterp.registry import Kernel, lookup, naming
from onnxinterp.validation.operators import FunctionKey, domain_of, label_of, schema_function
from onnxinterp.validation.structure import depth_of, functions_of, opsets_of

Scope: TypeAlias = "ChainMap[str, str]"  # name in the file -> name in the whole model

GRAPH_TYPES = (AttributeProto.GRAPH, AttributeProto.GRAPHS)


def build(
    proto: onnx.ModelProto,
    kernels: Mapping[str, Kernel] | None = None,
    limits: Limits = Limits(),
) -> Model:
    """Decode a model that `validation` has passed.

    Args:
        proto: the parsed file.
        kernels: "domain::Op" (or "Op") -> kernel that takes precedence in this model.
        limits: of them `nodes`, for parts of the graph that are copied.

    Raises:
        InvalidModelError: nodes need each other in a circle, or attributes are not what a kernel
            makes something of.
        UnsafeModelError: copies of parts of the graph have too many nodes.
    """
    builder = _Builder(proto, kernels or {}, limits)
    graph = builder.graph(proto.graph, ChainMap(), builder.opsets)
    metadata = {p.key: p.value for p in proto.metadata_props}
    producer = f"{proto.producer_name} {proto.producer_version}".strip()
    return Model(
        graph=graph,
        tensors=builder.tensors,
        opset_imports=builder.opsets,
        producer=producer,
        ir_version=proto.ir_version,
        metadata=metadata,
        protos=builder.protos,
    )


def _free_names(node: NodeProto) -> Iterable[str]:
    """Names that a node reads around it: its inputs, what its attributes name, its subgraphs."""
    yield from node.input
    names_values = naming(node.op_type, node.domain)
    for attribute in node.attribute:
        if attribute.name in names_values:
            yield _text(attribute.s)
        for graph in (attribute.g, *attribute.graphs) if attribute.type in GRAPH_TYPES else ():
            own = {i.name for i in graph.input}.union(o for n in graph.node for o in n.output)
            reads = [name for inner in graph.node for name in _free_names(inner)]
            yield from (r for r in (*reads, *(o.name for o in graph.output)) if r not in own)


def sort(nodes: Sequence[NodeProto]) -> list[NodeProto]:
    """The nodes in an order in which every value is made before it is read.

    A list that is already sorted, as the specification asks for, keeps its order.

    Raises:
        InvalidModelError: the nodes depend on each other in a circle.
    """
    maker = {o: i for i, n in enumerate(nodes) for o in n.output if o}
    needs = [{maker[r] for r in _free_names(n) if r in maker} for n in nodes]
    if all(max(need, default=-1) < i for i, need in enumerate(needs)):
        return list(nodes)
    users: list[list[int]] = [[] for _ in nodes]
    for i, need in enumerate(needs):
        for j in need:
            users[j].append(i)
    waiting = [len(need) for need in needs]
    ready = [i for i, count in enumerate(waiting) if not count]
    for i in ready:  # grows while it is walked
        for user in users[i]:
            waiting[user] -= 1
            if not waiting[user]:
                ready.append(user)
    if len(ready) < len(nodes):
        stuck = next(n for n, count in zip(nodes, waiting, strict=True) if count)
        raise InvalidModelError(f"the graph has a cycle through node {label_of(stuck)!r}")
    return [nodes[i] for i in ready]


def _scope(node: NodeProto) -> str:
    """The path of the torch module a node came from: torch's newer exporter notes it.

    The note is a list of ever longer paths, then the name of the operation; a module called again
    has `@` and a number behind its path.
    """
    notes = (p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes")
    quoted = re.findall(r"'([^']*)'", next(notes, ""))
    return quoted[-2].partition("@")[0] if len(quoted) > 1 else ""


@dataclass(frozen=True)
class _Context:
    """Where a node stands: the names around it, its opsets, the function it is part of."""

    scope: Scope
    opsets: dict[str, int]
    bound: Mapping[str, Any] = field(default_factory=dict)  # attributes of the function call
    functions: tuple[FunctionKey, ...] = ()
    results: frozenset[str] = frozenset()  # outputs of that function: named by its caller


class _Builder:
    """Decodes one model; holds what is unique in it: value names, functions, tensors."""

    def __init__(
        self, proto: onnx.ModelProto, kernels: Mapping[str, Kernel], limits: Limits
    ) -> None:
        self.kernels = kernels
        self.limits = limits
        self.opsets = opsets_of(proto.opset_import, proto.ir_version)
        self.functions = functions_of(proto)
        self.tensors: dict[str, Holder] = {}
        self.protos: dict[str, NodeProto] = {}
        self._taken: set[str] = {""}
        self._copies: Counter[str] = Counter()  # how often a name was wanted again
        self._made: list[Node] = []  # so far; within a function, by its body
        self._extracted = 0  # nodes that were gone through and copied
        self._constants: dict[tuple[FunctionKey, str], str] = {}

    def fresh(self, name: str) -> str:
        """`name`, or `name` with a number behind it where it is taken."""
        unique = name
        while unique in self._taken:
            self._copies[name] += 1
            unique = f"{name}.{self._copies[name]}"
        self._taken.add(unique)
        return unique

    def graph(
        self,
        proto: GraphProto,
        outer: Scope,
        opsets: dict[str, int],
        bound: Mapping[str, Any] | None = None,
        functions: tuple[FunctionKey, ...] = (),
    ) -> Graph:
        """Decode a graph; `outer` holds the names a subgraph may capture."""
        context = _Context(outer.new_child(), opsets, bound or {}, functions)
        inputs = [value_info(i, self._define(i.name, context)) for i in proto.input]
        stored: dict[str, TensorProto | onnx.SparseTensorProto] = {
            **{t.name: t for t in proto.initializer},
            **{s.values.name: s for s in proto.sparse_initializer},
        }
        for name, tensor in stored.items():
            known = context.scope.maps[0].get(name)
            self.tensors[known if known is not None else self._define(name, context)] = tensor
        nodes = self.nodes(proto.node, context)
        outputs = [value_info(o, self._resolve(o.name, context, "output")) for o in proto.output]
        return Graph(proto.name, tuple(inputs), tuple(outputs), tuple(nodes))

    def nodes(self, protos: Sequence[NodeProto], context: _Context) -> list[Node]:
        """Decode nodes in order, functions replaced by their bodies."""
        for proto in protos:
            for output in filter(None, proto.output):
                if output not in context.results:
                    self._define(output, context)
        return [n for proto in sort(protos) for n in self._node(proto, context)]

    def _define(self, name: str, context: _Context) -> str:
        if not name or name in context.scope.maps[0]:
            raise InvalidModelError(f"the value {name!r} is defined twice" if name else "no name")
        context.scope[name] = self.fresh(name)
        return context.scope[name]

    @staticmethod
    def _resolve(name: str, context: _Context, reader: str) -> str:
        if name and name not in context.scope:
            raise InvalidModelError(f"{reader!r} reads {name!r}, which nothing provides")
        return context.scope[name] if name else ""

    def _node(self, proto: NodeProto, context: _Context) -> list[Node]:
        domain = domain_of(proto.domain)
        inputs = tuple(self._resolve(i, context, label_of(proto)) for i in proto.input)
        outputs = tuple(context.scope[o] if o else self.fresh("unused") for o in proto.output)
        attributes = self._attributes(proto, context)
        key: FunctionKey = (domain, proto.op_type, proto.overload)
        explicit = self.kernels.get(f"{domain}::{proto.op_type}" if domain else proto.op_type)
        if explicit is None and key in self.functions:
            return self._call(self.functions[key], key, inputs, outputs, attributes, context)
        if domain not in context.opsets:
            raise InvalidModelError(
                f"node {label_of(proto)!r} uses the domain {domain!r}, which "
                "the model does not import"
            )
        opset = context.opsets[domain]
        kernel = explicit or lookup(proto.op_type, opset, domain)
        opset = max(opset, kernel.since) if kernel is not None and kernel.early else opset
        if kernel is None and (body := schema_function(domain, proto.op_type, opset)) is not None:
            return self._call(body, key, inputs, outputs, attributes, context)
        label = proto.name or next(filter(None, outputs), proto.op_type)
        if not outputs:
            return []  # nobody can tell whether it ran
        if kernel is not None and kernel.between:
            self._extract(kernel, attributes, label, context)
        node = Node(
            proto.op_type,
            domain,
            label,
            opset,
            inputs,
            outputs,
            attributes,
            kernel,
            _scope(proto),
            prepared=_prepared(kernel, label, attributes),
        )
        if kernel is not None and kernel.initializer:
            self._constant(node, proto, context)
            return []
        if not context.functions:
            self.protos[outputs[0]] = proto
        for name, value in attributes.items():
            if kernel is not None and _is_weight(value) and kernel.wants_tensor(name):
                attributes[name] = WeightRef(self.fresh(f"{label}.{name}"))
                self.tensors[attributes[name].name] = _holder(proto, name, value)
            elif isinstance(value, Message):  # a part of a message keeps all of it in memory
                attributes[name] = type(value)()
                attributes[name].CopyFrom(value)
        self._made.append(node)
        return [node]

    def _extract(
        self, kernel: Kernel, attributes: dict[str, Any], label: str, context: _Context
    ) -> None:
        """Put parts of the graph in place of the names that tell where they end."""
        for attribute, starts in kernel.between.items():
            named = [name for start in starts for name in attributes.get(start, [])]
            inputs = [self._resolve(name, context, label) for name in named]
            if len(set(inputs)) < len(inputs):
                raise InvalidModelError(f"{label!r} names one value twice: {', '.join(named)}")
            if not isinstance(attributes.get(attribute), str):
                raise InvalidModelError(f"{label!r} names no value as {attribute!r}")
            output = self._resolve(attributes[attribute], context, label)
            part = attributes[attribute] = extract(self._made, inputs, output, self.fresh)
            self._extracted += len(self._made) + sum(1 for _ in part.walk())
            if self.limits.nodes is not None and self._extracted > self.limits.nodes:
                raise UnsafeModelError(f"node {label!r}: copies of the graph have too many nodes")
            if part.depth > depth_of(self.limits.subgraph_depth):
                raise UnsafeModelError(f"node {label!r}: copies of the graph stand in each other")

    def _constant(self, node: Node, proto: NodeProto, context: _Context) -> None:
        """A node that is a weight; in a function, one weight however often it is called."""
        shared = context.functions and proto.output[0] not in context.results
        if shared and not any(a.ref_attr_name for a in proto.attribute):
            key = (context.functions[-1], proto.output[0])
            name = self._constants.setdefault(key, node.outputs[0])
            context.scope[proto.output[0]] = name
        self.tensors.setdefault(context.scope[proto.output[0]], node)
        self.protos.setdefault(context.scope[proto.output[0]], proto)

    def _attributes(self, proto: NodeProto, context: _Context) -> dict[str, Any]:
        decoded = {}
        for attribute in proto.attribute:
            if not attribute.ref_attr_name:
                decoded[attribute.name] = self._attribute(attribute, context)
            elif attribute.ref_attr_name in context.bound:
                decoded[attribute.name] = context.bound[attribute.ref_attr_name]
        return decoded

    def _attribute(self, a: AttributeProto, context: _Context) -> Any:
        """Strings as str; graphs as Graph; tensors and types as their protos."""
        decode = ATTRIBUTE_VALUE.get(a.type)
        if decode is not None:
            return decode(a)
        rest = (context.opsets, context.bound, context.functions)
        if a.type == AttributeProto.GRAPH:
            return self.graph(a.g, context.scope, *rest)
        if a.type == AttributeProto.GRAPHS:
            return [self.graph(g, context.scope, *rest) for g in a.graphs]
        raise InvalidModelError(f"attribute {a.name!r} has no known type")

    def _call(
        self,
        function: FunctionProto,
        key: FunctionKey,
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        attributes: dict[str, Any],
        context: _Context,
    ) -> list[Node]:
        """The body of a function in place of its call."""
        if key in context.functions:
            raise InvalidModelError(
                f"the function {'::'.join(str(part) for part in key if part)} calls itself"
            )
        scope: Scope = ChainMap(dict.fromkeys(function.input, ""))
        scope.update(zip(function.input, inputs, strict=False))
        given = dict(zip(function.output, outputs, strict=False))
        scope.update(given)
        bare = _Context(scope, context.opsets, context.bound, context.functions)
        defaults = {a.name: self._attribute(a, bare) for a in function.attribute_proto}
        imports = opsets_of(function.opset_import, 0) or self.opsets
        bound = {**defaults, **attributes}
        chain = (*context.functions, key)
        around, self._made = self._made, []
        nodes = self.nodes(function.node, _Context(scope, imports, bound, chain, frozenset(given)))
        around += self._made
        self._made = around
        return nodes


def _prepared(kernel: Kernel | None, label: str, attributes: Mapping[str, Any]) -> Any:
    """What a kernel makes of its attributes once for all calls."""
    if kernel is None or kernel.prepare is None:
        return None
    read = {name: attributes[name] for name in kernel.reads if name in attributes}
    try:
        return kernel.prepare(
            **{
                name: numpy_helper.to_array(value) if isinstance(value, TensorProto) else value
                for name, value in read.items()
            }
        )
    except Exception as error:
        raise InvalidModelError(f"node {label!r} ({kernel.op_type}): {error}") from error


def _is_weight(value: Any) -> bool:
    """Whether an attribute holds elements that a kernel may want as a tensor."""
    floats = isinstance(value, list) and bool(value) and isinstance(value[0], float)
    return floats or isinstance(value, TensorProto)


def _holder(node: NodeProto, name: str, value: TensorProto | list[float]) -> Holder:
    """What holds the tensor or the floats of an attribute; a tensor where a function was given it.

    Floats of an attribute are of 32 bits.
    """
    if isinstance(value, TensorProto):
        return value
    spelled = (a for a in node.attribute if a.name == name and not a.ref_attr_name)
    return next(spelled, None) or numpy_helper.from_array(np.array(value, dtype=np.float32))


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

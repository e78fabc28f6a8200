"""Builds a Model from a ModelProto: nodes in order, attributes decoded, functions inlined.

Calls of functions are replaced by the bodies: functions of the model, and those that the schema of
an operator without kernel has as its definition. A body is decoded once (`decode`) and instantiated
for each call by renaming its values. Names of the main graph stay verbatim; names in subgraphs and
functions get a suffix where they clash.
"""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import onnx
from google.protobuf.message import Message
from onnx import AttributeProto, NodeProto

from onnxinterp.errors import InvalidModelError, UnsafeModelError
from onnxinterp.format.payloads import NO_PAYLOADS, Payloads
from onnxinterp.graph.decode import (
    Attribute,
    FunctionBody,
    GraphBody,
    NodeFields,
    has_type,
    parse_function,
    parse_graph,
)
from onnxinterp.graph.extract import extract
from onnxinterp.graph.ir import Graph, Holder, Model, Node, WeightRef
from onnxinterp.graph.scopes import numbered_calls
from onnxinterp.graph.tensor_attributes import (
    copy_message,
    holder_of,
    is_tensor,
    is_weight,
    prepare,
    survey,
)
from onnxinterp.limits import REPEATED, Limits
from onnxinterp.reading.validation.expansion import WIDTH
from onnxinterp.reading.validation.operators import schema_function
from onnxinterp.reading.validation.structure import depth_of, functions_of, opsets_of
from onnxinterp.registry import Kernel, lookup
from onnxinterp.schemas import imported_opset

MAX_COPIED_NAME_CHARS = 256  # characters of a name that its copies keep

T = TypeVar("T")


def build(
    proto: onnx.ModelProto,
    kernels: Mapping[str, Kernel] | None = None,
    limits: Limits = Limits(),
    payloads: Payloads = NO_PAYLOADS,
) -> Model:
    """Build a model that `validate` has checked.

    Args:
        proto: the parsed file.
        kernels: "domain::Op" (or "Op") -> kernel that takes precedence in this model.
        limits: `nodes` and `subgraph_depth` bound the parts of the graph that are copied;
            `weight_bytes` bounds the weights that are repeated for each call of a function.
        payloads: the data that were cut out of the model.

    Raises:
        InvalidModelError: nodes depend on each other in a cycle, or a kernel does not accept the
            attributes of its node.
        UnsafeModelError: copies of parts of the graph, or of weights, are larger than `limits`.
    """
    builder = _Builder(proto, kernels or {}, limits, payloads)
    graph = builder.graph(parse_graph(proto.graph), _Context(Scope(), builder.opsets))
    graph = _with_numbered_calls(graph, builder.tensors)
    return Model(
        graph=graph,
        tensors=builder.tensors,
        opset_imports=builder.opsets,
        producer=f"{proto.producer_name} {proto.producer_version}".strip(),
        ir_version=proto.ir_version,
        metadata={p.key: p.value for p in proto.metadata_props},
        protos=builder.protos,
    )


class Scope(dict[str, str]):
    """Name in a body -> name in the model; a subgraph also sees the names of the scope around it.

    "", which stands for an absent input, is in every scope.
    """

    def __init__(self, outer: Scope | None = None) -> None:
        self.outer = outer
        self[""] = ""

    def __missing__(self, name: str) -> str:
        if self.outer is None:
            raise KeyError(name)
        return self.outer[name]


@dataclass(frozen=True)
class _Context:
    """Where a body is instantiated.

    Attributes:
        scope: the names that its nodes may read.
        opsets: domain -> version.
        in_function: whether it is the body of a function, or inside of one.
        attributes: the attributes of the function call.
        results: names of the function's outputs: its caller has named them.
        scopes: the torch modules around the call of the function.
        built: the nodes so far; those of a function have a list of their own.
    """

    scope: Scope
    opsets: dict[str, int]
    in_function: bool = False
    attributes: Mapping[str, Any] = field(default_factory=dict)
    results: frozenset[str] = frozenset()
    scopes: tuple[str, ...] = ()
    built: list[Node] = field(default_factory=list)


class _Builder:
    """Builds one model; holds what is unique in it: value names, functions, tensors."""

    def __init__(
        self,
        proto: onnx.ModelProto,
        kernels: Mapping[str, Kernel],
        limits: Limits,
        payloads: Payloads,
    ) -> None:
        self.proto = proto
        self.kernels = kernels
        self.limits = limits
        self.payloads = payloads
        self.opsets = opsets_of(proto.opset_import, proto.ir_version)
        self.functions = functions_of(proto)
        self.tensors: dict[str, Holder] = {}
        self.protos: dict[str, NodeProto] = {}
        self._names: set[str] = {""}
        self._copies: Counter[str] = Counter()  # how often a name was needed again
        self._repeated_bytes = 0  # of weights that are repeated for calls of functions
        self._extracted_nodes = 0
        self._shared: dict[Hashable, Any] = {}

    def fresh(self, name: str) -> str:
        """`name`, or `name` with a number behind it where it is taken."""
        unique = name
        while unique in self._names:
            name = name[:MAX_COPIED_NAME_CHARS]
            self._copies[name] += 1
            unique = f"{name}.{self._copies[name]}"
        self._names.add(unique)
        return unique

    def _once(self, key: Hashable, make: Callable[..., T], *args: Any) -> T:
        """`make(*args)`, called once for each key: calls of a function share the result.

        Keys contain ids of decoded values, which live as long as the builder.
        """
        if key not in self._shared:
            self._shared[key] = make(*args)
        return self._shared[key]  # type: ignore[no-any-return]  # what `make` returned

    def graph(self, body: GraphBody, around: _Context) -> Graph:
        """Instantiate a graph, which may read the values around it."""
        scope = Scope(around.scope)
        context = replace(around, scope=scope, results=frozenset())
        inputs = tuple([replace(i, name=self._define(i.name, scope)) for i in body.inputs])
        for name, tensor in body.stored.items():
            if name not in scope:
                weight = self._define(name, scope)
                scope[name] = self._once(("stored", id(tensor)), str, weight)
            self.tensors[scope[name]] = tensor
        nodes = self.nodes(body.nodes, context)
        outputs = tuple([replace(o, name=scope[o.name]) for o in body.outputs])
        if not all(o.name for o in outputs):
            what = f"graph {body.name!r}: an output"
            raise InvalidModelError(f"{what} must have a value, got an absent input of a function")
        return Graph(body.name, inputs, outputs, tuple(nodes))

    def nodes(self, body: Sequence[NodeFields], context: _Context) -> list[Node]:
        """Instantiate nodes, functions replaced by their bodies."""
        for fields in body:
            for output in fields.outputs:
                if output and output not in context.results:
                    self._define(output, context.scope)
        return [node for fields in body for node in self._call(fields, context)]

    def _define(self, name: str, scope: Scope) -> str:
        scope[name] = unique = self.fresh(name)
        return unique

    def _call(self, fields: NodeFields, context: _Context) -> list[Node]:
        """Instantiate one node: as it is, or by the body of the function that it calls."""
        inputs = tuple([context.scope[i] for i in fields.inputs])
        outputs = tuple([context.scope[o] if o else self.fresh("unused") for o in fields.outputs])
        attributes = self._attributes(fields.attributes, context)
        opset = imported_opset(fields.domain, context.opsets)
        called = fields.domain, fields.op_type, fields.overload, opset
        target = self._once(called, self._target, *called)
        if isinstance(target, FunctionBody):
            around = replace(context, scopes=fields.scopes or context.scopes)
            return self._inlined(target, inputs, outputs, attributes, around)
        if not outputs:
            return []  # nothing depends on it
        name, prepared = fields.name or outputs[0], None
        kernel, opset = target
        if kernel is not None:
            _check_inputs(kernel, name, inputs)
            if kernel.has_many_outputs:  # all are computed, whether they have a name or not
                outputs += tuple([self.fresh("unused") for _ in range(fields.unnamed)])
            if kernel.subgraph_of:
                self._extract(kernel, attributes, name, context)
            if kernel.prepare:
                prepared = self._prepared(kernel, name, attributes)
            elif kernel.survey:
                key = ("survey", kernel.survey)
                prepared = self._once(key, survey, kernel, name, self.proto, self.payloads)
        node = Node(
            *(fields.op_type, fields.domain, name, opset, inputs, outputs, attributes, kernel),
            scopes=fields.scopes or context.scopes,
            prepared=prepared,
        )
        if kernel is not None and kernel.initializer:
            self._store_constant(node, fields, context)
            return []
        if not context.in_function:
            self.protos[outputs[0]] = fields.proto
        self._store_attributes(node, fields)
        context.built.append(node)
        return [node]

    def _target(
        self, domain: str, op_type: str, overload: str, opset: int | None
    ) -> FunctionBody | tuple[Kernel | None, int]:
        """What a node calls: a function, or a kernel and the opset of the call."""
        kernel = self.kernels.get(f"{domain}::{op_type}" if domain else op_type)
        function = self.functions.get((domain, op_type, overload))
        if kernel is None and function is not None:
            return parse_function(function)
        assert opset is not None, "validation has checked the domain"
        kernel = kernel or lookup(op_type, opset, domain)
        if kernel is None:
            function = schema_function(domain, op_type, opset)
            return (None, opset) if function is None else parse_function(function)
        return kernel, max(opset, kernel.since) if kernel.any_opset else opset

    def _inlined(
        self,
        function: FunctionBody,
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        attributes: dict[str, Any],
        context: _Context,
    ) -> list[Node]:
        """The nodes of a function for one call."""
        scope, results = Scope(), dict(zip(function.outputs, outputs, strict=False))
        scope.update(dict.fromkeys(function.inputs, ""))
        scope.update(zip(function.inputs, inputs, strict=False))
        scope.update(results)
        opsets = function.opsets or self.opsets
        inside = _Context(scope, opsets, in_function=True, scopes=context.scopes)
        graphs = self._attributes(function.graphs, inside)
        bound = ChainMap(attributes, graphs, function.defaults)
        inside = replace(inside, attributes=bound, results=frozenset(results))
        nodes = self.nodes(function.nodes, inside)
        context.built.extend(inside.built)
        return nodes

    def _attributes(self, attributes: Iterable[Attribute], context: _Context) -> dict[str, Any]:
        """The attributes of one call: references resolved, graphs instantiated."""
        values: dict[str, Any] = {}
        for name, reference, value, proto in attributes:
            if isinstance(value, GraphBody):
                values[name] = self.graph(value, context)
            elif proto.type == AttributeProto.GRAPHS and not reference:
                values[name] = [self.graph(graph, context) for graph in value]
            elif not reference:
                values[name] = value
            elif reference in context.attributes:
                values[name] = bound = context.attributes[reference]
                if not has_type(bound, proto.type):
                    must = f"{reference!r} of the function must have the type of {name!r}"
                    raise InvalidModelError(f"attribute {must}, got {bound!r:.50}")
        return values

    def _prepared(self, kernel: Kernel, name: str, attributes: Mapping[str, Any]) -> Any:
        """What the kernel's `prepare` returns, once for all calls with the same attributes."""
        read = {name: attributes[name] for name in kernel.reads if name in attributes}
        key = ("prepared", kernel, *((name, id(value)) for name, value in read.items()))
        return self._once(key, prepare, kernel, name, read, self.payloads)

    def _extract(
        self, kernel: Kernel, attributes: dict[str, Any], label: str, context: _Context
    ) -> None:
        """Replace names of values by the part of the graph between them (`Kernel.subgraph_of`)."""
        for attribute, starts in kernel.subgraph_of.items():
            named = [name for start in starts for name in attributes.get(start, [])]
            inputs = [_resolve(name, context, label) for name in named]
            if len(set(inputs)) < len(inputs):
                raise InvalidModelError(f"{label!r} names one value twice: {', '.join(named)}")
            if not isinstance(attributes.get(attribute), str):
                raise InvalidModelError(f"{label!r} must have the attribute {attribute!r}")
            output = _resolve(attributes[attribute], context, label)
            part = attributes[attribute] = extract(context.built, inputs, output, self.fresh)
            self._extracted_nodes += sum(map(_size, context.built)) + sum(map(_size, part.walk()))
            if self.limits.nodes is not None and self._extracted_nodes > self.limits.nodes:
                raise UnsafeModelError(f"node {label!r}: copies of the graph have too many nodes")
            if part.depth > depth_of(self.limits.subgraph_depth):
                raise UnsafeModelError(f"node {label!r}: copies of the graph are nested too deep")

    def _store_constant(self, node: Node, fields: NodeFields, context: _Context) -> None:
        """Store a node that is a weight; one for all calls of its function with equal attributes.

        If the constant is an output of the function, each call has named it: then it is repeated.
        """
        (name,), (weight,) = fields.outputs, node.outputs
        key = ("constant", id(fields), *map(id, node.attributes.values()))
        first = self._once(key, str, weight)
        if name not in context.results:
            context.scope[name] = weight = first
        elif first != weight:
            held = filter(is_tensor, node.attributes.values())
            cut_out = sum(self.payloads.size(tensor) or 0 for tensor in held)
            self._repeated_bytes += fields.proto.ByteSize() + cut_out
            most = self.limits.weight_bytes
            if self._repeated_bytes > (REPEATED if most is None else most):
                raise UnsafeModelError(f"node {node.name!r}: too large for as many calls of it")
        self.tensors.setdefault(weight, node)
        self.protos.setdefault(weight, fields.proto)

    def _store_attributes(self, node: Node, fields: NodeFields) -> None:
        """Store attributes that are weights; copy other messages, which hold on to the whole file.

        Calls of a function share both.
        """
        for name, value in node.attributes.items():
            if node.kernel is not None and is_weight(value) and node.kernel.wants_tensor(name):
                key = ("attribute", name, id(value))
                weight = self._once(key, self.fresh, f"{node.name}.{name}")
                node.attributes[name] = WeightRef(weight)
                if weight not in self.tensors:
                    self.tensors[weight] = holder_of(fields, name, value)
            elif isinstance(value, Message):
                node.attributes[name] = self._once(
                    ("copy", id(value)), copy_message, value, self.payloads
                )


def _with_numbered_calls(graph: Graph, weights: Iterable[str]) -> Graph:
    """The graph whose scopes tell each second call of a module from other modules."""
    calls = numbered_calls((node.scopes for node in graph.nodes), weights)
    if not calls:
        return graph
    nodes = [replace(n, scopes=tuple(calls.get(s, s) for s in n.scopes)) for n in graph.nodes]
    return replace(graph, nodes=tuple(nodes))


def _resolve(name: str, context: _Context, label: str) -> str:
    """The name in the model of a value that an attribute names."""
    try:
        return context.scope[name]
    except KeyError:
        message = f"{label!r} reads {name!r}, which is not defined"
        raise InvalidModelError(message) from None


def _check_inputs(kernel: Kernel, label: str, inputs: Sequence[str]) -> None:
    """Check that a node has the inputs it needs: its function may have been called without them."""
    if "" not in inputs:
        return
    for i, name in enumerate(inputs):
        parameter = None if name else kernel.parameter(i)
        if parameter is None or kernel.may_be_none(parameter.name):
            continue
        if parameter.default is parameter.empty:
            message = f"node {label!r} ({kernel.op_type}): input number {i + 1} must be given"
            raise InvalidModelError(message)


def _size(node: Node) -> int:
    """How many nodes it counts for."""
    return 1 + (len(node.reads) + len(node.outputs)) // WIDTH

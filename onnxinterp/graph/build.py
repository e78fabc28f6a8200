"""From a ModelProto to a Model: nodes in order, attributes decoded, functions opened, names unique.

Calls of functions, those the model ships and those an operator's schema gives as its meaning, are
replaced by their bodies. Names of the main graph stay verbatim, names in subgraphs and functions
get a suffix where they clash.
"""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from onnxinterp.graph.decode import (
    ATTRIBUTE_VALUE,
    Attribute,
    Signature,
    is_of,
    output_names,
    parse_graph,
    parse_node,
    signature_of,
)
from onnxinterp.graph.extract import extract
from onnxinterp.graph.ir import Graph, Holder, Model, Node, WeightRef
from onnxinterp.limits import REPEATED, Limits
from onnxinterp.reading.toposort import toposort
from onnxinterp.reading.validation.expansion import WIDTH
from onnxinterp.reading.validation.operators import FunctionKey, schema_function
from onnxinterp.reading.validation.structure import depth_of, functions_of, opsets_of
from onnxinterp.registry import Kernel, lookup

Scope: TypeAlias = "ChainMap[str, str]"  # name in the file -> name in the whole model

MAX_COPIED_NAME_CHARS = 256  # characters of a name that its copies keep


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
        self._repeated = 0  # bytes of constants that functions give again
        self._extracted = 0  # nodes that were gone through and copied
        self._shared: dict[tuple[object, int], tuple[object, Any]] = {}

    def fresh(self, name: str) -> str:
        """`name`, or `name` with a number behind it where it is taken."""
        unique, name = name, name[:MAX_COPIED_NAME_CHARS]
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
        declares = self._once(context, "declared", proto, parse_graph, proto)
        inputs = [replace(i, name=self._define(i.name, context)) for i in declares.inputs]
        for name, tensor in declares.stored.items():
            known = context.scope.maps[0].get(name)
            if known is None:
                known = self._define(name, context)
                known = context.scope[name] = self._once(context, "weight", tensor, str, known)
            self.tensors[known] = tensor
        nodes = self.nodes(proto, context)
        outputs = [
            replace(o, name=self._resolve(o.name, context, "output")) for o in declares.outputs
        ]
        if not all(o.name for o in outputs):
            raise InvalidModelError(f"graph {declares.name!r} gives an input its function lacks")
        return Graph(declares.name, tuple(inputs), tuple(outputs), tuple(nodes))

    def nodes(self, body: GraphProto | FunctionProto, context: _Context) -> list[Node]:
        """Decode nodes in order, functions replaced by their bodies."""
        protos = self._once(context, "nodes", body, list, body.node)
        for output in self._once(context, "made", body, output_names, protos):
            if output not in context.results:
                self._define(output, context)
        ordered = self._once(context, "sorted", body, toposort, protos)
        return [n for proto in ordered for n in self._node(proto, context)]

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
        says = self._once(context, "said", proto, parse_node, proto)
        op_type, domain, label = says.op_type, says.domain, says.label
        inputs = tuple(self._resolve(i, context, label) for i in says.inputs)
        outputs = tuple(context.scope[o] if o else self.fresh("unused") for o in says.outputs)
        attributes = self._attributes(says.attributes, context)
        key: FunctionKey = (domain, op_type, says.overload)
        explicit = self.kernels.get(f"{domain}::{op_type}" if domain else op_type)
        if explicit is None and key in self.functions:
            return self._call(self.functions[key], key, inputs, outputs, attributes, context)
        if domain not in context.opsets:
            what = f"node {label!r} uses the domain {domain!r}"
            raise InvalidModelError(f"{what}, which the model does not import")
        opset = context.opsets[domain]
        kernel = explicit or lookup(op_type, opset, domain)
        opset = max(opset, kernel.since) if kernel is not None and kernel.any_opset else opset
        if kernel is None and (body := schema_function(domain, op_type, opset)) is not None:
            return self._call(body, key, inputs, outputs, attributes, context)
        if not outputs:
            return []  # nobody can tell whether it ran
        if not says.name:
            label = next(filter(None, outputs))
        if kernel is not None:
            _check_inputs(kernel, label, inputs)
            if says.unnamed and kernel.has_many_outputs:  # each counts: so many parts are made
                outputs += tuple(self.fresh("unused") for _ in range(says.unnamed))
        if kernel is not None and kernel.subgraph_of:
            self._extract(kernel, attributes, label, context)
        prepared = self._prepared(kernel, label, attributes, context)
        node = Node(
            *(op_type, domain, label, opset, inputs, outputs, attributes, kernel, says.scope),
            prepared=prepared,
        )
        if kernel is not None and kernel.initializer:
            self._constant(node, proto, context)
            return []
        if not context.functions:
            self.protos[outputs[0]] = proto
        self._keep(node, says.attributes, context)
        self._made.append(node)
        return [node]

    def _once(
        self, context: _Context, what: object, source: Any, make: Callable[..., Any], *args: Any
    ) -> Any:
        """`make(*args)`; in a function, once for each source, however often it is called.

        A source is known by its identity, which is its own because it is held from then on.
        """
        if not context.functions:
            return make(*args)
        key = (what, id(source))
        if key not in self._shared:
            self._shared[key] = source, make(*args)
        return self._shared[key][1]

    def _keep(self, node: Node, told: Iterable[Attribute], context: _Context) -> None:
        """Make weights of attributes, and messages of their own of the other ones."""
        for name, value in node.attributes.items():
            if node.kernel is not None and _is_weight(value) and node.kernel.wants_tensor(name):
                what = ("weight", name)
                weight = self._once(context, what, value, self.fresh, f"{node.name}.{name}")
                node.attributes[name] = WeightRef(weight)
                if weight not in self.tensors:
                    self.tensors[weight] = _holder(told, name, value)
            elif isinstance(value, Message):  # a part of a message keeps all of it in memory
                node.attributes[name] = self._once(context, "copy", value, _copy, value)

    def _prepared(
        self, kernel: Kernel | None, label: str, attributes: Mapping[str, Any], context: _Context
    ) -> Any:
        """What a kernel makes of its attributes once for all calls."""
        if kernel is None or kernel.prepare is None:
            return None
        read = {name: attributes[name] for name in kernel.reads if name in attributes}
        if not read:
            return _prepared(kernel, label, read)
        what = (kernel, *((name, id(value)) for name, value in read.items()))
        held = self._once(context, what, kernel, dict, read)  # so that each id stays its own
        return self._once(context, ("prepared", *what), kernel, _prepared, kernel, label, held)

    def _extract(
        self, kernel: Kernel, attributes: dict[str, Any], label: str, context: _Context
    ) -> None:
        """Put parts of the graph in place of the names that tell where they end."""
        for attribute, starts in kernel.subgraph_of.items():
            named = [name for start in starts for name in attributes.get(start, [])]
            inputs = [self._resolve(name, context, label) for name in named]
            if len(set(inputs)) < len(inputs):
                raise InvalidModelError(f"{label!r} names one value twice: {', '.join(named)}")
            if not isinstance(attributes.get(attribute), str):
                raise InvalidModelError(f"{label!r} names no value as {attribute!r}")
            output = self._resolve(attributes[attribute], context, label)
            part = attributes[attribute] = extract(self._made, inputs, output, self.fresh)
            self._extracted += sum(map(_size, self._made)) + sum(map(_size, part.walk()))
            if self.limits.nodes is not None and self._extracted > self.limits.nodes:
                raise UnsafeModelError(f"node {label!r}: copies of the graph have too many nodes")
            if part.depth > depth_of(self.limits.subgraph_depth):
                raise UnsafeModelError(f"node {label!r}: copies of the graph stand in each other")

    def _constant(self, node: Node, proto: NodeProto, context: _Context) -> None:
        """A node that is a weight; in a function, one weight however often it is called."""
        what = ("weight", *map(id, node.attributes.values()))
        first = self._once(context, what, proto, str, node.outputs[0])
        if proto.output[0] not in context.results:
            context.scope[proto.output[0]] = first
        elif first != node.outputs[0]:  # the caller has named it: a weight for each call
            self._repeated += proto.ByteSize()
            most = self.limits.weight_bytes
            if self._repeated > (REPEATED if most is None else most):
                raise UnsafeModelError(f"node {node.name!r}: too large for as many calls of it")
        self.tensors.setdefault(context.scope[proto.output[0]], node)
        self.protos.setdefault(context.scope[proto.output[0]], proto)

    def _attributes(self, attributes: Iterable[Attribute], context: _Context) -> dict[str, Any]:
        """Strings as str; graphs as Graph; tensors and types as their protos."""
        decoded: dict[str, Any] = {}
        rest = (context.opsets, context.bound, context.functions)
        for name, refers, a in attributes:
            if refers:
                if refers in context.bound:
                    decoded[name] = value = context.bound[refers]
                    if not is_of(value, a.type):
                        told = f"{name!r} is {refers!r} of the function, {value!r:.50}"
                        raise InvalidModelError(f"{told}, which is of another type")
            elif a.type == AttributeProto.GRAPH:
                decoded[name] = self.graph(a.g, context.scope, *rest)
            elif a.type == AttributeProto.GRAPHS:
                decoded[name] = [self.graph(g, context.scope, *rest) for g in a.graphs]
            else:
                decode = ATTRIBUTE_VALUE[a.type]
                decoded[name] = self._once(context, "value", a, decode, a)
        return decoded

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
        chain = (*context.functions, key)
        inside = _Context(ChainMap(), self.opsets, functions=chain)
        says: Signature = self._once(inside, "signature", function, signature_of, function)
        imports = self._once(inside, "imports", function, opsets_of, function.opset_import, 0)
        given = dict(zip(says.outputs, outputs, strict=False))
        inside.scope.update(dict.fromkeys(says.inputs, ""))
        inside.scope.update(zip(says.inputs, inputs, strict=False))
        inside.scope.update(given)
        around_it = replace(inside, opsets=imports or self.opsets)
        defaults = self._once(inside, "defaults", function, self._attributes, says.defaults, inside)
        bound = ChainMap(attributes, self._attributes(says.graphs, around_it), defaults)
        around, self._made = self._made, []
        nodes = self.nodes(function, replace(around_it, bound=bound, results=frozenset(given)))
        around += self._made
        self._made = around
        return nodes


def _check_inputs(kernel: Kernel, label: str, inputs: Sequence[str]) -> None:
    """Refuse a node without an input it needs: its function may have been called without it.

    Raises:
        InvalidModelError: one is not there.
    """
    for i, name in enumerate(inputs):
        parameter = None if name else kernel.parameter(i)
        if parameter is None or kernel.may_be_none(parameter.name):
            continue
        if parameter.default is parameter.empty:
            message = f"node {label!r} ({kernel.op_type}): input number {i + 1} must be there"
            raise InvalidModelError(message)


def _prepared(kernel: Kernel, label: str, read: Mapping[str, Any]) -> Any:
    assert kernel.prepare is not None
    try:
        return kernel.prepare(
            **{
                name: numpy_helper.to_array(value) if isinstance(value, TensorProto) else value
                for name, value in read.items()
            }
        )
    except Exception as error:
        raise InvalidModelError(f"node {label!r} ({kernel.op_type}): {error}") from error


def _size(node: Node) -> int:
    """How many nodes it counts for."""
    return 1 + (len(node.reads) + len(node.outputs)) // WIDTH


def _copy(message: Message) -> Message:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _is_weight(value: Any) -> bool:
    """Whether an attribute holds elements that a kernel may want as a tensor."""
    floats = isinstance(value, list) and bool(value) and isinstance(value[0], float)
    return floats or isinstance(value, TensorProto)


def _holder(attributes: Iterable[Attribute], name: str, value: TensorProto | list[float]) -> Holder:
    """What holds the tensor or the floats of an attribute; a tensor where a function was given it.

    Floats of an attribute are of 32 bits.
    """
    if isinstance(value, TensorProto):
        return value
    spelled = (a for told, refers, a in attributes if told == name and not refers)
    return next(spelled, None) or numpy_helper.from_array(np.array(value, dtype=np.float32))

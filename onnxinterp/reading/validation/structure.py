"""The versions a file names, its functions, the types it declares; node by node, all the rest."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto, TypeProto

from onnxinterp.errors import InvalidModelError, UnsafeModelError
from onnxinterp.limits import Limits
from onnxinterp.reading.validation.expansion import WIDTH, Size, Unit, check_size
from onnxinterp.reading.validation.names import defined_names, first_undefined
from onnxinterp.reading.validation.operators import (
    GRAPH_TYPES,
    FunctionKey,
    Operator,
    Operators,
    check_value,
    domain_of,
    label_of,
)
from onnxinterp.reading.validation.traversal import Body, bodies
from onnxinterp.registry import Kernel

DEEPEST = 48  # what Python's stack has room for, whatever the limits are
TYPE_DEPTH = 16  # optionals of sequences of maps of ...
ELEMENT_TYPES = frozenset(TensorProto.DataType.values())


def validate(
    proto: onnx.ModelProto,
    kernels: Mapping[str, Kernel],
    limits: Limits = Limits(),
    allowed_ops: Collection[str] | None = None,
) -> None:
    """Refuse a model of which nothing right can be made; nothing is made of it here.

    Not judged are the data of tensors, see `tensors`, and functions nobody calls.

    Args:
        proto: the parsed file.
        kernels: "domain::Op" (or "Op") -> kernel that takes precedence in this model.
        limits: of them `nodes`, `subgraph_depth` and `function_depth`.
        allowed_ops: the only operators that may be called; None allows all.

    Raises:
        InvalidModelError: the file breaks the specification; the message says where.
        UnsafeModelError: it is larger or nests deeper than `limits`, or calls operators that are
            not allowed: all of these are listed.
    """
    if proto.ir_version > onnx.IR_VERSION:
        raise InvalidModelError(
            f"the model is written in IR version {proto.ir_version}; the installed onnx package "
            f"reads up to {onnx.IR_VERSION}"
        )
    depth = depth_of(limits.subgraph_depth)
    nodes = limits.nodes if limits.nodes is not None else 2**63
    if (count := sum(1 + len(body.node) for body in bodies(proto, depth)) - 1) > nodes:
        raise UnsafeModelError(
            f"the model has {count} nodes and graphs; limits.nodes allows {nodes}"
        )
    validator = _Validator(proto, kernels)
    root = validator.run(proto.graph)
    width = WIDTH * nodes + validator.width
    most = Size(nodes, depth, depth_of(limits.function_depth), width)
    check_size(root, validator.units, most)
    if allowed_ops is not None:
        allowed = {name.removeprefix("ai.onnx::") for name in allowed_ops}
        if others := sorted(validator.called - allowed):
            listed = ", ".join(map(repr, others))
            raise UnsafeModelError(f"{len(others)} operator(s) are not allowed: {listed}")


def opsets_of(imports: Iterable[onnx.OperatorSetIdProto], ir_version: int) -> dict[str, int]:
    """Domain ("" for ai.onnx) -> version. Before IR version 3, models had but the first opset.

    Raises:
        InvalidModelError: a domain is imported in two versions.
    """
    opsets: dict[str, int] = {}
    for entry in imports:
        domain, version = domain_of(entry.domain), entry.version
        if opsets.setdefault(domain, version) != version:
            name = domain or "ai.onnx"
            raise InvalidModelError(
                f"{name!r} is imported at opsets {opsets[domain]} and {version}"
            )
    return opsets or ({"": 1} if 0 < ir_version < 3 else {})


def functions_of(proto: onnx.ModelProto) -> dict[FunctionKey, FunctionProto]:
    """The functions that a model ships.

    Raises:
        InvalidModelError: one is there twice.
    """
    functions: dict[FunctionKey, FunctionProto] = {}
    for function in proto.functions:
        key = (domain_of(function.domain), function.name, function.overload)
        if functions.setdefault(key, function) is not function:
            raise InvalidModelError(f"function {_name(key)!r} is there twice")
    return functions


def depth_of(limit: int | None) -> int:
    """How deep graphs or functions may stand in each other where the limits say so much."""
    return DEEPEST if limit is None else min(limit, DEEPEST)


def _name(key: FunctionKey) -> str:
    return "::".join(part for part in key if part and isinstance(part, str))


class _Place(NamedTuple):
    """A graph or a function to be looked at.

    Attributes:
        body: the graph or function.
        unit: what it is for the count.
        around: names that it may capture, innermost first.
        opsets: domain -> version.
        function: it is one, or stands in one.
    """

    body: Body
    unit: Unit
    around: tuple[set[str], ...]
    opsets: Mapping[str, int]
    function: bool


class _Validator:
    """Goes through what a model runs: its graph, subgraphs, and the functions they call.

    Attributes:
        units: the functions that are called, for the count.
        called: names of the operators that are called, functions apart.
        width: of all that was looked at, each once.
    """

    def __init__(self, proto: onnx.ModelProto, kernels: Mapping[str, Kernel]) -> None:
        self.opsets = opsets_of(proto.opset_import, proto.ir_version)
        self.operators = Operators(kernels, functions_of(proto))
        self.units: dict[FunctionKey, Unit] = {}
        self.called: set[str] = set()
        self.width = 0
        self._stack: list[_Place] = []
        self._now: NodeProto | None = None  # the node that is looked at

    def run(self, graph: GraphProto) -> Unit:
        """Look at all that the main graph runs."""
        root = self._graph(graph, (), self.opsets, function=False)
        while self._stack:
            self._checked(self._stack.pop())
        return root

    def _checked(self, place: _Place) -> None:
        """Look at a body; say where what is wrong is."""
        self._now = None
        try:
            self._body(place)
        except InvalidModelError as error:
            where = f"{place.unit.where} "
            if self._now is not None:
                node = f"{label_of(self._now)!r} ({self._now.op_type})"
                where = f"node {node} in {place.unit.where}: "
            raise type(error)(f"{where}{error}") from None

    def _graph(
        self,
        body: GraphProto,
        around: tuple[set[str], ...],
        opsets: Mapping[str, int],
        function: bool,
    ) -> Unit:
        unit = Unit(f"graph {body.name!r}", len(body.node))
        self._stack.append(_Place(body, unit, around, opsets, function))
        return unit

    def _function(self, key: FunctionKey) -> None:
        """Have a function looked at, unless it was."""
        if key not in self.units:
            body = self.operators.functions[key]
            unit = self.units[key] = Unit(f"function {_name(key)!r}", len(body.node))
            opsets = opsets_of(body.opset_import, 0) or self.opsets
            self._stack.append(_Place(body, unit, (), opsets, function=True))

    def _body(self, place: _Place) -> None:
        nodes = list(place.body.node)
        scopes = (defined_names(place.body, nodes), *place.around)
        place.unit.width = len(scopes[0]) + len(place.body.output)
        if isinstance(place.body, FunctionProto):
            self._defaults(place.body, place, scopes)
        else:
            for info in (*place.body.input, *place.body.output):
                _check_type(info)
            for info in place.body.output:
                if not info.name or first_undefined([info.name], scopes):
                    raise InvalidModelError(f"gives {info.name!r}, which nothing provides")
        for node in nodes:
            self._now = node
            self._node(node, place, scopes)
            place.unit.width += len(node.input) + len(node.attribute)
        self.width += place.unit.width

    def _defaults(self, body: FunctionProto, place: _Place, scopes: tuple[set[str], ...]) -> None:
        """The values that a function's attributes have where none are given; graphs among them."""
        for attribute in body.attribute_proto:
            if wrong := check_value(attribute, in_function=False):
                raise InvalidModelError(f"has a default {attribute.name!r} that {wrong}")
            for graph in _graphs(attribute):
                unit = self._graph(graph, scopes, place.opsets, function=True)
                place.unit.defaults[attribute.name] = unit

    def _node(self, node: NodeProto, place: _Place, scopes: tuple[set[str], ...]) -> None:
        if bytes in map(type, (node.name, node.op_type, node.domain, node.overload)):
            raise InvalidModelError("it has a name that is no UTF-8")
        operator = self.operators.of(node, place.opsets)
        if unknown := first_undefined(node.input, scopes):
            raise InvalidModelError(f"reads {unknown!r}, which nothing provides")
        if wrong := operator.check_arity(node):
            raise InvalidModelError(wrong)
        attributes = {a.name: a for a in node.attribute}
        if len(attributes) < len(node.attribute):
            raise InvalidModelError("has an attribute twice")
        for name, attribute in attributes.items():
            if wrong := check_value(attribute, place.function):
                raise InvalidModelError(f"has an attribute {name!r} that {wrong}")
        if wrong := operator.check_attributes(attributes):
            raise InvalidModelError(wrong)
        wanted = len(node.output) + operator.extra_body_outputs
        for name, attribute in attributes.items() if operator.has_schema else ():
            for made in (len(graph.output) for graph in _graphs(attribute)):
                if made != wanted:
                    raise InvalidModelError(f"{name!r} has {made} outputs, the node needs {wanted}")
        self._count(operator, attributes, place, scopes)

    def _count(
        self,
        operator: Operator,
        attributes: Mapping[str, AttributeProto],
        place: _Place,
        scopes: tuple[set[str], ...],
    ) -> None:
        """Note what a node calls, and what it hands over."""
        handed: dict[str, Unit | str] = {}
        for name, attribute in attributes.items():
            if attribute.ref_attr_name:
                handed[name] = attribute.ref_attr_name
            for graph in _graphs(attribute):
                handed[name] = unit = self._graph(graph, scopes, place.opsets, place.function)
                if operator.function is None or attribute.type == AttributeProto.GRAPHS:
                    place.unit.parts.append(unit)
        key = operator.function
        if key is None or isinstance(key[2], int):
            self.called.add(operator.name)
        if key is None:
            place.unit.refers.update(v for v in handed.values() if isinstance(v, str))
            return
        self._function(key)
        if handed:
            place.unit.handed.append((key, handed))
        else:
            place.unit.calls[key] += 1


def _graphs(attribute: AttributeProto) -> Iterable[GraphProto]:
    """The graphs that an attribute holds itself."""
    if attribute.type not in GRAPH_TYPES or attribute.ref_attr_name:
        return ()
    return (attribute.g,) if attribute.type == AttributeProto.GRAPH else attribute.graphs


def _check_type(info: onnx.ValueInfoProto) -> None:
    """Refuse a declared type that there is none of; what is not declared may be any."""
    declared: TypeProto = info.type
    for _ in range(TYPE_DEPTH):
        kind = declared.WhichOneof("value")
        if kind in ("tensor_type", "sparse_tensor_type"):
            tensor = declared.tensor_type if kind == "tensor_type" else declared.sparse_tensor_type
            if tensor.elem_type not in ELEMENT_TYPES:
                what = f"declares {info.name!r} with the element type {tensor.elem_type}"
                raise InvalidModelError(f"{what}, which there is not")
            return
        if kind == "sequence_type":
            declared = declared.sequence_type.elem_type
        elif kind == "optional_type":
            declared = declared.optional_type.elem_type
        elif kind == "map_type":
            declared = declared.map_type.value_type
        else:
            return
    raise InvalidModelError(f"declares {info.name!r} with types in types, over {TYPE_DEPTH} deep")

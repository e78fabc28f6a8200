"""Validates a parsed model: its versions, functions, declared types and all nodes that it runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto

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

MAX_DEPTH = 48  # of graphs or functions, whatever the limits are: Python's stack has room for it
MAX_TYPE_DEPTH = 16  # optionals of sequences of maps of ...
ELEMENT_TYPES = frozenset(TensorProto.DataType.values())
TENSOR_TYPES = ("tensor_type", "sparse_tensor_type")
INNER_TYPE = {"sequence_type": "elem_type", "optional_type": "elem_type", "map_type": "value_type"}
"""Type that holds another type -> the field of the inner type."""


def validate(
    proto: onnx.ModelProto,
    kernels: Mapping[str, Kernel],
    limits: Limits = Limits(),
    allowed_ops: Collection[str] | None = None,
) -> None:
    """Check that a model can be built; nothing is built here.

    Not checked are strings (`check_utf8` has done so), the data of tensors (see `tensor_checks`)
    and functions that are not called.

    Args:
        proto: the parsed file.
        kernels: "domain::Op" (or "Op") -> kernel that takes precedence in this model.
        limits: `nodes`, `subgraph_depth` and `function_depth` are checked.
        allowed_ops: the only operators that may be called; None allows all.

    Raises:
        InvalidModelError: the file breaks the specification; the message says where.
        UnsafeModelError: it exceeds `limits`, or calls operators that are not allowed.
    """
    if proto.ir_version > onnx.IR_VERSION:
        raise InvalidModelError(
            f"the model must have at most IR version {onnx.IR_VERSION} (of the installed onnx "
            f"package), got IR version {proto.ir_version}"
        )
    depth = depth_of(limits.subgraph_depth)
    nodes = limits.nodes if limits.nodes is not None else 2**63
    if (count := sum(1 + len(body.node) for body in bodies(proto, depth)) - 1) > nodes:
        must = f"at most {nodes} nodes and graphs (limits.nodes)"
        raise UnsafeModelError(f"the model must have {must}, got {count}")
    validator = _Validator(proto, kernels)
    root = validator.run(proto.graph)
    most = Size(nodes, depth, depth_of(limits.function_depth), WIDTH * nodes + validator.width)
    check_size(root, validator.units, most)
    if allowed_ops is not None:
        allowed = {name.removeprefix("ai.onnx::") for name in allowed_ops}
        if others := [repr(name) for name in sorted(validator.called - allowed)]:
            what = f"{len(others)} operator(s) are not allowed"
            raise UnsafeModelError(f"{what}: {', '.join(others)}")


def opsets_of(imports: Iterable[onnx.OperatorSetIdProto], ir_version: int) -> dict[str, int]:
    """Domain ("" for ai.onnx) -> version. Before IR version 3, models had only the first opset.

    Raises:
        InvalidModelError: a domain is imported in two versions.
    """
    opsets: dict[str, int] = {}
    for entry in imports:
        domain, version = domain_of(entry.domain), entry.version
        if opsets.setdefault(domain, version) != version:
            versions = f"{opsets[domain]} and {version}"
            raise InvalidModelError(f"{domain or 'ai.onnx'!r} is imported at opsets {versions}")
    return opsets or ({"": 1} if 0 < ir_version < 3 else {})


def functions_of(proto: onnx.ModelProto) -> dict[FunctionKey, FunctionProto]:
    """The functions that a model contains.

    Raises:
        InvalidModelError: one is defined twice.
    """
    functions: dict[FunctionKey, FunctionProto] = {}
    for function in proto.functions:
        key = (domain_of(function.domain), function.name, function.overload)
        if functions.setdefault(key, function) is not function:
            raise InvalidModelError(f"function {_name(key)!r} is defined twice")
    return functions


def depth_of(limit: int | None) -> int:
    """How deep graphs or functions may be nested under a limit."""
    return MAX_DEPTH if limit is None else min(limit, MAX_DEPTH)


def _name(key: FunctionKey) -> str:
    return "::".join(part for part in key if part and isinstance(part, str))


class _Place(NamedTuple):
    """A graph or a function to be checked.

    Attributes:
        body: the graph or function.
        unit: its size.
        outer: the names around it, innermost scope first.
        opsets: domain -> version.
        in_function: whether it is a function, or inside of one.
    """

    body: Body
    unit: Unit
    outer: tuple[set[str], ...]
    opsets: Mapping[str, int]
    in_function: bool


class _Validator:
    """Checks what a model runs: its graph, subgraphs, and the functions they call.

    Attributes:
        units: the sizes of the functions that are called.
        called: names of the operators that are called, functions of the model excepted.
        width: the sum of the widths of all bodies.
    """

    def __init__(self, proto: onnx.ModelProto, kernels: Mapping[str, Kernel]) -> None:
        self.opsets = opsets_of(proto.opset_import, proto.ir_version)
        self.operators = Operators(kernels, functions_of(proto))
        self.units: dict[FunctionKey, Unit] = {}
        self.called: set[str] = set()
        self.width = 0
        self._stack: list[_Place] = []
        self._node: NodeProto | None = None  # the node that is checked

    def run(self, graph: GraphProto) -> Unit:
        """Check all that the main graph runs."""
        root = self._push_graph(graph, (), self.opsets, in_function=False)
        while self._stack:
            place = self._stack.pop()
            self._node = None
            try:
                self._check_body(place)
            except InvalidModelError as error:
                where = f"{place.unit.where} "
                if self._node is not None:
                    node = f"{label_of(self._node)!r} ({self._node.op_type})"
                    where = f"node {node} in {place.unit.where}: "
                raise type(error)(f"{where}{error}") from None
        return root

    def _push_graph(
        self,
        body: GraphProto,
        outer: tuple[set[str], ...],
        opsets: Mapping[str, int],
        in_function: bool,
    ) -> Unit:
        unit = Unit(f"graph {body.name!r}", len(body.node))
        self._stack.append(_Place(body, unit, outer, opsets, in_function))
        return unit

    def _push_function(self, key: FunctionKey) -> None:
        """Have a function checked, once."""
        if key not in self.units:
            body = self.operators.functions[key]
            unit = self.units[key] = Unit(f"function {_name(key)!r}", len(body.node))
            opsets = opsets_of(body.opset_import, 0) or self.opsets
            self._stack.append(_Place(body, unit, (), opsets, in_function=True))

    def _check_body(self, place: _Place) -> None:
        body, nodes = place.body, list(place.body.node)
        scopes = (defined_names(body, nodes), *place.outer)
        if isinstance(body, FunctionProto):
            self._check_defaults(body, place, scopes)
        else:
            for info in (*body.input, *body.output):
                _check_type(info)
            for info in body.output:
                if not info.name or first_undefined([info.name], scopes):
                    raise InvalidModelError(f"returns {info.name!r}, which is not defined")
        place.unit.width = len(scopes[0]) + len(body.output)
        for node in nodes:
            self._node = node
            place.unit.width += self._check_node(node, place, scopes)
        self.width += place.unit.width

    def _check_defaults(
        self, body: FunctionProto, place: _Place, scopes: tuple[set[str], ...]
    ) -> None:
        """Check the default values of a function's attributes; graphs among them."""
        for attribute in body.attribute_proto:
            if wrong := check_value(attribute, in_function=False):
                raise InvalidModelError(f"has a default {attribute.name!r} that {wrong}")
            for graph in _graphs(attribute):
                unit = self._push_graph(graph, scopes, place.opsets, in_function=True)
                place.unit.defaults[attribute.name] = unit

    def _check_node(self, node: NodeProto, place: _Place, scopes: tuple[set[str], ...]) -> int:
        """Check a node; its width."""
        inputs, n_outputs = list(node.input), len(node.output)
        operator = self.operators.of(node, place.opsets)
        if unknown := first_undefined(inputs, scopes):
            raise InvalidModelError(f"reads {unknown!r}, which is not defined")
        if wrong := operator.check_arity(inputs, n_outputs):
            raise InvalidModelError(wrong)
        protos = list(node.attribute)
        attributes = {a.name: a for a in protos}
        if len(attributes) < len(protos):
            raise InvalidModelError("has an attribute twice")
        for name, attribute in attributes.items():
            if wrong := check_value(attribute, place.in_function):
                raise InvalidModelError(f"has an attribute {name!r} that {wrong}")
        if wrong := operator.check_attributes(attributes):
            raise InvalidModelError(wrong)
        if operator.has_schema and operator.extra_body_outputs is not None:
            _check_subgraphs(attributes, n_outputs + operator.extra_body_outputs)
        self._count(operator, attributes, place, scopes)
        return len(inputs) + len(attributes)

    def _count(
        self,
        operator: Operator,
        attributes: Mapping[str, AttributeProto],
        place: _Place,
        scopes: tuple[set[str], ...],
    ) -> None:
        """Count what a node calls, and the graphs that it passes on."""
        passed: dict[str, Unit | str] = {}
        for name, attribute in attributes.items():
            if attribute.ref_attr_name:
                passed[name] = attribute.ref_attr_name
            for graph in _graphs(attribute):
                unit = self._push_graph(graph, scopes, place.opsets, place.in_function)
                passed[name] = unit
                if operator.function is None or attribute.type == AttributeProto.GRAPHS:
                    place.unit.parts.append(unit)
        key = operator.function
        if key is None or isinstance(key[2], int):
            self.called.add(operator.name)
        if key is not None:
            self._push_function(key)
            if passed:
                place.unit.passed.append((key, passed))
            else:
                place.unit.calls[key] += 1
        elif passed:
            place.unit.references.update(v for v in passed.values() if isinstance(v, str))


def _check_subgraphs(attributes: Mapping[str, AttributeProto], n_outputs: int) -> None:
    for name, attribute in attributes.items():
        for graph in _graphs(attribute):
            if (count := len(graph.output)) != n_outputs:
                raise InvalidModelError(f"{name!r} must have {n_outputs} output(s), got {count}")


def _graphs(attribute: AttributeProto) -> Iterable[GraphProto]:
    """The graphs that an attribute holds itself."""
    if attribute.type not in GRAPH_TYPES or attribute.ref_attr_name:
        return ()
    return (attribute.g,) if attribute.type == AttributeProto.GRAPH else attribute.graphs


def _check_type(info: onnx.ValueInfoProto) -> None:
    """Check a declared type; what is not declared may be any."""
    declared: Any = info.type
    for _ in range(MAX_TYPE_DEPTH):
        kind = declared.WhichOneof("value")
        if kind not in INNER_TYPE:
            elem_type = getattr(declared, kind).elem_type if kind in TENSOR_TYPES else 0
            if elem_type not in ELEMENT_TYPES:
                what = f"declares {info.name!r} with an unknown element type"
                raise InvalidModelError(f"{what}, {elem_type}")
            return
        declared = getattr(getattr(declared, kind), INNER_TYPE[kind])
    what = f"declares {info.name!r} with a type nested more than"
    raise InvalidModelError(f"{what} {MAX_TYPE_DEPTH} deep")

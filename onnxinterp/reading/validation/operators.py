"""What inputs, outputs and attributes a node may have.

Standard operators are checked against the schema of their opset, others against the signature of
their kernel. This differs from the specification twice: an output that is not optional may be
absent, because nothing reads it; and operators that ONNX has deprecated keep their meaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    TypeProto,
)
from onnx.defs import OpSchema

from onnxinterp.errors import InvalidModelError
from onnxinterp.registry import ENGINE_KEYWORDS, IGNORED_ATTRIBUTES, Kernel, lookup
from onnxinterp.schemas import imported_opset, schema_of

FunctionKey: TypeAlias = "tuple[str, str, str | int]"
"""Domain, name, overload; for the function of a schema, its opset in place of the overload."""

AI_ONNX = ("", "ai.onnx")  # two spellings of the same domain
UNBOUNDED = 2**31 - 1  # number of inputs or outputs in schemas of variadic operators


class AttributeField(NamedTuple):
    """The field of an AttributeProto that holds the value of one attribute type.

    Attributes:
        name: the field.
        element: the Python type of the value, or of its elements.
        is_list: whether the value is a list.
    """

    name: str
    element: type
    is_list: bool = False


ATTRIBUTE_FIELDS: dict[int, AttributeField] = {
    AttributeProto.FLOAT: AttributeField("f", float),
    AttributeProto.INT: AttributeField("i", int),
    AttributeProto.STRING: AttributeField("s", str),
    AttributeProto.TENSOR: AttributeField("t", TensorProto),
    AttributeProto.GRAPH: AttributeField("g", GraphProto),
    AttributeProto.SPARSE_TENSOR: AttributeField("sparse_tensor", SparseTensorProto),
    AttributeProto.TYPE_PROTO: AttributeField("tp", TypeProto),
    AttributeProto.FLOATS: AttributeField("floats", float, True),
    AttributeProto.INTS: AttributeField("ints", int, True),
    AttributeProto.STRINGS: AttributeField("strings", str, True),
    AttributeProto.TENSORS: AttributeField("tensors", TensorProto, True),
    AttributeProto.GRAPHS: AttributeField("graphs", GraphProto, True),
    AttributeProto.SPARSE_TENSORS: AttributeField("sparse_tensors", SparseTensorProto, True),
    AttributeProto.TYPE_PROTOS: AttributeField("type_protos", TypeProto, True),
}
"""Attribute type -> the field that holds the value."""

GRAPH_TYPES = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
DESCRIPTION = frozenset({"name", "type", "doc_string", "ref_attr_name"})
"""The fields of an AttributeProto besides its value."""


def domain_of(domain: str) -> str:
    """A domain; "" for ai.onnx in both spellings."""
    return "" if domain in AI_ONNX else domain


def label_of(node: NodeProto) -> str:
    """The name of a node in messages: its first output or its operator where it has none."""
    return node.name or next(filter(None, node.output), node.op_type)


def schema_function(domain: str, op_type: str, opset: int) -> FunctionProto | None:
    """The function body by which a schema defines its operator; None where it has none."""
    schema = schema_of(op_type, opset, domain)
    if schema is None or not schema.has_function:  # type: ignore[attr-defined]  # stubs lag
        return None
    return _body_of(domain, op_type, schema.since_version)


@lru_cache(maxsize=1024)
def _body_of(domain: str, op_type: str, since: int) -> FunctionProto:
    schema = schema_of(op_type, since, domain)
    assert schema is not None, "only called where there is one"
    body: FunctionProto = schema.function_body
    return body


@dataclass(frozen=True)
class Operator:
    """What a node that calls an operator may have.

    Attributes:
        name: "domain::Op", or "Op" of ai.onnx.
        function: the key of its body; None where it is not a function.
        inputs: least and largest number of inputs.
        outputs: least and largest number of outputs.
        required_inputs: positions of inputs that must not be absent.
        attributes: name -> type; None where it may have any.
        untyped_attributes: names of attributes that may have any type.
        required_attributes: names of attributes that must be given.
        extra_body_outputs: number of outputs of its subgraphs that are not outputs of the node;
            None where they may have any number.
        has_schema: whether this comes from a schema.
    """

    name: str
    function: FunctionKey | None = None
    inputs: tuple[int, int] = (0, UNBOUNDED)
    outputs: tuple[int, int] = (0, UNBOUNDED)
    required_inputs: tuple[int, ...] = ()
    attributes: Mapping[str, int] | None = None
    untyped_attributes: frozenset[str] = frozenset()
    required_attributes: frozenset[str] = frozenset()
    extra_body_outputs: int | None = 0
    has_schema: bool = False

    def check_arity(self, inputs: Sequence[str], n_outputs: int) -> str:
        """What is wrong with the number of inputs and outputs; "" if nothing is."""
        if wrong := _outside(len(inputs), self.inputs, "inputs"):
            return wrong
        if wrong := _outside(n_outputs, self.outputs, "outputs"):
            return wrong
        if "" in inputs:
            for i in self.required_inputs:
                if i < len(inputs) and not inputs[i]:
                    return f"input number {i + 1} must be given"
        return ""

    def check_attributes(self, attributes: Mapping[str, AttributeProto]) -> str:
        """What is wrong with the attributes' names and types; "" if nothing is."""
        if self.attributes is None:
            return ""
        for name, attribute in attributes.items():
            wanted = self.attributes.get(name)
            if wanted is None:
                if name not in self.untyped_attributes:
                    return f"{self.name} has no attribute {name!r}"
            elif attribute.type != wanted and not attribute.ref_attr_name:
                must, got = _type(wanted), _type(attribute.type)
                return f"attribute {name!r} must be of type {must}, got {got}"
        for name in self.required_attributes:
            if name not in attributes:
                return f"must have the attribute {name!r}"
        return ""


def _outside(number: int, bounds: tuple[int, int], what: str) -> str:
    least, most = bounds
    if least <= number <= most:
        return ""
    wanted = f"at least {least}" if number < least else f"at most {most}"
    return f"must have {wanted} {what}, got {number}"


def _type(number: int) -> str:
    known = AttributeProto.AttributeType.values()
    return AttributeProto.AttributeType.Name(number) if number in known else str(number)


def check_value(attribute: AttributeProto, in_function: bool) -> str:
    """What is wrong with the value of an attribute; "" if nothing is."""
    fields = {f.name for f, _ in attribute.ListFields()} - DESCRIPTION
    if attribute.ref_attr_name:
        if not in_function:
            return "refers to an attribute of a function, but is not in a function"
        return "has a value and refers to another attribute" if fields else ""
    field = ATTRIBUTE_FIELDS.get(attribute.type)
    if field is None:
        return "has an unknown type"
    if not fields <= {field.name}:
        return f"must have a value of type {_type(attribute.type)}, but has another one"
    if not fields and not field.is_list and field.element not in (float, int, str):
        return f"must have a value of type {_type(attribute.type)}, but has none"
    return ""


@dataclass
class Operators:
    """Finds the operators that nodes call, each of them once.

    Attributes:
        kernels: "domain::Op" (or "Op") -> kernel that takes precedence.
        functions: the functions of the model, and those of schemas that nodes call.
    """

    kernels: Mapping[str, Kernel]
    functions: dict[FunctionKey, FunctionProto]
    _found: dict[tuple[str, str, str, int | None], Operator] = field(default_factory=dict)

    def of(self, node: NodeProto, opsets: Mapping[str, int]) -> Operator:
        """The operator that a node calls.

        Raises:
            InvalidModelError: its domain is not imported.
        """
        domain = domain_of(node.domain)
        opset = imported_opset(domain, opsets)
        call = (domain, node.op_type, node.overload, opset)
        found = self._found.get(call)
        if found is None:
            found = self._found[call] = self._find(*call)
        return found

    def _find(self, domain: str, op_type: str, overload: str, opset: int | None) -> Operator:
        name = f"{domain}::{op_type}" if domain else op_type
        key: FunctionKey = (domain, op_type, overload)
        if opset is None:
            raise InvalidModelError(f"uses the domain {domain!r}, which is not imported")
        if name in self.kernels:
            return Operator(name)
        if key in self.functions:
            called = self.functions[key]
            return Operator(name, key, (0, len(called.input)), (0, len(called.output)))
        kernel = lookup(op_type, opset, domain)
        schema = schema_of(op_type, max(opset, kernel.since if kernel else 0), domain)
        if schema is None:
            return _by_kernel(name, kernel)
        function: FunctionKey | None = None
        if kernel is None and (body := schema_function(domain, op_type, opset)) is not None:
            function = (domain, op_type, schema.since_version)
            self.functions[function] = body
        return _by_schema(name, schema, kernel, function)


def _by_kernel(name: str, kernel: Kernel | None) -> Operator:
    """An operator without schema, as the signature of its kernel declares it."""
    if kernel is None:
        return Operator(name)
    parameters = kernel.parameters
    variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    least = sum(p.default is p.empty and p.kind is not p.VAR_POSITIONAL for p in parameters)
    known = frozenset(kernel.attributes) - ENGINE_KEYWORDS | IGNORED_ATTRIBUTES
    most = UNBOUNDED if variadic else len(parameters)
    return Operator(name, None, (least, most), attributes={}, untyped_attributes=known)


def _by_schema(
    name: str, schema: OpSchema, kernel: Kernel | None, function: FunctionKey | None
) -> Operator:
    single = OpSchema.FormalParameterOption.Single
    return Operator(
        name,
        function,
        (schema.min_input, schema.max_input),
        (min(schema.min_output, 1), schema.max_output),
        tuple(i for i, p in enumerate(schema.inputs) if p.option is single),
        {a.name: a.type.value for a in schema.attributes.values()},  # type: ignore[attr-defined]  # as above
        IGNORED_ATTRIBUTES
        | (frozenset(kernel.attributes) - ENGINE_KEYWORDS if kernel else frozenset()),
        frozenset(a.name for a in schema.attributes.values() if a.required) - IGNORED_ATTRIBUTES,
        kernel.extra_body_outputs if kernel else 0,
        has_schema=True,
    )

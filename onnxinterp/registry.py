"""The dispatch table: (domain, operator) -> kernels by the opset that introduced them.

A kernel is a plain function whose signature is its declaration. Positional parameters are the
node's inputs in schema order, keyword-only parameters its attributes with the schema's names and
defaults. Annotations say what the kernel needs of each input:

    Tensor            a tensor
    Operand           a tensor, or a plain number where the graph has one
    Ints, Floats      a list of plain numbers: shapes, axes, pads, scales
    Scalar            one plain number
    Host              the plain number(s) together with their ONNX type
    Tensor | Strings  a tensor or, where the graph has one, an array of strings
    anything else     as it flows: sequences, maps, strings, optionals

and of each attribute: `torch.dtype` an ONNX type number as torch's type, `Tensor` a list as a
tensor.

Seven keyword-only parameters are given by the engine, not by the node:

    training          whether the module trains; of a kernel with state also None: its statistics
                      are frozen, whatever the file says
    n_outputs         how many outputs the node names
    input_type        the ONNX number of the element type of the first input, of its values where
    output_type       it is a map, and of the first output; 0 where it is not known; as torch's
                      type, which is that of the moved module, where the annotation says so
    straight_through  all that read the first output take floating numbers in place of its
                      integers, so that a gradient passes
    prepared          what the registration's `prepare` made of the attributes, once for all calls
    device            where new tensors go
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property, lru_cache
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, TypedDict, TypeVar, Union

import onnx.defs
import torch
from torch import Tensor

from onnxinterp.values import Host, Strings, Subgraph

if TYPE_CHECKING:
    from typing_extensions import Unpack  # typing has it from Python 3.11 on

MAX_OP_NAME_CHARS = 200  # characters of an operator and its domain that a schema may have
F = TypeVar("F", bound=Callable[..., Any])
Pattern: TypeAlias = tuple[Any, ...]  # nodes as `fusion` describes them

# keywords that the engine provides
ENGINE_KEYWORDS = frozenset(
    {"training", "n_outputs", "input_type", "output_type", "device", "straight_through", "prepared"}
)
# attributes that only say something about memory, or how often training met a node
IGNORED_ATTRIBUTES = frozenset({"consumed_inputs", "nodes_hitrates", "nodes_hitrates_as_tensor"})
NEWEST = {"": 28, "ai.onnx.ml": 5, "ai.onnx.preview": 1, "ai.onnx.preview.training": 1}
"""Domain -> the newest opset the kernels are written for: what a later one means is not known."""


class Kind(Enum):
    """What a kernel wants for one input, read off the annotation."""

    TENSOR = "tensor"
    OPERAND = "operand"
    LIST = "list"
    SCALAR = "scalar"
    HOST = "host"
    ANY = "any"


def _alternatives(hint: Any) -> set[Any]:
    """The members of a union without None; of anything else, itself."""
    union = typing.get_origin(hint) in (Union, types.UnionType)
    return set(typing.get_args(hint) if union else (hint,)) - {type(None)}


def kind_of(hint: Any) -> Kind:
    """What an annotation asks for."""
    members = _alternatives(hint)
    numbers = {int, float, bool}
    if members in ({Tensor}, {Tensor, Strings}):
        return Kind.TENSOR
    if members == {Host}:
        return Kind.HOST
    if members and members <= numbers:
        return Kind.SCALAR
    if Tensor in members and members <= numbers | {Tensor}:
        return Kind.OPERAND
    if len(members) == 1 and next(iter(members)) in (list[int], list[float]):
        return Kind.LIST
    return Kind.ANY


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel function and what its registration declares.

    Attributes:
        function: the torch function.
        op_type: operator name.
        domain: "" for ai.onnx.
        since: the first opset it serves.
        frozen: names of inputs whose tensors are not trained (scales, bounds, exponents).
        state: input name -> index of the output that holds its next value when training.
        random: the answer differs from call to call, so nothing may be folded.
        data_shaped: the shape of the answer depends on the elements of a tensor (NonZero).
        initializer: the node is a weight in the form of a node (Constant).
        any_type: the function takes every element type as it is stored (see `carriers`).
        strings: whether strings may come as positions (see `carriers`): not where it computes.
        uint64: how the function gets uint64: as "bits" of int64 where the answer is right modulo
            2**64, in "order" where elements are compared and moved only; None: as torch has it.
        infer_output_type: where the schema does not determine the element type of the first
            output: computes it from the node's attributes, as stored, and the ONNX types of its
            inputs (0 where unknown).
        alias: the output is the input (Identity): exporters leave one where they merged equal
            weights (see `ties`).
        accepts_float_for_int: inputs that may be floating-point tensors in place of integers.
        subgraph_of: attribute that names a value of the graph -> attributes that list others. The
            function gets the part of the graph between those values and this one, as a `Subgraph`
            whose inputs are the node's.
        any_opset: the kernel also implements opsets before `since`: onnxruntime writes the
            operator into files of any opset.
        extra_body_outputs: number of subgraph outputs that are not outputs of the node (the
            condition of a Loop).
        prepare: makes of attributes, once when a model is loaded, what the function gets as
            `prepared`. Its keyword-only parameters are the attributes it reads, as the file has
            them, tensors as numpy arrays; the function may take the same ones. What it gives goes
            to the function as it is, but for tensors, alone or in tuples: they follow the module
            from device to device.
    """

    function: Callable[..., Any]
    op_type: str
    domain: str = ""
    since: int = 1
    frozen: tuple[str, ...] = ()
    state: Mapping[str, int] = field(default_factory=dict)
    random: bool = False
    data_shaped: bool = False
    initializer: bool = False
    any_type: bool = False
    strings: bool = True
    uint64: Literal["bits", "order"] | None = None
    infer_output_type: Callable[[dict[str, Any], Sequence[int]], int] | None = None
    alias: bool = False
    accepts_float_for_int: tuple[str, ...] = ()
    subgraph_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    prepare: Callable[..., Any] | None = None
    any_opset: bool = False
    extra_body_outputs: int = 0

    @cached_property
    def hints(self) -> dict[str, Any]:
        """Parameter name -> annotation, resolved; "return" too."""
        return typing.get_type_hints(self.function)

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters that stand for inputs."""
        every = signature(self.function).parameters.values()
        return tuple(p for p in every if p.kind is not p.KEYWORD_ONLY)

    @cached_property
    def keywords(self) -> dict[str, Parameter]:
        """The function's keyword-only parameters: attributes, and what the engine gives."""
        every = signature(self.function).parameters.values()
        return {p.name: p for p in every if p.kind is p.KEYWORD_ONLY}

    @cached_property
    def attributes(self) -> dict[str, Parameter]:
        """All attributes that mean something to the kernel, and what the engine gives."""
        return {**self.reads, **self.keywords}

    @cached_property
    def reads(self) -> dict[str, Parameter]:
        """The attributes that `prepare` reads."""
        return dict(signature(self.prepare).parameters) if self.prepare else {}

    def parameter(self, index: int) -> Parameter | None:
        """The parameter that takes input number `index`; None where the node has too many."""
        last = self.parameters[-1] if self.parameters else None
        if last is not None and last.kind is last.VAR_POSITIONAL:
            index = min(index, len(self.parameters) - 1)
        return self.parameters[index] if index < len(self.parameters) else None

    @cached_property
    def kinds(self) -> dict[str, Kind]:
        """Input parameter name -> what the kernel wants there."""
        return {p.name: kind_of(self.hints.get(p.name)) for p in self.parameters}

    @cached_property
    def returns_host(self) -> bool:
        """Whether the answer is a host value whatever the inputs are (Shape, Size)."""
        return self.hints.get("return") is Host

    @cached_property
    def has_many_outputs(self) -> bool:
        """Whether the schema leaves open how many outputs a node has."""
        schema = schema_of(self.op_type, self.since, self.domain)
        many = onnx.defs.OpSchema.FormalParameterOption.Variadic
        return schema is not None and any(o.option is many for o in schema.outputs)

    def wants_subgraph(self, attribute: str) -> bool:
        """Whether an attribute is a subgraph to be called."""
        return Subgraph in _alternatives(self.hints.get(attribute))

    def wants_dtype(self, attribute: str) -> bool:
        """Whether an attribute is an ONNX type number that the kernel wants as a torch dtype."""
        return torch.dtype in _alternatives(self.hints.get(attribute))

    def may_be_none(self, attribute: str) -> bool:
        """Whether the annotation of an attribute admits None."""
        return type(None) in typing.get_args(self.hints.get(attribute))

    def wants_tensor(self, attribute: str) -> bool:
        """Whether a tensor attribute is wanted as a tensor: then it is a weight."""
        return kind_of(self.hints.get(attribute)) is Kind.TENSOR

    def choices(self, attribute: str) -> frozenset[Any]:
        """What an attribute may be, where its annotation lists it; empty where anything goes."""
        members = _alternatives(self.hints.get(attribute))
        listed = [typing.get_args(m) for m in members if typing.get_origin(m) is Literal]
        return frozenset().union(*listed) if len(listed) == len(members) else frozenset()

    def wants_host(self, attribute: str) -> bool:
        """Whether a tensor attribute is wanted as plain numbers."""
        return Host in _alternatives(self.hints.get(attribute))


class Fusion(NamedTuple):
    """A function that replaces several nodes.

    Attributes:
        pattern: the nodes, last one first (see `planning.fusion`).
        function: computes what they compute.
        sources: the kernels that compute inputs of the last node.
    """

    pattern: Pattern
    function: Callable[..., Any]
    sources: frozenset[Callable[..., Any]]


def kernel_of(name: str, function: Callable[..., Any]) -> Kernel:
    """A kernel for one module; what `op` declared of the function still holds.

    Args:
        name: "domain::Op", or "Op" of ai.onnx.
        function: what is to serve it.
    """
    for versions in KERNELS.values():
        for kernel in versions.values():
            if kernel.function is function:
                return kernel
    domain, _, op_type = name.rpartition("::")
    return Kernel(function, op_type, domain, data_shaped=True)


KERNELS: dict[tuple[str, str], dict[int, Kernel]] = {}
HOST_RULES: dict[Callable[..., Any], Callable[..., Any]] = {}
SAMPLES: dict[Callable[..., Any], Callable[..., Any]] = {}
FUSIONS: dict[Callable[..., Any], list[Fusion]] = {}  # by the kernel of the last node
COMMUTATIVE: set[Callable[..., Any]] = set()


class KernelOptions(TypedDict, total=False):
    """What a registration may say; `Kernel` tells what each means."""

    frozen: tuple[str, ...]
    state: Mapping[str, int]
    random: bool
    initializer: bool
    any_type: bool
    strings: bool
    uint64: Literal["bits", "order"] | None
    infer_output_type: Callable[[dict[str, Any], Sequence[int]], int] | None
    alias: bool
    accepts_float_for_int: tuple[str, ...]
    subgraph_of: Mapping[str, tuple[str, ...]]
    prepare: Callable[..., Any] | None
    any_opset: bool
    extra_body_outputs: int


def op(
    name: str,
    *,
    since: int,
    domain: str = "",
    data_shaped: bool | None = None,
    commutative: bool = False,
    **options: Unpack[KernelOptions],
) -> Callable[[F], F]:
    """Register a kernel for `name` from opset `since` until the next registered one.

    The decorated function is returned as it is. See the head of this file for its signature, and
    `Kernel` for what the other arguments declare. Operators of other domains than ONNX's own count
    as `data_shaped` unless they say otherwise. The inputs of a `commutative` one may change places.

    Raises:
        ValueError: the operator is already registered at this opset.
    """
    shaped = bool(domain) if data_shaped is None else data_shaped

    def register(function: F) -> F:
        versions = KERNELS.setdefault((domain, name), {})
        if since in versions:
            raise ValueError(f"{name}-{since} is registered twice")
        versions[since] = Kernel(function, name, domain, since, data_shaped=shaped, **options)
        if commutative:
            COMMUTATIVE.add(function)
        return function

    return register


def host(*functions: Callable[..., Any]) -> Callable[[F], F]:
    """Attach a second rule, used when all that the kernel takes as tensors are host values.

    The rule has the kernel's signature, with `Host` in place of tensors, and gives a `Host` or a
    tuple of them; NotImplemented where the answer is no host value: then the kernel itself runs.
    """

    def attach(rule: F) -> F:
        HOST_RULES.update(dict.fromkeys(functions, rule))
        return rule

    return attach


def fuse(*patterns: Pattern) -> Callable[[F], F]:
    """Attach one function for several nodes, wherever they make one of `patterns` (see `fusion`).

    Where several patterns match, the one declared first counts.
    """

    def attach(function: F) -> F:
        for pattern in patterns:
            sources = frozenset(part[0] for part in pattern[1:] if isinstance(part, tuple))
            FUSIONS.setdefault(pattern[0], []).append(Fusion(pattern, function, sources))
        return function

    return attach


def sample(*functions: Callable[..., Any]) -> Callable[[F], F]:
    """Attach the function that draws one valid call of each of `functions`."""

    def attach(draw_call: F) -> F:
        SAMPLES.update(dict.fromkeys(functions, draw_call))
        return draw_call

    return attach


def lookup(op_type: str, opset: int, domain: str = "") -> Kernel | None:
    """The newest kernel not newer than `opset`; None where there is none.

    An opset that is newer than the kernels (`NEWEST`) may have changed what an operator means: it
    is served by kernels that were registered for such opsets only.
    """
    versions = KERNELS.get((domain, op_type), {})
    beyond = opset > NEWEST.get(domain, opset)
    fit = [v for v in versions if v <= opset and (not beyond or v > NEWEST[domain])]
    early = [v for v in versions if versions[v].any_opset and v > opset]
    since = max(fit, default=min(early, default=None))
    return None if since is None else versions[since]


def schema_of(op_type: str, opset: int, domain: str = "") -> onnx.defs.OpSchema | None:
    """The schema of an operator at an opset; None where it has none, or the opset is not known."""
    if len(op_type) + len(domain) > MAX_OP_NAME_CHARS:
        return None
    return _schema_of(op_type, opset, domain)


@lru_cache(maxsize=4096)
def _schema_of(op_type: str, opset: int, domain: str) -> onnx.defs.OpSchema | None:
    if opset > NEWEST.get(domain, opset):
        return None
    try:
        return onnx.defs.get_schema(op_type, opset, domain)
    except (onnx.defs.SchemaError, TypeError):  # names and numbers that C++ has no room for
        return None


def value_name_attributes(op_type: str, domain: str = "") -> frozenset[str]:
    """The attributes that name values of the graph the node stands in, whatever its version."""
    return frozenset().union(*(k.subgraph_of for k in KERNELS.get((domain, op_type), {}).values()))

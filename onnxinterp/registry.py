"""The dispatch table: (domain, operator) -> kernels by the opset that introduced them.

A kernel is a typed torch function, and its signature is its declaration:

    @op("Elu", since=6)
    def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
        return torch.nn.functional.elu(x, alpha)

Positional parameters are the inputs of the node in schema order, with a default where they are
optional. The annotation says in which form the kernel needs the input:

    Tensor              a tensor
    Tensor | Strings    a tensor, or an array of strings if the graph has one
    Operand             a tensor, or a plain number if the engine knows one
    Scalar              one plain number
    LateScalar          a host value or a tensor of one number: a graph may know it when it runs
    Ints, Floats        a list of plain numbers: a shape, axes, pads, scales
    Host                the plain number or numbers together with their dtype
    anything else       the value as it is: a sequence, a map, an array of strings, an optional

Keyword-only parameters are the attributes of the node, with the names and defaults of the schema:

    int, list[str], ...    the attribute as it is
    Literal[...]           the same; other values are an error when the model is loaded
    torch.dtype            an ONNX type number, as the dtype that carries it
    Tensor                 a tensor or a list of floats; it is a weight of the module
    Host                   a tensor of rank 0 or 1, as plain numbers
    Subgraph               a subgraph, as a function of its inputs

Seven more keyword-only parameters are provided by the engine where a kernel declares them:

    training            whether the module is in training mode; None for a kernel with `state`
                        whose statistics are frozen
    n_outputs           the number of outputs of the node
    input_type          the ONNX type of the first input (of a map: of its values); 0 if unknown.
                        Annotated as `torch.dtype`: the dtype that it has in the module now
    output_type         the same for the first output
    straight_through    whether all readers of the first output accept floating-point numbers in
                        place of integers, so that gradients can pass
    prepared            what `prepare` returned for the node's attributes when the model was loaded,
                        or `survey` for the model
    device              the device for new tensors
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import Parameter, signature
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    NamedTuple,
    SupportsIndex,
    TypeAlias,
    TypedDict,
    TypeVar,
)

import onnx.defs
import torch

from onnxinterp.kinds import Kind, alternatives, kind_of
from onnxinterp.lazy import lazy
from onnxinterp.schemas import NEWEST, schema_of
from onnxinterp.values import Host, Subgraph

if TYPE_CHECKING:
    from typing_extensions import Unpack  # typing has it from Python 3.11 on

F = TypeVar("F", bound=Callable[..., Any])
Function: TypeAlias = Callable[..., Any]
Pattern: TypeAlias = tuple[Any, ...]  # a pattern of nodes, see `fusion`

# the keyword-only parameters that the engine provides
ENGINE_KEYWORDS = frozenset(
    {"training", "n_outputs", "input_type", "output_type", "device", "straight_through", "prepared"}
)
# attributes without meaning for the result: about memory, or statistics of a training
IGNORED_ATTRIBUTES = frozenset({"consumed_inputs", "nodes_hitrates", "nodes_hitrates_as_tensor"})

# attributes by which a file lets a runtime be less exact -> the value that does not
ACCURACY_ATTRIBUTES = {"accuracy_level": 0}


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel function and what its registration declares.

    Attributes:
        function: the torch function.
        op_type: operator name.
        domain: "" for ai.onnx.
        since: the first opset that it implements; it serves until the next registered one.
        frozen: inputs whose tensors are never trained (scales, bounds, exponents).
        state: input name -> index of the output that is its next value in training mode.
        random: the result differs from call to call, so it is never folded into a constant.
        data_shaped: the shape of an output depends on elements of an input (NonZero).
        initializer: the node is a weight (Constant).
        any_type: the function accepts every element type as it is stored (see `carriers`).
        strings: the function only moves, compares or sorts elements, so that it may get integers
            that stand for strings (see `carriers`).
        uint64: how the function gets uint64: "bits", as int64 with the same bits, where the result
            is right modulo 2**64; "order", as int64 in the same order, where elements are only
            compared and moved; None, as torch.uint64.
        infer_output_type: (attributes, ONNX types of the inputs, 0 if unknown) -> ONNX type of the
            first output, where the schema does not determine it.
        alias: the output is the input (Identity). Exporters use it for weights that they merged
            because they are equal (see `ties`).
        accepts_float_for_int: inputs that may be floating-point tensors in place of integers.
        subgraph_of: attribute that names a value of the graph -> attributes that name others. The
            function gets the part of the graph between these values and that one as a `Subgraph`,
            whose inputs are the inputs of the node.
        prepare: computes `prepared` from attributes, once when a model is loaded. Its keyword-only
            parameters are the attributes, as the file stores them, tensors as numpy arrays. Tensors
            in the result, alone or in tuples, follow the module from device to device.
        survey: computes `prepared` from the whole file instead, once when a model is loaded. It
            gets the model and a function that reads a tensor of it as a numpy array.
        any_opset: the kernel also implements opsets before `since` (onnxruntime writes some
            operators into files of any opset).
        extra_body_outputs: number of subgraph outputs that are not outputs of the node (the
            condition of a Loop); None where the one has nothing to do with the other.
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
    survey: Callable[[onnx.ModelProto, Callable[[onnx.TensorProto], Any]], Any] | None = None
    any_opset: bool = False
    extra_body_outputs: int | None = 0

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """A kernel of this package is pickled as its key: not all functions have a global name."""
        versions = KERNELS.get((self.domain, self.op_type), {})
        if versions.get(self.since) is self and self.function.__module__.startswith("onnxinterp."):
            return _registered, (self.domain, self.op_type, self.since)
        return super().__reduce_ex__(protocol)

    @lazy
    def hints(self) -> dict[str, Any]:
        """Parameter name, or "return" -> resolved annotation."""
        return typing.get_type_hints(self.function)

    @lazy
    def parameters(self) -> tuple[Parameter, ...]:
        """The positional parameters: the inputs of a node."""
        every = signature(self.function).parameters.values()
        return tuple(p for p in every if p.kind is not p.KEYWORD_ONLY)

    @lazy
    def keywords(self) -> dict[str, Parameter]:
        """The keyword-only parameters of the function: attributes, and what the engine provides."""
        every = signature(self.function).parameters.values()
        return {p.name: p for p in every if p.kind is p.KEYWORD_ONLY}

    @lazy
    def attributes(self) -> dict[str, Parameter]:
        """The keyword-only parameters of the function and of `prepare`."""
        return {**self.reads, **self.keywords}

    @property
    def has_modes(self) -> bool:
        """Whether it computes something else in training mode."""
        return bool(self.state) or "training" in self.attributes

    @lazy
    def reads(self) -> dict[str, Parameter]:
        """The keyword-only parameters of `prepare`."""
        return dict(signature(self.prepare).parameters) if self.prepare else {}

    def parameter(self, index: int) -> Parameter | None:
        """The parameter of input number `index`; None where the kernel takes fewer inputs."""
        parameters = self.parameters
        if index < len(parameters):
            return parameters[index]
        last = parameters[-1] if parameters else None
        return last if last is not None and last.kind is last.VAR_POSITIONAL else None

    @lazy
    def kinds(self) -> dict[str, Kind]:
        """Input parameter name -> kind of input."""
        return {p.name: kind_of(self.hints.get(p.name)) for p in self.parameters}

    @lazy
    def returns_host(self) -> bool:
        """Whether the result is a host value for all inputs (Shape, Size)."""
        return self.hints.get("return") is Host

    @lazy
    def has_many_outputs(self) -> bool:
        """Whether the operator has a variadic output."""
        schema = schema_of(self.op_type, self.since, self.domain)
        many = onnx.defs.OpSchema.FormalParameterOption.Variadic
        return schema is not None and any(o.option is many for o in schema.outputs)

    def wants_subgraph(self, attribute: str) -> bool:
        """Whether the kernel takes an attribute as a `Subgraph`."""
        return Subgraph in alternatives(self.hints.get(attribute))

    def wants_dtype(self, attribute: str) -> bool:
        """Whether the kernel takes an attribute, an ONNX type number, as a torch dtype."""
        return torch.dtype in alternatives(self.hints.get(attribute))

    def may_be_none(self, attribute: str) -> bool:
        """Whether the annotation of an attribute admits None."""
        return type(None) in typing.get_args(self.hints.get(attribute))

    def wants_tensor(self, attribute: str) -> bool:
        """Whether the kernel takes an attribute as a tensor: then it is a weight."""
        return kind_of(self.hints.get(attribute)) is Kind.TENSOR

    def choices(self, attribute: str) -> frozenset[Any]:
        """The values that the annotation of an attribute lists; empty where it may be any."""
        members = alternatives(self.hints.get(attribute))
        listed = [typing.get_args(m) for m in members if typing.get_origin(m) is Literal]
        return frozenset().union(*listed) if len(listed) == len(members) else frozenset()

    def wants_host(self, attribute: str) -> bool:
        """Whether the kernel takes a tensor attribute as plain numbers."""
        return Host in alternatives(self.hints.get(attribute))


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


def _registered(domain: str, op_type: str, since: int) -> Kernel:
    return KERNELS[domain, op_type][since]


def find_kernel(function: Callable[..., Any]) -> Kernel | None:
    """The kernel that a function is registered as."""
    every = (kernel for versions in KERNELS.values() for kernel in versions.values())
    return next((kernel for kernel in every if kernel.function is function), None)


def kernel_of(name: str, function: Callable[..., Any]) -> Kernel:
    """A kernel for one module; a function that `op` has registered keeps its declarations.

    Args:
        name: "domain::Op", or "Op" of ai.onnx.
        function: the kernel function.
    """
    domain, _, op_type = name.rpartition("::")
    return find_kernel(function) or Kernel(function, op_type, domain, data_shaped=True)


KERNELS: dict[tuple[str, str], dict[int, Kernel]] = {}
HOST_RULES: dict[Function, Function] = {}
SAMPLES: dict[Function, Function] = {}
FUSIONS: dict[Function, list[Fusion]] = {}  # by the kernel of the last node
COMMUTATIVE: set[Function] = set()
REFUSED: dict[tuple[str, str], str] = {}  # operators without a kernel -> why, and what to do


class KernelOptions(TypedDict, total=False):
    """What a registration may declare; see `Kernel`."""

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
    survey: Callable[[onnx.ModelProto, Callable[[onnx.TensorProto], Any]], Any] | None
    any_opset: bool
    extra_body_outputs: int | None


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

    The function is returned unchanged. The head of this file describes its signature, `Kernel` the
    arguments. Operators of other domains than ai.onnx are `data_shaped` by default. Fusion may
    exchange the inputs of a `commutative` operator.

    Raises:
        ValueError: the operator is already registered at this opset.
    """
    shaped = bool(domain) if data_shaped is None else data_shaped

    def register(function: F) -> F:
        add_kernel(Kernel(function, name, domain, since, data_shaped=shaped, **options))
        if commutative:
            COMMUTATIVE.add(function)
        return function

    return register


def add_kernel(kernel: Kernel) -> None:
    """Register a kernel; raise a ValueError where the operator has one at this opset."""
    versions = KERNELS.setdefault((kernel.domain, kernel.op_type), {})
    if kernel.since in versions:
        raise ValueError(f"{kernel.op_type}-{kernel.since} is registered twice")
    versions[kernel.since] = kernel


def refuse(*op_types: str, domain: str, advice: str) -> None:
    """Declare why operators have no kernel, and what a user can do: errors say so."""
    REFUSED.update({(domain, op_type): advice for op_type in op_types})


def host(*functions: Callable[..., Any]) -> Callable[[F], F]:
    """Attach a host rule: it runs when all inputs that a kernel takes as tensors are host values.

    The rule has the signature of the kernel with `Host` in place of tensors. It returns a `Host`,
    a tuple of them, or NotImplemented where the result is not a host value: then the kernel runs.
    """

    def attach(rule: F) -> F:
        HOST_RULES.update(dict.fromkeys(functions, rule))
        return rule

    return attach


def fuse(*patterns: Pattern) -> Callable[[F], F]:
    """Attach one function that replaces several nodes where they match a pattern (see `fusion`).

    Where several patterns match, the one that was declared first is used.
    """

    def attach(function: F) -> F:
        for pattern in patterns:
            sources = frozenset(part[0] for part in pattern[1:] if isinstance(part, tuple))
            FUSIONS.setdefault(pattern[0], []).append(Fusion(pattern, function, sources))
        return function

    return attach


def sample(*functions: Callable[..., Any]) -> Callable[[F], F]:
    """Attach a function that draws one valid call of each kernel in `functions`."""

    def attach(draw_call: F) -> F:
        SAMPLES.update(dict.fromkeys(functions, draw_call))
        return draw_call

    return attach


def lookup(op_type: str, opset: int, domain: str = "") -> Kernel | None:
    """The newest kernel that is not newer than `opset`; None where there is none.

    An opset after `NEWEST` may have changed the operator: there, only kernels that are registered
    for an opset after `NEWEST` count.
    """
    versions = KERNELS.get((domain, op_type), {})
    beyond = opset > NEWEST.get(domain, opset)
    fit = [v for v in versions if v <= opset and (not beyond or v > NEWEST[domain])]
    early = [v for v in versions if versions[v].any_opset and v > opset]
    since = max(fit, default=min(early, default=None))
    return None if since is None else versions[since]


def value_name_attributes(op_type: str, domain: str = "") -> frozenset[str]:
    """The attributes that name values of the graph around a node, in any version."""
    return frozenset().union(*(k.subgraph_of for k in KERNELS.get((domain, op_type), {}).values()))

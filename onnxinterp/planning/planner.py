"""From a Graph to a Plan: steps resolved, constants folded, lanes chosen, last uses marked.

Two questions are answered for every value, once:

    Is it a constant?    Integers and other tensors that never train are; a node that reads nothing
                         else is run now and its outputs are constants too.
    May it be a host value at run time?   Small constants, what Shape gives, and what kernels with
                         a host rule make of such values. Only steps that read one look at classes
                         at run time; all others hand their inputs straight to the kernel.

A third one serves speed: does a host value depend on nothing but the shapes of the inputs? Such
values are the same whenever the same shapes come again, and a plan can be made with them known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from onnxinterp.dtypes import CARRIER
from onnxinterp.errors import InvalidModelError, OnnxError, UnsafeModelError
from onnxinterp.graph.ir import Graph, Node, ValueInfo, WeightRef
from onnxinterp.limits import Limits
from onnxinterp.planning import carriers, fusion
from onnxinterp.planning.attributes import decode, placed
from onnxinterp.registry import ENGINE_KEYWORDS, HOST_RULES, IGNORED_ATTRIBUTES, Kernel, Kind
from onnxinterp.runtime.guard import Guard, LimitExceeded, bytes_of_strings
from onnxinterp.runtime.interpreter import Frame, Interpreter, Plan, Step, describe
from onnxinterp.values import HOST_DTYPES, HOST_LENGTH, READABLE, Dtype, Host, host_of, number

NUMBER_KINDS = (Kind.LIST, Kind.SCALAR, Kind.HOST)
TENSOR_KINDS = (Kind.TENSOR, Kind.OPERAND)  # what a host rule can stand in for
Constant: TypeAlias = "Tensor | Host | np.ndarray[Any, Any]"


@dataclass(frozen=True)
class Setting:
    """What a plan depends on besides the graph.

    Attributes:
        weights: names of all weights of the module.
        constants: those weights that never train, and values that are no tensors (strings).
        hosts: the small ones among them as plain numbers.
        training: whether dropout drops and normalisation uses the statistics of the batch.
        device: where the weights are.
        dtypes: what the module's floating type has become since loading (float32 -> bfloat16).
        sized: host values that are known because the shapes of the inputs are.
        types: the ONNX types of the weights.
        frozen_stats: names of the state that is not brought up to date in training.
        fuse: whether nodes that are one function in torch run as one.
        guard: what watches the nodes that are run to make the plan.
    """

    weights: Set[str]
    constants: Mapping[str, Constant]
    hosts: Mapping[str, Host]
    training: bool
    device: torch.device
    dtypes: Mapping[torch.dtype, torch.dtype]
    sized: Mapping[str, Host] = field(default_factory=dict)
    types: Mapping[str, int] = field(default_factory=dict)
    frozen_stats: Set[str] = frozenset()
    fuse: bool = True
    guard: Guard = field(default_factory=lambda: Guard.of_plan(Limits()))


def plan(graph: Graph, setting: Setting) -> Plan:
    """Make the plan of a main graph, pruned to what its outputs need.

    Raises:
        InvalidModelError: there is none; the message names the node, where it is one's fault.
        UnsafeModelError: it takes longer than the limits admit.
    """
    try:
        return _Planner(setting).plan(graph)
    except OnnxError:
        raise
    except Exception as error:
        raise InvalidModelError(f"no plan can be made of the graph: {error}") from error


def snapshot(value: Constant) -> Host | None:
    """A constant as plain numbers, where it is small enough."""
    if isinstance(value, Host):
        return value
    if not isinstance(value, Tensor) or value.is_meta or value.dtype not in READABLE:
        return None
    return host_of(value) if value.ndim <= 1 and value.numel() <= HOST_LENGTH else None


class _Planner:
    """Plans one model in one mode; collects the constants its steps hand to kernels."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.hosts: dict[str, Host] = {**setting.hosts, **setting.sized}
        self.known: dict[str, Constant] = {**setting.constants, **setting.sized}
        self.device = setting.device
        if self.device.type == "meta":  # settings keep their numbers: they are folded elsewhere
            self.device = torch.device("cpu")
            self.known.update({name: h.tensor() for name, h in setting.hosts.items()})
        self.sized: set[str] = set()
        self.data_shaped: set[str] = set()
        self.constants: dict[str, Any] = {}
        self.types = {name: carriers.type_of(value) for name, value in self.known.items()}
        self.types.update(setting.types)
        self.straight_through: set[str] = set()
        self.may_be_host: set[str] = set()
        self.interpreter = Interpreter()

    def plan(self, graph: Graph, is_root: bool = True) -> Plan:
        """Plan a graph. What a subgraph gets as inputs is not known: any may be a host value."""
        inputs = tuple(i.name for i in graph.inputs)
        self.types.update({i.name: i.elem_type for i in graph.inputs if i.elem_type})
        if not is_root:
            self.may_be_host.update(inputs)
        self.straight_through |= graph.straight_through
        steps = [s for node in graph.nodes if (s := self._resolved(node)) is not None]
        answer = Kind.TENSOR if is_root else Kind.ANY
        outputs = tuple(self._place(o.name, answer) for o in graph.outputs)
        if self.setting.fuse:
            steps = fusion.fused(steps, outputs, self.hosts, self.constants)
        made = set(inputs).union(o for s in steps for o in s.outputs)
        sized = tuple(self.sized & made) if is_root else ()
        marked = _mark_dead(steps, {*outputs, *sized}, made)
        reads = [r for s in marked for r in s.reads] + list(outputs)
        captures = tuple(r for r in dict.fromkeys(reads) if r and r not in made)
        constants = self.constants if is_root else {}
        if self.setting.device.type == "meta":
            constants = {
                name: placed(value, self.setting.device) for name, value in constants.items()
            }
        types = tuple((self._dtype(o), o.shape) for o in graph.outputs)
        return Plan(marked, inputs, outputs, captures, constants, types, sized)

    def _elem_type(self, value: ValueInfo) -> int:
        """By what is declared of a value, or else by what makes it."""
        return value.elem_type or self.types.get(value.name, 0)

    def _dtype(self, value: ValueInfo) -> Dtype:
        """How a value is kept."""
        elem_type = self._elem_type(value)
        if elem_type == TensorProto.STRING:
            return np.dtype(object)
        dtype = CARRIER.get(elem_type)
        return None if dtype is None else self.setting.dtypes.get(dtype, dtype)

    def _resolved(self, node: Node) -> Step | None:
        """The step of a node; what is wrong with the node names it.

        Raises:
            InvalidModelError: no plan can be made of the node.
        """
        try:
            return self._step(node)
        except OnnxError:
            raise
        except Exception as error:
            message = f"node {node.name!r} ({node.op_type}, opset {node.opset}): {error}"
            raise InvalidModelError(message) from error

    def _step(self, node: Node) -> Step | None:
        """The step of a node; None where it is folded away."""
        kernel = node.kernel
        assert kernel is not None, "missing operators are refused before planning"
        if all(o in self.known for o in node.outputs):
            return None
        kinds = tuple(self._kind(kernel, node, i) for i in range(len(node.inputs)))
        lanes = [n for n, k in zip(node.inputs, kinds, strict=True) if n and k not in NUMBER_KINDS]
        host_rule = HOST_RULES.get(kernel.function)
        if not all(n in self.may_be_host or self._is_host(n) for n in lanes):
            host_rule = None
        wanted = [
            Kind.HOST if host_rule and k in TENSOR_KINDS else self._setting_kind(kernel, i, n, k)
            for i, (n, k) in enumerate(zip(node.inputs, kinds, strict=True))
        ]
        weights = {k: v.name for k, v in node.attributes.items() if isinstance(v, WeightRef)}
        subgraphs = self._subgraphs(kernel, node)
        step = Step(
            node,
            self._function(kernel, node, kinds),
            tuple(self._place(n, k) for n, k in zip(node.inputs, wanted, strict=True)),
            node.outputs,
            self._attributes(kernel, node),
            host_rule is None and self._is_direct(kernel, node, kinds),
            kinds,
            self._numbers(node, kinds),
            host_rule,
            subgraphs,
            {k: self._place(v, Kind.TENSOR) for k, v in weights.items()},
            "device" in kernel.attributes,
            self._updates(kernel, node),
        )
        if self._fold(step, kernel):
            return None
        if kernel.returns_host or host_rule or step.subgraphs:
            self.may_be_host.update(node.outputs)
        self._trace_sizes(step, kernel)
        return step

    def _numbers(self, node: Node, kinds: tuple[Kind, ...]) -> tuple[tuple[int, Kind], ...]:
        """The inputs that must be read into plain numbers at run time."""
        wanted = enumerate(zip(node.inputs, kinds, strict=True))
        return tuple(
            (i, k) for i, (n, k) in wanted if n and n not in self.known and k in NUMBER_KINDS
        )

    def _trace_sizes(self, step: Step, kernel: Kernel) -> None:
        """Note which outputs are host values made of shapes alone, and whose shape is not."""
        node = step.node
        reads = [n for n in node.reads if n not in self.known and n not in self.setting.weights]
        of_sizes = all(n in self.sized for n in reads)
        shaped = kernel.data_shaped or bool(step.subgraphs)
        shaped |= any(n in self.data_shaped for n in reads)
        shaped |= any(
            n in reads and n not in self.sized and k not in TENSOR_KINDS
            for n, k in zip(node.inputs, step.kinds, strict=True)
        )
        if shaped:
            self.data_shaped.update(node.outputs)
        elif kernel.returns_host or (step.host_rule and of_sizes):
            self.sized.update(node.outputs)

    def _function(self, kernel: Kernel, node: Node, kinds: tuple[Kind, ...]) -> Callable[..., Any]:
        """The kernel's function, made fit for the element types that come in."""
        inputs = [self.types.get(name, 0) for name in node.inputs]
        bodies = [
            [self._elem_type(o) for o in graph.outputs]
            for graph in node.attributes.values()
            if isinstance(graph, Graph) and not kernel.subgraph_of
        ]
        outputs = carriers.output_types(node, inputs, bodies)
        self.types.update(zip(node.outputs, outputs, strict=True))
        return carriers.emulate(kernel, node.attributes, kinds, inputs, outputs)

    @staticmethod
    def _kind(kernel: Kernel, node: Node, index: int) -> Kind:
        parameter = kernel.parameter(index)
        if parameter is None:
            message = f"node {node.name!r}: {kernel.op_type} at opset {node.opset} takes at most "
            raise InvalidModelError(f"{message}{len(kernel.parameters)} inputs")
        return kernel.kinds[parameter.name]

    def _is_host(self, name: str) -> bool:
        """Whether a constant is of a type that shape arithmetic is done in."""
        return name in self.hosts and self.hosts[name].dtype in HOST_DTYPES

    def _setting_kind(self, kernel: Kernel, index: int, name: str, kind: Kind) -> Kind:
        """A constant exponent or index goes as a number: torch is far quicker with it."""
        parameter, host = kernel.parameter(index), self.hosts.get(name)
        if kind is not Kind.OPERAND or parameter is None or host is None or host.rank:
            return kind
        if host.dtype in carriers.CARRIED_BY_BITS:
            return kind  # the bits are what the kernel sees, not the number
        setting = parameter.name in kernel.frozen or host.dtype is torch.int64
        return Kind.SCALAR if setting else kind

    def _is_direct(self, kernel: Kernel, node: Node, kinds: tuple[Kind, ...]) -> bool:
        """Whether all inputs can be handed over as they stand in the frame."""
        if "device" in kernel.attributes:
            return False
        if any(isinstance(v, (Graph, WeightRef)) for v in node.attributes.values()):
            return False
        return not any(
            n in self.may_be_host or (n and n not in self.known and k in NUMBER_KINDS)
            for n, k in zip(node.inputs, kinds, strict=True)
        )

    def _attributes(self, kernel: Kernel, node: Node) -> dict[str, Any]:
        """Keyword arguments: the node's attributes and what the engine provides."""
        given = {
            "n_outputs": len(node.outputs),
            "input_type": self.types.get(node.inputs[0], 0) if node.inputs else 0,
            "output_type": self.types.get(node.outputs[0], 0),
            "training": None if self._has_frozen_stats(kernel, node) else self.setting.training,
            "straight_through": node.outputs[0] in self.straight_through,
            "prepared": placed(node.prepared, self.setting.device),
        }
        placing = self.setting.dtypes, self.setting.device
        attributes = {
            k: decode(kernel, k, v, *placing) for k, v in given.items() if k in kernel.keywords
        }
        for name, parameter in kernel.keywords.items():  # a default follows the module, too
            default = parameter.default
            if isinstance(default, torch.dtype) and default in self.setting.dtypes:
                attributes.setdefault(name, self.setting.dtypes[default])
        for name, value in node.attributes.items():
            if name not in kernel.attributes or name in ENGINE_KEYWORDS:
                if name in IGNORED_ATTRIBUTES:
                    continue
                message = f"node {node.name!r}: {kernel.op_type} has no attribute {name!r}"
                raise InvalidModelError(f"{message} at opset {node.opset}")
            if name in kernel.keywords and not isinstance(value, (Graph, WeightRef)):
                attributes[name] = decode(kernel, name, value, *placing)
        return attributes

    def _subgraphs(self, kernel: Kernel, node: Node) -> dict[str, Plan]:
        graphs = {k: v for k, v in node.attributes.items() if isinstance(v, Graph)}
        for name in graphs:
            if not kernel.wants_subgraph(name):
                raise InvalidModelError(f"{kernel.op_type} takes no subgraph {name!r}")
        for graph in graphs.values():
            if len(graph.inputs) == len(node.inputs):  # what it leaves undeclared comes as it is
                told = zip(graph.inputs, node.inputs, strict=True)
                self.types.update({i.name: self.types.get(n, 0) for i, n in told})
        return {name: self.plan(g, is_root=False) for name, g in graphs.items()}

    def _updates(self, kernel: Kernel, node: Node) -> tuple[tuple[str, int], ...]:
        """The state that this step brings up to date when training."""
        if not self.setting.training or self._has_frozen_stats(kernel, node) or node.is_copy:
            return ()
        position = {p.name: i for i, p in enumerate(kernel.parameters)}
        updates = [(node.inputs[position[p]], output) for p, output in kernel.state.items()]
        return tuple((name, output) for name, output in updates if name in self.setting.weights)

    def _has_frozen_stats(self, kernel: Kernel, node: Node) -> bool:
        """Whether the statistics that a node reads are frozen."""
        names = zip(kernel.parameters, node.inputs, strict=False)
        return any(
            p.name in kernel.state and name in self.setting.frozen_stats for p, name in names
        )

    def _place(self, name: str, kind: Kind) -> str:
        """The name under which a value stands in the frame in the form a kernel wants."""
        if name not in self.known:
            return name
        if (
            kind is Kind.ANY
            and self._is_host(name)
            and not self.hosts[name].dtype.is_floating_point
        ):
            kind = Kind.HOST  # a counter or a condition that a loop carries
        value, as_it_is = self.known[name], kind in (*TENSOR_KINDS, Kind.ANY)
        if as_it_is and name in self.setting.weights:
            return name  # read from the module's weights at every run
        key = f"{name}\0{kind.value}"
        if key not in self.constants:
            self.constants[key] = self._convert(name, value, kind)
        return key

    def _convert(self, name: str, value: Constant, kind: Kind) -> Any:
        if isinstance(value, np.ndarray):
            return value
        if kind in (*TENSOR_KINDS, Kind.ANY):
            return value.tensor(self.device) if isinstance(value, Host) else value
        host = self.hosts.get(name) or host_of(value)
        if kind is Kind.HOST:
            return host
        return host.numbers if kind is Kind.LIST else number(host)

    def _fold(self, step: Step, kernel: Kernel) -> bool:
        """Run a step that reads constants only, and remember its outputs as constants."""
        if kernel.random or step.updates or step.subgraphs:
            return False
        values: dict[str, Any] = {"": None}
        for name in (*step.inputs, *step.tensors.values()):
            if name and name not in self.constants and name not in self.known:
                return False
            values[name] = self.constants[name] if name in self.constants else self.known.get(name)
        guard = self.setting.guard
        try:
            with guard:
                result = self.interpreter.run_step(step, Frame(values, self.device, guard))
                guard.record(result)
        except Exception:
            self._refuse_delay(step, values)
            return False  # what is wrong with the node is said when it runs, with its inputs
        results = result if isinstance(result, tuple) else (result,)
        stored = all(isinstance(r, (Tensor, Host, np.ndarray)) for r in results)
        if not stored or len(results) < len(step.outputs):
            return False
        if self.setting.sized and any(_is_large(r) for r in results):
            return False  # one copy of it for each size that comes would be too much
        for name, value in zip(step.outputs, results, strict=False):
            self.known[name] = value
            if (host := snapshot(value)) is not None:
                self.hosts[name] = host
        return True

    def _refuse_delay(self, step: Step, values: dict[str, Any]) -> None:
        """Say so where folding has taken all the time there is; no other limit ends it."""
        try:
            self.setting.guard.seconds_left()
        except LimitExceeded as error:
            raise UnsafeModelError(f"{describe(step, values)}: {error}") from None


FOLDED_BYTES = 2**20  # of a constant that holds for one set of input shapes


def _is_large(value: Constant) -> bool:
    if isinstance(value, Tensor):
        return value.untyped_storage().nbytes() > FOLDED_BYTES
    return isinstance(value, np.ndarray) and bytes_of_strings(value) > FOLDED_BYTES


def _mark_dead(steps: list[Step], kept: set[str], made: set[str]) -> tuple[Step, ...]:
    """Drop steps that nobody needs; tell the others which values nobody reads after them."""
    alive, marked = set(kept), []
    for step in reversed(steps):
        if alive.isdisjoint(step.outputs) and not step.updates:
            continue
        used = (*step.reads, *step.outputs)
        dead = tuple(n for n in dict.fromkeys(used) if n in made and n not in alive)
        alive.update(dead)
        marked.append(replace(step, dead=dead))
    return tuple(reversed(marked))

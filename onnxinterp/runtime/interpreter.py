"""The loop: gather inputs, call the kernel, store outputs, drop the dead.

    Interpreter.run(plan, frame)              the loop
        Interpreter.run_step(step, frame)     one step: the place to override
            Step.call(interpreter, frame)     where inputs need more than a look-up

Override `run_step` to profile, trace or change what runs:

    class Timed(Interpreter):
        def run_step(self, step, frame):
            start = perf_counter()
            result = super().run_step(step, frame)
            self.seconds[step.node.op_type] += perf_counter() - start
            return result

    module.interpreter = Timed()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from onnxinterp.errors import InputError, NodeError, UnsafeModelError, plain
from onnxinterp.extras import MissingExtraError
from onnxinterp.graph.ir import Node
from onnxinterp.registry import Kind
from onnxinterp.runtime.guard import Guard, LimitExceeded
from onnxinterp.values import Host, OutputType, Subgraph, host_of, number

T = TypeVar("T")

NUMBER_OBJECT = 40  # bytes of a Python number in a list


@dataclass(frozen=True, eq=False)
class Step:
    """One node, resolved: nothing about it is looked up again at forward time.

    Attributes:
        node: the node it runs.
        kernel: the torch function.
        inputs: names of the values to hand over, in order.
        outputs: names to store the results under.
        attributes: keyword arguments known at planning time.
        direct: the inputs can be handed over as they are; otherwise `call` brings them to the
            lane (tensor or plain number) that the kernel wants.
        kinds: what the kernel wants for each input.
        numbers: (index, kind) of the inputs that must be read into plain numbers at run time.
        host_rule: the rule for plain numbers, where some input may be one.
        subgraphs: attribute name -> plan.
        tensors: attribute name -> name of the weight it holds.
        wants_device: the kernel makes tensors out of nothing.
        updates: (weight name, index of the output that is its next value).
        dead: values that no later step reads.
    """

    node: Node
    kernel: Callable[..., Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    direct: bool = True
    kinds: tuple[Kind, ...] = ()
    numbers: tuple[tuple[int, Kind], ...] = ()
    host_rule: Callable[..., Any] | None = None
    subgraphs: dict[str, Plan] = field(default_factory=dict)
    tensors: dict[str, str] = field(default_factory=dict)
    wants_device: bool = False
    updates: tuple[tuple[str, int], ...] = ()
    dead: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of all values that it needs, those of its subgraphs included."""
        captured = (name for plan in self.subgraphs.values() for name in plan.captures)
        return (*self.inputs, *self.tensors.values(), *captured, *(n for n, _ in self.updates))

    def call(self, interpreter: Interpreter, frame: Frame) -> Any:
        """Run with inputs brought to the lane that the kernel, or its host rule, wants."""
        values, keywords = frame.values, self.attributes
        args = [values[name] for name in self.inputs]
        for index, kind in self.numbers:
            args[index] = _numbers(args[index], kind, frame.guard)
        if self.subgraphs or self.tensors:
            bound = {n: bind(p, interpreter, frame, self.node) for n, p in self.subgraphs.items()}
            keywords = {**keywords, **bound, **{k: values[n] for k, n in self.tensors.items()}}
        if self.host_rule is not None and not any(map(_is_array, args)):
            result = self.host_rule(*args, **keywords)
            if result is not NotImplemented:
                return result
        if self.wants_device:
            keywords = {**keywords, "device": frame.device}
        if Host in map(type, args):
            args = _tensors(args, self.kinds, frame.device)
        return self.kernel(*args, **keywords)


@dataclass(frozen=True, eq=False)
class Plan:
    """Steps in order, between the values that come in and those that go out.

    Attributes:
        steps: what runs.
        inputs: names of the graph's inputs.
        outputs: names of the graph's outputs.
        captures: names that the steps read and that stand in the frame before the first step.
        constants: values known at planning time; those of subgraphs stand in the root plan.
        output_types: type and declared shape of each output.
        sized: host values that depend on nothing but the shapes of the inputs; they stay in the
            frame to its end.
    """

    steps: tuple[Step, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    captures: tuple[str, ...]
    constants: dict[str, Any]
    output_types: tuple[OutputType, ...]
    sized: tuple[str, ...] = ()


class Frame:
    """The values alive at one moment of one run, and what holds for the whole of it.

    Attributes:
        values: by name; "" is None.
        device: where new tensors go.
        guard: what watches the call; None where it has no bounds.
        loop_trips: how often a subgraph may run each time its node does; None is no bound.
    """

    __slots__ = ("device", "guard", "loop_trips", "values")

    def __init__(
        self,
        values: dict[str, Any],
        device: torch.device,
        guard: Guard | None = None,
        loop_trips: int | None = None,
    ) -> None:
        self.values = values
        self.device = device
        self.guard = guard
        self.loop_trips = loop_trips

    def watched(self, run: Callable[[Plan, Frame], T], plan: Plan) -> T:
        """Run a plan under the guard, where there is one."""
        if self.guard is None:
            return run(plan, self)
        with self.guard:
            return run(plan, self)


class Interpreter:
    """Runs plans. Stateless, so that threads may share one."""

    def run(self, plan: Plan, frame: Frame) -> tuple[Any, ...]:
        """Run all steps; `frame.values` holds inputs, weights, constants and "" -> None.

        Raises:
            NodeError: a kernel failed; the message names the node and what it got.
            UnsafeModelError: the call went over its limits; the message names the node, too.
            MissingExtraError: a kernel needs a package that is not installed.
        """
        values, guard = frame.values, frame.guard
        for step in plan.steps:
            try:
                result = self.run_step(step, frame)
                if guard is not None:
                    guard.record(result)
            except (NodeError, InputError, MissingExtraError, UnsafeModelError):
                raise  # it says where already, or what to do
            except LimitExceeded as error:
                raise UnsafeModelError(f"{describe(step, values)}: {error}") from None
            except Exception as error:
                if _is_signal(error):
                    raise
                raise NodeError(describe(step, values)) from error
            if result.__class__ is not tuple and len(step.outputs) == 1:
                values[step.outputs[0]] = result
            else:
                values.update(named(step, result))
            if step.updates:
                with torch.no_grad():
                    for name, index in step.updates:
                        values[name].copy_(result[index])
            for name in step.dead:
                del values[name]
        return tuple([values[name] for name in plan.outputs])

    def run_step(self, step: Step, frame: Frame) -> Any:
        """Run one step: give its one result, or the tuple of them."""
        if step.direct:
            values = frame.values
            return step.kernel(*[values[name] for name in step.inputs], **step.attributes)
        return step.call(self, frame)


def named(step: Step, result: Any) -> Iterable[tuple[str, Any]]:
    """What a kernel gave, by the names of the node's outputs: it may give more than are asked for.

    Raises:
        NodeError: it gave fewer.
    """
    results = result if isinstance(result, tuple) else (result,)
    if len(results) < len(step.outputs):
        node = step.node
        message = f"node {node.name!r} ({node.op_type}) has {len(step.outputs)} outputs"
        raise NodeError(f"{message}, but {len(results)} came of it")
    return zip(step.outputs, results, strict=False)


def bind(plan: Plan, interpreter: Interpreter, frame: Frame, node: Node) -> Subgraph:
    """A subgraph of `node` as a callable that sees the values around it, and counts its runs."""
    around = {name: frame.values[name] for name in plan.captures}
    guard, most = frame.guard, frame.loop_trips
    trips = 0

    def call(inputs: Sequence[Any]) -> tuple[Any, ...]:
        nonlocal trips
        if most is not None and not torch.compiler.is_compiling():
            trips += 1
            if trips > most:
                message = f"node {node.name!r} ({node.op_type}) runs its body more often than"
                raise UnsafeModelError(f"{message} limits.loop_trips = {most:,}")
        values = {"": None, **around, **dict(zip(plan.inputs, inputs, strict=True))}
        return interpreter.run(plan, Frame(values, frame.device, guard, most))

    return Subgraph(call, len(plan.inputs), plan.output_types)


def _is_signal(error: Exception) -> bool:
    """Whether it is no failure: so torch stops recomputing a checkpoint."""
    cls = type(error)
    return cls.__name__.startswith("_") and cls.__module__.startswith("torch.")


def _is_array(value: Any) -> bool:
    """Whether a value is a tensor, or strings."""
    return isinstance(value, (Tensor, np.ndarray))


def _numbers(value: Any, kind: Kind, guard: Guard | None) -> Any:
    """Bring a value to the plain numbers that the kernel wants."""
    if value is None:
        return None
    if guard is not None and isinstance(value, Tensor):
        size = NUMBER_OBJECT * value.numel()
        guard.reserve(size, size)
    if kind is Kind.LIST:
        return host_of(value).numbers
    return host_of(value) if kind is Kind.HOST else number(value)


def _tensors(args: list[Any], kinds: Sequence[Kind], device: torch.device) -> list[Any]:
    """Bring host values to tensors where the kernel wants them.

    A rank-0 operand beside a tensor stays a number: torch keeps the tensor's type then.
    """
    beside = any(isinstance(a, Tensor) for a in args)
    return [
        a
        if not isinstance(a, Host) or kind in (Kind.HOST, Kind.ANY)
        else a.data
        if kind is Kind.OPERAND and beside and not a.rank
        else a.tensor(device)
        for a, kind in zip(args, kinds, strict=True)
    ]


def describe(step: Step, values: dict[str, Any]) -> str:
    """A node and what it got, for an error message."""
    node = step.node
    op = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    given = [(name.partition("\0")[0], values.get(name)) for name in step.inputs]
    inputs = ", ".join([f"{plain(name)}: {_brief(value)}" for name, value in given])
    return f"node {node.name!r} ({op}, opset {node.opset}) failed on ({inputs})"


def _brief(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"string{list(value.shape)}"
    if isinstance(value, (list, dict)):
        return f"{type(value).__name__} of {len(value)}"
    return repr(value)[:80]

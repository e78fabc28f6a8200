"""The loop: gather inputs, call the kernel, store outputs, drop the dead.

    Interpreter.start(plan, frame)            a main plan, under its limits where it has some
        Interpreter.run(plan, frame)          the loop
            Interpreter.run_step(step, frame) one step: the place to override

Override `run_step` to profile, trace or change what runs:

    class Timed(Interpreter):
        def run_step(self, step, frame):
            start = perf_counter()
            result = super().run_step(step, frame)
            self.seconds[step.op] += perf_counter() - start
            return result

    module.interpreter = Timed()
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from inspect import signature
from threading import get_ident
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onnxinterp.errors import InputError, NodeError, UnsafeModelError, plain
from onnxinterp.extras import MissingExtraError
from onnxinterp.graph.ir import Node
from onnxinterp.kinds import Kind
from onnxinterp.runtime.guard import Guard, LimitExceeded
from onnxinterp.runtime.plan import Block, Key, Plan, Step, onnx_name_of, read_weights
from onnxinterp.values import Host, Subgraph, host_of, number, numbers

FAILURES = (RuntimeError, IndexError, ValueError, TypeError, NotImplementedError)  # of a layer
NUMBER_BYTES = 40  # of a Python number in a list


class Frame:
    """The values alive at one moment of one run, and what holds for the whole of it.

    Attributes:
        values: by key (see `plan.Key`); "" is None.
        device: where new tensors are created.
        guard: watches the call; None where it has no limits.
        loop_trips: how often a subgraph may run each time its node does; None is no limit.
        root: the module that is called; None where there is none.
        module: the module inside of which the plan runs: the root, or that of a block.
    """

    __slots__ = ("device", "guard", "loop_trips", "module", "root", "values")

    def __init__(
        self,
        values: dict[Key, Any],
        device: torch.device,
        guard: Guard | None = None,
        loop_trips: int | None = None,
        root: nn.Module | None = None,
        module: nn.Module | None = None,
    ) -> None:
        self.values = values
        self.device = device
        self.guard = guard
        self.loop_trips = loop_trips
        self.root = root
        self.module = root if module is None else module


class Interpreter:
    """Runs plans. Stateless, so that threads may share one."""

    def start(self, plan: Plan, frame: Frame) -> tuple[Any, ...]:
        """Run a main plan; under the guard of its frame, where it has one. Raises as `run` does."""
        if frame.guard is None:
            return self.run(plan, frame)
        with frame.guard:
            return self.run(plan, frame)

    def run(self, plan: Plan, frame: Frame) -> tuple[Any, ...]:
        """Run all steps; `frame.values` holds inputs, weights, constants and "" -> None.

        Raises:
            NodeError: a kernel failed; the message names the node, its inputs and the cause.
            UnsafeModelError: the call exceeded its limits; the message names the node, too.
            MissingExtraError: a kernel needs a package that is not installed.
        """
        values, guard = frame.values, frame.guard
        for step, dead in zip(plan.steps, plan.dead, strict=True):
            try:
                result = self.run_step(step, frame)
                if guard is not None and (step.block is None or step.block.is_leaf):
                    guard.record(result)
            except (NodeError, InputError, MissingExtraError, UnsafeModelError):
                raise  # the message is complete
            except LimitExceeded as error:
                raise UnsafeModelError(f"{describe(step, values)}: {error}") from None
            except Exception as error:
                if _is_from_outside(step, error) or torch.compiler.is_dynamo_compiling():
                    raise  # the compiler cannot trace how the message is made
                raise NodeError(f"{describe(step, values)}: {_cause(error)}") from error
            if result.__class__ is not tuple and len(step.outputs) == 1:
                values[step.outputs[0]] = result
            else:
                values.update(by_name(step, result))
            if step.updates:
                with torch.no_grad():
                    for name, index in step.updates:
                        values[name].copy_(result[index])
            for key in dead:
                del values[key]
        return tuple([values[key] for key in plan.outputs])

    def run_step(self, step: Step, frame: Frame) -> Any:
        """Run one step: return its one result, or the tuple of them."""
        if step.direct:
            values = frame.values
            return step.kernel(*[values[key] for key in step.inputs], **step.attributes)
        return self._convert_and_call(step, frame, step.attributes)

    def _convert_and_call(self, step: Step, frame: Frame, keywords: dict[str, Any]) -> Any:
        """Call the kernel, or its host rule, with inputs converted to what it wants."""
        if step.block is not None:
            return self._call_block(step, step.block, frame)
        values = frame.values
        args = [values[key] for key in step.inputs]
        for index, kind in step.numbers:
            args[index] = _read_numbers(args[index], kind, frame.guard)
        if step.subgraphs or step.weights:
            bound = {n: self._bind(p, frame, step.node) for n, p in step.subgraphs.items()}
            keywords = {**keywords, **bound, **{k: values[n] for k, n in step.weights.items()}}
        if step.host_rule is not None and not any(map(_is_array, args)):
            result = step.host_rule(*args, **keywords)
            if result is not NotImplemented:
                return result
        if step.wants_device:
            keywords = {**keywords, "device": frame.device}
        if Host in map(type, args):
            args = _to_tensors(args, step.kinds, frame.device)
        return step.kernel(*args, **keywords)

    def _call_block(self, step: Step, block: Block, frame: Frame) -> Any:
        """Call the module that a block belongs to; what is in its place may be called instead."""
        assert frame.root is not None, "a nested plan runs in the call of a module"
        module = module_of(block, frame.root, frame.module or frame.root)
        inputs = [frame.values[key] for key in step.inputs]
        if block.is_leaf:
            return module(*[v.tensor(frame.device) if isinstance(v, Host) else v for v in inputs])
        if module is not block.level and all(m is not block.level for m in module.modules()):
            return module(*inputs)  # a new layer in the place of the old one
        call = BlockCall(block, self, frame)
        if module is block.level or _passes_keywords(module):
            return module(*inputs, run=call)
        runs = block.level.__dict__["_runs"]  # `tree.Level` looks there
        runs[get_ident()] = call
        try:
            return module(*inputs)
        finally:
            del runs[get_ident()]

    def _bind(self, plan: Plan, frame: Frame, node: Node) -> Subgraph:
        """A subgraph of `node` as a function: it sees the outer values, and counts its runs."""
        outer = {key: frame.values[key] for key in plan.captures}
        runner = self
        if torch.compiler.is_dynamo_compiling() and type(self) in (Interpreter, _Settled):
            runner = _Settled()
            outer.update(_settled(plan.constants, plan.numbers()))
        guard, limit = frame.guard, frame.loop_trips
        trips = 0

        def call(inputs: Sequence[Any], outer: Mapping[Key, Any]) -> tuple[Any, ...]:
            nonlocal trips
            if limit is not None and not torch.compiler.is_compiling():
                trips += 1
                if trips > limit:
                    message = f"node {node.name!r} ({node.op_type}) runs its body more often than"
                    raise UnsafeModelError(f"{message} limits.loop_trips = {limit:,}")
            values: dict[Key, Any] = {"": None, **outer}
            values.update(zip(plan.inputs, inputs, strict=True))
            return runner.run(plan, Frame(values, frame.device, guard, limit))

        return Subgraph(call, outer, len(plan.inputs), plan.output_types, plan.static_shapes)


class _Settled(Interpreter):
    """Runs subgraphs while the compiler traces: their attributes are no symbols."""

    def run_step(self, step: Step, frame: Frame) -> Any:
        """Run one step, as any interpreter."""
        keywords = _settled(step.attributes, step.settings())
        if step.direct:
            values = frame.values
            return step.kernel(*[values[key] for key in step.inputs], **keywords)
        return self._convert_and_call(step, frame, keywords)


def _settled(held: Mapping[Any, Any], numbers: Sequence[Any]) -> dict[Any, Any]:
    """Values, with numbers that are constants in the place of those that may be symbols."""
    pairs = zip(held.items(), numbers, strict=True)
    return {k: value if made is None else _of_numbers(value, made) for (k, value), made in pairs}


def _of_numbers(value: Any, made: Any) -> Any:
    """A value like another, of other numbers, and made here: no guard asks where it is from."""
    if isinstance(value, Host):
        return Host([*made], value.dtype, value.shape)
    if isinstance(value, list):
        return [*made]
    return (*made,) if isinstance(value, tuple) else made


class BlockCall:
    """Runs a block in the call of its module, perhaps again when a checkpoint recomputes it."""

    __slots__ = ("block", "frame", "interpreter")

    def __init__(self, block: Block, interpreter: Interpreter, around: Frame) -> None:
        self.block = block
        self.interpreter = interpreter
        self.frame = Frame({}, around.device, around.guard, around.loop_trips, around.root)

    def __call__(self, module: nn.Module, inputs: Sequence[Any]) -> Any:
        """Return the one result, or the tuple of them."""
        block, around = self.block, self.frame
        assert around.root is not None, "as for the block"
        device = next((v.device for v in inputs if isinstance(v, Tensor)), around.device)
        values: dict[Key, Any] = {"": None, **block.plan.constants}
        values.update(zip(block.plan.inputs, inputs, strict=True))
        values.update(read_weights(block.reads, around.root))
        frame = Frame(values, device, around.guard, around.loop_trips, around.root, module)
        results = self.interpreter.run(block.plan, frame)
        return results[0] if len(results) == 1 else results


def _passes_keywords(wrapper: nn.Module) -> bool:
    """Whether a module passes any keyword argument on to the module in it."""
    parameters = signature(wrapper.forward).parameters.values()
    return any(p.kind is p.VAR_KEYWORD for p in parameters)


def module_of(block: Block, root: nn.Module, around: nn.Module) -> nn.Module:
    """The module that a block runs in now: its own, or what a tool has put in its place.

    Args:
        block: the block.
        root: the module that is called.
        around: the module that the block is called in.
    """
    module = around if block.is_inside else root
    for attribute in block.attributes:
        found = module._modules.get(attribute)
        module = getattr(module, attribute) if found is None else found
    return module


def by_name(step: Step, result: Any) -> Iterable[tuple[str, Any]]:
    """Results by the names of the node's outputs; a kernel may return more than the node names.

    Raises:
        NodeError: it returned fewer.
    """
    results = result if isinstance(result, tuple) else (result,)
    if len(results) < len(step.outputs):
        node, wanted, got = step.node, len(step.outputs), len(results)
        message = f"node {node.name!r} ({node.op_type}): the kernel must return {wanted} outputs"
        raise NodeError(f"{message}, got {got}")
    return zip(step.outputs, results, strict=False)


def _is_from_outside(step: Step, error: Exception) -> bool:
    """Whether an exception is not that of a kernel: a hook of a module may end a call.

    Torch ends the recomputation of a checkpoint with one, too.
    """
    if step.block is not None:
        return not step.block.is_leaf or type(error) not in FAILURES
    return is_from_outside(error)


def is_from_outside(error: Exception) -> bool:
    """Whether an exception is one of those by which torch ends a call, not that of a function."""
    cls = type(error)
    return cls.__name__.startswith("_") and cls.__module__.startswith("torch.")


def _is_array(value: Any) -> bool:
    """Whether a value is a tensor, or an array of strings."""
    return isinstance(value, (Tensor, np.ndarray))


def _read_numbers(value: Any, kind: Kind, guard: Guard | None) -> Any:
    """Read a value into the plain numbers that a kernel wants."""
    if value is None:
        return None
    if guard is not None and isinstance(value, Tensor):
        size = NUMBER_BYTES * value.numel()
        guard.reserve(size, size)
    if kind is Kind.LIST:
        return numbers(value)
    return host_of(value) if kind is Kind.HOST else number(value)


def _to_tensors(args: list[Any], kinds: Sequence[Kind], device: torch.device) -> list[Any]:
    """Convert host values to tensors where the kernel wants them.

    A rank-0 operand beside a tensor stays a number: torch then keeps the tensor's dtype.
    """
    beside_tensor = any(isinstance(a, Tensor) for a in args)
    return [
        a
        if not isinstance(a, Host) or kind in (Kind.HOST, Kind.LATE, Kind.ANY)
        else a.data
        if kind is Kind.OPERAND and beside_tensor and not a.rank
        else a.tensor(device)
        for a, kind in zip(args, kinds, strict=True)
    ]


def describe(step: Step, values: Mapping[Key, Any]) -> str:
    """A step and its inputs, for an error message."""
    given = ((onnx_name_of(key), values.get(key)) for key in step.inputs)
    inputs = ", ".join([f"{plain(name)}: {_brief(value)}" for name, value in given if name])
    names = [part.node.name for part in step.parts] or [step.node.name]
    nodes = f"node{'s' if step.parts else ''} {', '.join(map(repr, names))}"
    return f"{nodes} ({step.op}, opset {step.node.opset}) failed on ({inputs})"


def _cause(error: Exception) -> str:
    """What went wrong, in a line: the message of torch, without the stack of its C++ code."""
    text = str(error).strip().partition("\nException raised from")[0]
    return " ".join(text.split()) if text else type(error).__name__


def _brief(value: Any) -> str:
    """A value as its dtype and shape, or in a few characters."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"string{list(value.shape)}"
    if isinstance(value, (list, dict)):
        return f"{type(value).__name__} of {len(value)}"
    return repr(value)[:80]

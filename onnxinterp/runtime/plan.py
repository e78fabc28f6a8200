"""A plan: the steps of a model in order, each with its kernel and all that is known in advance.

    Plan        steps, and the names of what goes in and what comes out
        Step    one node, or several that run as one function
        Block   steps that run inside the call of a module: a step of a nested plan
    Ref         a constant in the form in which a kernel takes it

`print(plan)` lists the steps. Plans are derived from a `Graph` (see `planning`), never stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor, nn

from onnxinterp.errors import plain
from onnxinterp.graph.ir import Node
from onnxinterp.kinds import Kind
from onnxinterp.lazy import lazy
from onnxinterp.values import Host, OutputType, Shape, constant_when_compiled, read_weight


class Ref(NamedTuple):
    """A constant in one form: a kernel may want a list of numbers where another wants a tensor.

    Attributes:
        name: the ONNX name of the value.
        kind: the form, a value of `Kind`.
    """

    name: str
    kind: str


Key: TypeAlias = "str | Ref"
"""What a value is stored under in a frame: its ONNX name, or a `Ref` for constants."""


def onnx_name_of(key: Key) -> str:
    """The ONNX name of the value behind a key."""
    return key.name if isinstance(key, Ref) else key


@dataclass(frozen=True, eq=False, kw_only=True)
class Step:
    """One node, resolved: nothing about it is looked up again at forward time.

    Attributes:
        node: the node it runs; of a fused step, the last of its nodes.
        kernel: the torch function.
        inputs: keys of its positional arguments, in order.
        outputs: names under which the results are stored.
        attributes: keyword arguments known at planning time.
        direct: the arguments are passed as they are; otherwise the interpreter first converts them
            to what the kernel wants (a tensor or plain numbers).
        kinds: what the kernel wants for each input.
        numbers: (index, kind) of the inputs that are read into plain numbers at run time.
        host_rule: the rule for plain numbers, where all inputs may be plain numbers.
        subgraphs: attribute name -> plan.
        weights: attribute name -> key of the weight it holds.
        wants_device: the kernel creates tensors from nothing.
        updates: (weight name, index of the output that is its next value).
        parts: the steps that a fused step replaces; empty otherwise.
        fused: the function that a fused step runs.
        block: what a step of a nested plan runs inside of a module; node and kernel are the last.
    """

    node: Node
    kernel: Callable[..., Any]
    inputs: tuple[Key, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    direct: bool = True
    kinds: tuple[Kind, ...] = ()
    numbers: tuple[tuple[int, Kind], ...] = ()
    host_rule: Callable[..., Any] | None = None
    subgraphs: dict[str, Plan] = field(default_factory=dict)
    weights: dict[str, Key] = field(default_factory=dict)
    wants_device: bool = False
    updates: tuple[tuple[str, int], ...] = ()
    parts: tuple[Step, ...] = ()
    fused: Callable[..., Any] | None = None
    block: Block | None = None

    @lazy
    def reads(self) -> tuple[Key, ...]:
        """Keys of all values it needs, including those its subgraphs capture."""
        if not (self.subgraphs or self.weights or self.updates):
            return self.inputs
        captured = (name for plan in self.subgraphs.values() for name in plan.captures)
        return (*self.inputs, *self.weights.values(), *captured, *(n for n, _ in self.updates))

    @constant_when_compiled
    def settings(self) -> tuple[Any, ...]:
        """The numbers among its attributes, or None; the compiler takes them as they are."""
        return tuple(map(_own_numbers, self.attributes.values()))

    @property
    def op(self) -> str:
        """The operators it runs: "Relu", "com.example::Op", "Mul + Sigmoid"; a block's module."""
        if self.block is not None:
            return self.block.path
        nodes = [part.node for part in self.parts] or [self.node]
        return " + ".join(f"{n.domain}::{n.op_type}" if n.domain else n.op_type for n in nodes)

    def __repr__(self) -> str:
        results = ", ".join(name or "_" for name in self.outputs)
        arguments = [onnx_name_of(key) or "None" for key in self.inputs]
        held = {**self.attributes, **self.weights}
        arguments += [f"{k}={_brief(v)}" for k, v in held.items()]
        arguments += [f"{name}={plan!r}" for name, plan in self.subgraphs.items()]
        kernel = self.block.path if self.block else getattr(self.kernel, "__name__", "kernel")
        return plain(f"{results} = {kernel}({', '.join(arguments)})")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Plan:
    """Steps in order, between the values that come in and those that go out.

    Attributes:
        steps: what runs.
        dead: for each step, the values that no later step reads.
        inputs: names of the graph's inputs.
        outputs: keys of the graph's outputs.
        captures: keys that the steps read and that are in the frame before the first step.
        constants: values known at planning time; those of subgraphs are in the root plan, and
            what they capture of plain numbers is in theirs, too.
        output_types: dtype and declared shape of each output.
        static_shapes: returns the shapes of the outputs that are known before a call.
        sized: host values that depend on the shapes of the inputs alone; they stay in the frame
            until its end.
    """

    steps: tuple[Step, ...]
    dead: tuple[tuple[Key, ...], ...]
    inputs: tuple[str, ...]
    outputs: tuple[Key, ...]
    captures: tuple[Key, ...] = ()
    constants: dict[Key, Any] = field(default_factory=dict)
    output_types: tuple[OutputType, ...] = ()
    static_shapes: Callable[[], tuple[Shape, ...]] = tuple
    sized: tuple[str, ...] = ()

    @constant_when_compiled
    def numbers(self) -> tuple[Any, ...]:
        """The numbers among its constants, of a subgraph's; the compiler takes them as they are.

        A number that it finds in the plan itself may be a symbol, which no graph inside of another
        takes.
        """
        return tuple(map(_own_numbers, self.constants.values()))

    def blocks(self) -> Iterator[Block]:
        """All blocks of a nested plan, those inside after the one around them."""
        for step in self.steps:
            if step.block is not None:
                yield step.block
                yield from step.block.plan.blocks()

    def __repr__(self) -> str:
        outputs = ", ".join(map(onnx_name_of, self.outputs))
        return plain(f"<Plan: {', '.join(self.inputs)} -> {outputs}, {len(self.steps)} steps>")

    def __str__(self) -> str:
        return "\n".join(map(plain, self._lines()))

    def _lines(self) -> list[str]:
        lines = [f"inputs   {', '.join(self.inputs)}"]
        lines += [
            f"constant {onnx_name_of(key)} = {_brief(value)}"
            for key, value in self.constants.items()
        ]
        for number, (step, dead) in enumerate(zip(self.steps, self.dead, strict=True)):
            operators = f"  # {step.op}"
            freed = f", frees {', '.join(map(onnx_name_of, dead))}" if dead else ""
            lines.append(f"{number:<8} {step!r}{operators}{freed}")
            if step.block is not None:
                lines += [f"    {line}" for line in step.block.plan._lines()]
        lines.append(f"outputs  {', '.join(map(onnx_name_of, self.outputs))}")
        return lines


class WeightPlace(NamedTuple):
    """Where a weight is read.

    Attributes:
        name: its name in the graph.
        holder: the module that holds it; None for the root, which a plan must not refer to.
        attribute: its name there.
    """

    name: str
    holder: nn.Module | None
    attribute: str


def read_weights(places: Iterable[WeightPlace], root: nn.Module) -> dict[Key, Tensor]:
    """The current values of weights, by name."""
    return {n: read_weight(root if h is None else h, attribute) for n, h, attribute in places}


@dataclass(frozen=True, eq=False)
class Block:
    """Steps that run inside the call of a module.

    Attributes:
        path: of the module, from the root.
        attributes: those that lead to it, from the module around it or from the root.
        is_inside: whether they start at the module around it.
        level: the module itself; a tool may put another in its place, or around it.
        plan: the steps; its inputs are live values that the module is called with.
        reads: the weights that they read, other than those of blocks inside.
        is_leaf: whether the module is a layer of torch, which is called with its input alone.
    """

    path: str
    attributes: tuple[str, ...]
    is_inside: bool
    level: nn.Module
    plan: Plan
    reads: tuple[WeightPlace, ...]
    is_leaf: bool = False


def _own_numbers(value: Any) -> Any:
    """The number, or a copy of the list of them, that a value is; None where it is another one."""
    numbers = value.numbers if isinstance(value, Host) else value
    if isinstance(numbers, (list, tuple)) and all(isinstance(n, (int, float)) for n in numbers):
        return list(numbers) if isinstance(numbers, list) else numbers
    return numbers if isinstance(numbers, (int, float)) else None


def _brief(value: Any) -> str:
    """A constant in a few characters."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    text = repr(value.data if isinstance(value, Host) else value)
    return text if len(text) <= 40 else f"{text[:37]}..."

"""Programs for `torch.compile`, which traces their statements in place of the loop.

    specs_of          what a program depends on, of each tensor of a call
    trace             runs a plan on fake tensors: a function of the inputs and the weights
    Program -> source as for a call, but each torch function is an argument with a default

Nothing is computed on fake tensors, no random number is drawn, and what depends on data raises: the
loop runs then. The program is as recorded: in which memory and layout its values are is up to the
compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from onnxinterp.programs.calls import Call, Check, Program, Value
from onnxinterp.programs.eligibility import has_own_kernels
from onnxinterp.programs.functions import name_of
from onnxinterp.programs.recording import record
from onnxinterp.programs.source import with_defaults
from onnxinterp.runtime.interpreter import Frame, Interpreter
from onnxinterp.runtime.plan import Plan, WeightPlace
from onnxinterp.values import read_weight

Spec: TypeAlias = "tuple[tuple[int, ...], torch.dtype, torch.device, bool]"
"""Shape, dtype, device, whether it requires a gradient."""
Places: TypeAlias = "tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]"
"""Attributes that lead to a module, and the names of weights in it."""

CONSTANTS = ("weights", "constants")
"""Where the constants of a module are, under names that may be those of methods."""


def specs_of(tensors: Sequence[Any]) -> list[Spec] | None:
    """What a program depends on; None where it would be wrong for other calls of the same graph.

    This is traced by the compiler: a size may be a symbol.
    """
    # imported here: it imports sympy, which takes a second
    from torch.fx.experimental.symbolic_shapes import has_static_value

    specs = []
    for tensor in tensors:
        if type(tensor) not in (Tensor, nn.Parameter):
            return None
        for size in tensor.shape:
            if not has_static_value(size):
                return None
        specs.append((tuple(tensor.shape), tensor.dtype, tensor.device, tensor.requires_grad))
    return specs


def read(root: nn.Module, places: Places) -> list[Tensor]:
    """The weights at some places, read as attributes, so that the compiler guards each of them."""
    found = []
    for path, names in places:
        module = root
        for part in path:
            module = getattr(module, part)
        for name in names:
            plain = path == CONSTANTS or "." in name  # which is no attribute
            found.append(read_weight(module, name) if plain else getattr(module, name))
    return found


@contextmanager
def fake_tensors() -> Iterator[None]:
    """Tensors are made without data, and kernels take the way that can be compiled."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # imports the compiler

    compiler: Any = torch.compiler
    was_compiling = compiler._is_compiling_flag  # older versions do not set it while they trace
    compiler._is_compiling_flag = True
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield
    finally:
        compiler._is_compiling_flag = was_compiling


def fake(spec: Spec) -> Tensor:
    """A tensor without data, in the mode above."""
    shape, dtype, device, requires_grad = spec
    return torch.empty(shape, dtype=dtype, device=device, requires_grad=requires_grad)


def can_trace(plan: Plan) -> bool:
    """Whether a program is recorded under the modes that are active now."""
    return (
        not any(step.block or step.subgraphs for step in plan.steps)
        and all(map(has_own_kernels, plan.steps))
        and not torch._C._len_torch_function_stack()
        and not torch._C._len_torch_dispatch_stack()
        and torch._C._functorch.peek_interpreter_stack() is None  # pyright: ignore[reportAttributeAccessIssue]
    )


def trace(
    plan: Plan, frame: Frame, inputs: Sequence[str], places: Sequence[WeightPlace], own: Any
) -> Callable[..., tuple[Any, ...]] | None:
    """The program of a plan as a function that the compiler traces.

    Args:
        plan: without blocks and subgraphs.
        frame: its values, all without data.
        inputs: names of the inputs.
        places: the weights, in the order of a call.
        own: places of the outputs that are constants or weights: they are copied.

    Returns:
        The function of the inputs and the list of weights; None where there is none.

    Raises:
        As `Interpreter.run`.
    """
    _, program = record(plan, frame, inputs, places)
    if program is None or any(hasattr(call.function, "step") for call in program.calls):
        return None
    program.calls = [call for call in program.calls if not _is_settled(call)]
    program.outputs = [_own(program, v) if i in own else v for i, v in enumerate(program.outputs)]
    return with_defaults(program)


def _is_settled(call: Call) -> bool:
    """Whether a check cannot fail: what it looks at is part of each `Spec`."""
    return isinstance(call, Check) and name_of(call.function) == "requires_grad"


def _own(program: Program, output: Any) -> Any:
    """A copy of an output that is a tensor of the module."""
    if not isinstance(output, Value) or not all(output.strides):
        return output
    copied = Value(output.shape, output.dtype, output.strides)
    program.calls.append(Call(Tensor.clone, (output,), {}, [copied], False, -1))
    return copied


def host_values(plan: Plan, frame: Frame) -> dict[Any, Any]:
    """Run a plan without data; its frame then has the numbers that follow from sizes."""
    Interpreter().run(plan, frame)
    return frame.values

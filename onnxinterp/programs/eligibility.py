"""Whether a plan may be a program: what can a call of the loop do that a program would not?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._C._functorch import peek_interpreter_stack
from torch.autograd import forward_ad

from onnxinterp.runtime.interpreter import Interpreter
from onnxinterp.runtime.plan import Plan, Step


def can_record(plan: Plan) -> bool:
    """Whether the loop may run a plan again where its program has failed halfway.

    A step must not write to weights, nor call what is not of this library: a kernel of the user may
    do more than to return a result, and must run once in each call.
    """
    steps = list(_steps(plan))
    return all(has_own_kernels(s) and not s.updates and s.block is None for s in steps)


def _steps(plan: Plan) -> Iterator[Step]:
    for step in plan.steps:
        yield step
        for body in step.subgraphs.values():
            yield from _steps(body)


def has_own_kernels(step: Step) -> bool:
    """Whether all kernels of a step are written in this library: what others do is not known."""
    kernels = [part.node.kernel for part in (*step.parts, step)]
    functions = [kernel.function for kernel in kernels if kernel is not None]
    return all(map(is_own, (*functions, *([] if step.fused is None else [step.fused]))))


def is_own(function: Callable[..., Any]) -> bool:
    """Whether a function is written in this library, whatever `functools.wraps` says of it."""
    name: str = getattr(function, "__globals__", {}).get("__name__", "")
    return name.startswith("onnxinterp.")


def may_run(interpreter: Interpreter) -> bool:
    """Whether a call may be a program: nothing watches its steps or changes what functions do.

    Kernels choose other functions for forward derivatives, also without gradients.
    """
    return (
        type(interpreter) is Interpreter
        and not interpreter.__dict__
        and not torch._C._len_torch_function_stack()
        and not torch._C._len_torch_dispatch_stack()
        and peek_interpreter_stack() is None
        and forward_ad._current_level < 0
        and not torch.is_autocast_enabled("cpu")
        and not torch.is_autocast_enabled("cuda")
    )

"""`torch.fx.symbolic_trace` of a module: one call_function node for each step of its plan.

fx runs `forward` with proxies, which have no shape. Kernels look at shapes, so they are not traced
into: each step becomes one node whose target is a `StepCall`, named after its kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy

from onnxinterp.runtime.interpreter import Frame, Interpreter, by_name
from onnxinterp.runtime.plan import Key, Plan, Step
from onnxinterp.values import Host


class StepCall:
    """A step as a function of the values that are not constants.

    Attributes:
        step: the step.
        keys: of its arguments, in order.
        constants: the other values it reads, by key.
        device: where new tensors are created.
    """

    def __init__(
        self, step: Step, keys: Sequence[Key], constants: Mapping[Key, Any], device: torch.device
    ) -> None:
        self.step = step
        self.keys = tuple(keys)
        self.constants = {key: constants[key] for key in step.reads if key in constants}
        self.device = device
        self.__name__ = getattr(step.kernel, "__name__", step.node.op_type.lower())

    def __call__(self, *args: Any) -> Any:
        """Run the step: return its one result, or a tuple with one for each output."""
        values = {"": None, **self.constants, **dict(zip(self.keys, args, strict=True))}
        device = next((a.device for a in args if isinstance(a, Tensor)), self.device)
        result = Interpreter().run_step(self.step, Frame(values, device))
        results = [value for _, value in by_name(self.step, result)]
        return results[0] if len(results) == 1 else tuple(results)


def is_fx_tracing(args: Any, keywords: Mapping[str, Any]) -> bool:
    """Whether fx is tracing a call: of the module itself, or of one around it."""
    return is_root(args) or Proxy in map(type, (*args, *keywords.values()))


def is_root(args: Any) -> bool:
    """Whether fx is tracing the module itself: it passes one proxy in place of all arguments."""
    return args.__class__ is Proxy


def trace(
    plan: Plan,
    inputs: Mapping[str, Proxy],
    reads: Sequence[tuple[str, nn.Module, str]],
    device: torch.device,
) -> tuple[Any, ...]:
    """Record the steps of a plan in the graph that fx is tracing.

    Args:
        plan: of a main graph.
        inputs: proxies of the graph's inputs, by ONNX name.
        reads: name, module and attribute of each weight.
        device: where new tensors are created.

    Returns:
        The proxies of the outputs.

    Raises:
        NotImplementedError: the plan updates statistics, which a traced graph would not do.
    """
    if any(step.updates for step in plan.steps):
        raise NotImplementedError(
            "symbolic_trace cannot record updated statistics: call eval() first"
        )
    tracer = next(iter(inputs.values())).tracer
    values: dict[Key, Any] = {}
    values.update(inputs)
    values.update({name: getattr(holder, attribute) for name, holder, attribute in reads})
    for step in plan.steps:
        keys = [k for k in dict.fromkeys(step.reads) if k in values]
        call = StepCall(step, keys, plan.constants, device)
        result: Any = tracer.create_proxy("call_function", call, tuple(values[k] for k in keys), {})
        if len(step.outputs) == 1:
            values[step.outputs[0]] = result
        else:
            values.update({name: result[i] for i, name in enumerate(step.outputs)})
    found = {**plan.constants, **values}
    results = [found[key] for key in plan.outputs]
    return tuple([r.tensor(device) if isinstance(r, Host) else r for r in results])

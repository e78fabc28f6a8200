"""`torch.fx.symbolic_trace` of a module: one call_function node for each step of its plan.

A layer of torch in the place of a module is a call_module node.

fx runs `forward` with proxies, which have no shape. Kernels look at shapes, so they are not traced
into: each step becomes one node whose target is a `StepCall`, named after its kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.fx import Proxy

from onnxinterp.runtime.interpreter import module_of
from onnxinterp.runtime.plan import Key, Plan, Step, WeightPlace
from onnxinterp.runtime.steps import StepCall
from onnxinterp.values import Host


def is_fx_tracing(args: Any, keywords: Mapping[str, Any]) -> bool:
    """Whether fx is tracing a call: of the module itself, or of one around it."""
    return is_root(args) or Proxy in map(type, (*args, *keywords.values()))


def is_root(args: Any) -> bool:
    """Whether fx is tracing the module itself: it passes one proxy in place of all arguments."""
    return args.__class__ is Proxy


def trace(
    plan: Plan,
    inputs: Mapping[str, Proxy],
    reads: Iterable[WeightPlace],
    device: torch.device,
    root: nn.Module,
) -> tuple[Any, ...]:
    """Record the steps of a plan in the graph that fx is tracing.

    Args:
        plan: of a main graph.
        inputs: proxies of the graph's inputs, by ONNX name.
        reads: where the weights are.
        device: where new tensors are created.
        root: the module of the plan.

    Returns:
        The proxies of the outputs.

    Raises:
        NotImplementedError: the plan updates statistics, which a traced graph would not do.
    """
    recorder = _Recorder(next(iter(inputs.values())).tracer, device, root)
    values: dict[Key, Any] = {}
    values.update(inputs)
    values.update(recorder.weights(reads))
    results = recorder.run(plan, values, root)
    return tuple([r.tensor(device) if isinstance(r, Host) else r for r in results])


class _Recorder:
    """Records plans in the graph of a tracer."""

    def __init__(self, tracer: Any, device: torch.device, root: nn.Module) -> None:
        self.tracer = tracer
        self.device = device
        self.root = root

    def weights(self, places: Iterable[WeightPlace]) -> dict[str, Any]:
        """Weights by name; reading an attribute makes fx record it."""
        return {n: getattr(self.root if h is None else h, leaf) for n, h, leaf in places}

    def run(self, plan: Plan, values: dict[Key, Any], module: nn.Module) -> list[Any]:
        """Record a plan that runs inside of a module; return its outputs."""
        if any(step.updates for step in plan.steps):
            raise NotImplementedError(
                "symbolic_trace cannot record updated statistics: call eval() first"
            )
        for step in plan.steps:
            result = self._step(step, values, plan, module)
            if len(step.outputs) == 1:
                values[step.outputs[0]] = result
            else:
                values.update({name: result[i] for i, name in enumerate(step.outputs)})
        found = {**plan.constants, **values}
        return [found[key] for key in plan.outputs]

    def _step(self, step: Step, values: Mapping[Key, Any], plan: Plan, module: nn.Module) -> Any:
        """What a step returns: the proxy of its node, or what the steps of a block return."""
        block = step.block
        if block is None:
            keys = [k for k in dict.fromkeys(step.reads) if k in values]
            call = StepCall(step, keys, plan.constants, self.device)
            arguments = tuple([values[k] for k in keys])
            return self.tracer.create_proxy("call_function", call, arguments, {})
        callee = module_of(block, self.root, module)
        inputs = [values[k] if k in values else plan.constants[k] for k in step.inputs]
        if block.is_leaf:
            return callee(*[v.tensor(self.device) if isinstance(v, Host) else v for v in inputs])
        inner: dict[Key, Any] = dict(zip(block.plan.inputs, inputs, strict=True))
        inner.update(self.weights(block.reads))
        results = self.run(block.plan, inner, callee)
        return results[0] if len(results) == 1 else results

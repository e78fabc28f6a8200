"""What capturing and measuring need of a module."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from onnxinterp.graph.ir import Graph
from onnxinterp.inspection.outputs import module_outputs
from onnxinterp.planning.plans import Plans
from onnxinterp.runtime.interpreter import Interpreter
from onnxinterp.runtime.plan import onnx_name_of
from onnxinterp.weights import Weights
from onnxinterp.writing.template import Template


class Runnable(nn.Module):
    """A module that runs any plans of its graph."""

    weights: Weights
    onnx_graph: Graph
    template: Template
    _plans: Plans

    def _run(
        self, args: Any, keywords: Any, plans: Plans, interpreter: Interpreter | None = None
    ) -> tuple[Any, ...]:
        """Run plans of the module, or of a part of its graph, on the inputs of a call."""
        raise NotImplementedError


def parameters_of(module: Runnable) -> dict[str, Tensor]:
    """The weights that are parameters, or computed from some by a parametrization."""
    weights = module.weights.items()
    return {n: w for n, w in weights if isinstance(w, nn.Parameter) or w.requires_grad}


def sizes_of(module: Runnable) -> frozenset[str]:
    """The values that are known before a call, or follow from the shapes of its inputs."""
    plan = module._plans.get(training=False).plan
    return frozenset([*plan.sized, *map(onnx_name_of, plan.constants)])


def outputs_of(module: Runnable) -> dict[str, tuple[str, ...]]:
    """Path of each torch module that was called -> the names of its outputs."""
    return module_outputs(module._plans.graph, sizes_of(module), parameters_of(module).keys())

"""What capturing and measuring need of a module."""

from __future__ import annotations

from typing import Any

from torch import nn

from onnxinterp.graph.ir import Graph
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

    def _numbers(self) -> frozenset[str]:
        """The values that are known before a call, or follow from the shapes of its inputs."""
        plan = self._plans.get(training=False).plan
        return frozenset([*plan.sized, *map(onnx_name_of, plan.constants)])

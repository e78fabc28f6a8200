"""What capturing and measuring need of a module."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from onnxinterp.planning.plans import Plans
from onnxinterp.runtime.inputs import Arguments
from onnxinterp.runtime.interpreter import Interpreter
from onnxinterp.weights import Weights
from onnxinterp.writing.template import Template


class Runnable(nn.Module):
    """A module that runs any plans of its graph."""

    weights: Weights
    template: Template
    _plans: Plans
    _call: Arguments

    def _run(self, args: Any, keywords: Any, plans: Plans, by: Interpreter | None = None) -> Any:
        """Run plans of the module, or of a part of its graph: the tuple of the outputs.

        Args:
            args: inputs of a call.
            keywords: the same by name.
            plans: of the module, or parts of these.
            by: an interpreter in place of the module's own, which runs the plan of `eval()`.
        """
        raise NotImplementedError


def parameters_of(module: Runnable) -> dict[str, Tensor]:
    """The weights that are parameters, or computed from some by a parametrization."""
    weights = module.weights.items()
    return {n: w for n, w in weights if isinstance(w, nn.Parameter) or w.requires_grad}

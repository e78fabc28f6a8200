"""Shapes and floating point operations of every step of one run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from onnxinterp.graph.ir import Node
from onnxinterp.inspection.runnable import Runnable
from onnxinterp.planning.plans import Plans
from onnxinterp.runtime.interpreter import Frame, Interpreter, by_name
from onnxinterp.runtime.plan import Plan, Step

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode


class Measuring(Interpreter):
    """Records one run.

    Attributes:
        shapes: name of a value -> its shape; values that are no tensors are missing.
        flops: first output of a node -> its floating point operations, without those of nodes in
            its subgraphs, which have entries of their own.
        flops_by_step: the same by step.
    """

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.flops: Counter[str] = Counter()
        self.flops_by_step: Counter[Step] = Counter()
        self._counter: FlopCounterMode | None = None

    def flops_of(self, nodes: Iterable[Node]) -> int:
        """The floating point operations of some nodes, those in their subgraphs included."""
        return sum(
            self.flops[node.outputs[0]]
            + sum(self.flops_of(graph.nodes) for graph in node.subgraphs.values())
            for node in nodes
        )

    def start(self, plan: Plan, frame: Frame) -> tuple[Any, ...]:
        """Run the plan; attention is counted as its two products, on any device."""
        from torch.nn.attention import SDPBackend, sdpa_kernel
        from torch.utils.flop_counter import FlopCounterMode  # 0.1 s, for those who count

        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as self._counter:
            return super().start(plan, frame)

    def run_step(self, step: Step, frame: Frame) -> Any:
        """Run the step, and record what no step inside of it has recorded."""
        before = self._unrecorded()
        result = super().run_step(step, frame)
        own = self._unrecorded() - before
        self.flops[step.outputs[0]] += own
        self.flops_by_step[step] += own
        for name, value in by_name(step, result):
            if hasattr(value, "shape"):
                self.shapes[name] = tuple(value.shape)
        return result

    def _unrecorded(self) -> int:
        assert self._counter is not None, "a run starts with `start`"
        return self._counter.get_total_flops() - self.flops.total()


def measure(
    module: Runnable, inputs: tuple[Any, ...], named: dict[str, Any], plans: Plans
) -> Measuring:
    """Run plans of a module once, in `eval()` mode and without gradients."""
    measuring = Measuring()
    with torch.no_grad():
        module._run(inputs, named, plans, measuring)
    return measuring

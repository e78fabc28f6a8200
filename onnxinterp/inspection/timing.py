"""Interpreters that time the steps of a run, or name them for `torch.profiler`."""

from __future__ import annotations

from collections import Counter
from time import perf_counter
from typing import Any, NamedTuple

import torch

from onnxinterp.errors import plain
from onnxinterp.graph.ir import Node
from onnxinterp.runtime.interpreter import Frame, Interpreter
from onnxinterp.runtime.plan import Step

MAX_SPANS = 100_000  # of one run: a loop may run more steps
MAX_LABEL_BYTES = 200


class Span(NamedTuple):
    """One call of a step.

    Attributes:
        step: the step.
        start: in seconds, of `perf_counter`.
        seconds: with those of the steps inside of it.
        depth: how many steps are around it: those of a subgraph are inside of their node.
    """

    step: Step
    start: float
    seconds: float
    depth: int


class Timing(Interpreter):
    """Times the steps of one run.

    Args:
        synchronize: wait for the accelerator after each step; otherwise steps on it end when they
            are queued.

    Attributes:
        seconds: step -> its own time in all calls, without the steps inside of it.
        calls: step -> number of calls. Both are in the order in which steps start.
        depths: step -> how many steps are around it.
        spans: the first calls, in the order in which they end.
    """

    def __init__(self, *, synchronize: bool) -> None:
        self.seconds: dict[Step, float] = {}
        self.calls: Counter[Step] = Counter()
        self.depths: dict[Step, int] = {}
        self.spans: list[Span] = []
        self._synchronize = synchronize
        self._depth = 0
        self._inner = 0.0  # time of the steps inside of the current one

    def run_step(self, step: Step, frame: Frame) -> Any:
        """Run the step, and record its time."""
        self.seconds.setdefault(step, 0.0)
        depth, before = self._depth, self._inner
        self._depth, self._inner = depth + 1, 0.0
        start = perf_counter()
        try:
            result = super().run_step(step, frame)
            if self._synchronize:
                torch.accelerator.synchronize()
        finally:
            seconds = perf_counter() - start
            own, self._depth, self._inner = seconds - self._inner, depth, before + seconds
        self.seconds[step] += own
        self.calls[step] += 1
        self.depths[step] = depth
        if len(self.spans) < MAX_SPANS:
            self.spans.append(Span(step, start, seconds, depth))
        return result


class Annotating(Interpreter):
    """Names the nodes of the file in the tables and traces of `torch.profiler`.

    Example:
        >>> m.interpreter = Annotating()  # doctest: +SKIP
        >>> with torch.profiler.profile() as profiler:  # doctest: +SKIP
        ...     m(x)
        >>> print(profiler.key_averages().table())  # doctest: +SKIP
    """

    def run_step(self, step: Step, frame: Frame) -> Any:
        """Run the step inside a `record_function` of its nodes."""
        with torch.profiler.record_function(label_of(step)):
            return super().run_step(step, frame)


def nodes_of(step: Step) -> list[Node]:
    """The nodes that a step runs itself: none where it calls a module, whose steps run them."""
    return all_nodes_of(step) if step.block is None or step.block.is_leaf else []


def all_nodes_of(step: Step) -> list[Node]:
    """The nodes that a step runs, those of the steps of a module included."""
    if step.block is not None:
        return [node for inner in step.block.plan.steps for node in all_nodes_of(inner)]
    return [part.node for part in step.parts] or [step.node]


def node_names(step: Step) -> tuple[str, ...]:
    """The names of the nodes that a step runs, or the path of the module that it calls."""
    names = tuple([node.name for node in nodes_of(step)])
    return names or ((step.block.path,) if step.block else ())


def operators_of(step: Step) -> str:
    """The operators of a step, or the class of the module that it calls."""
    return step.op if step.block is None else f"call of {type(step.block.level).__name__}"


def label_of(step: Step) -> str:
    """The nodes and operators of a step: "/fc/MatMul, /fc/Add (MatMul + Add)"."""
    return plain(f"{', '.join(node_names(step))} ({operators_of(step)})", MAX_LABEL_BYTES)

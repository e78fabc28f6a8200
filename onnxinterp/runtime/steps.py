"""A step as a function: one node of a `torch.fx` graph, one call of a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from onnxinterp.runtime.interpreter import Frame, Interpreter, by_name
from onnxinterp.runtime.plan import Key, Step


class StepCall:
    """A step as a function of the values that are not constants.

    Attributes:
        step: the step.
        keys: of its arguments, in order.
        constants: the other values it reads, by key.
        device: where new tensors are created.
        loop_trips: how often a subgraph may run; None is no limit.
    """

    def __init__(
        self,
        step: Step,
        keys: Sequence[Key],
        constants: Mapping[Key, Any],
        device: torch.device,
        loop_trips: int | None = None,
    ) -> None:
        self.step = step
        self.keys = tuple(keys)
        self.constants = {key: constants[key] for key in step.reads if key in constants}
        self.device = device
        self.loop_trips = loop_trips
        self.__name__ = getattr(step.kernel, "__name__", step.node.op_type.lower())

    def __call__(self, *args: Any) -> Any:
        """Run the step: return its one result, or a tuple with one for each output."""
        values = {"": None, **self.constants, **dict(zip(self.keys, args, strict=True))}
        device = next((a.device for a in args if isinstance(a, Tensor)), self.device)
        frame = Frame(values, device, loop_trips=self.loop_trips)
        result = Interpreter().run_step(self.step, frame)
        results = [value for _, value in by_name(self.step, result)]
        return results[0] if len(results) == 1 else tuple(results)

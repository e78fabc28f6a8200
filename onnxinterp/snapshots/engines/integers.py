"""Large integers, for engines that hold them in 32 bits and compare them as floats.

What a model computes with integers is mostly tokens, masks, positions and sizes. Whether it stays
small is found by running the module: on the example, and with each integer input at its bound. An
index at its bound is out of range, so that the module fails: then the model itself keeps it small.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from onnx import TensorProto
from torch import Tensor

from onnxinterp.errors import EngineError, OnnxError
from onnxinterp.limits import GIB, Limits
from onnxinterp.runtime.guard import Guard
from onnxinterp.runtime.interpreter import Frame, Interpreter, by_name
from onnxinterp.runtime.plan import Step
from onnxinterp.snapshots.subject import Subject

WIDE = (torch.int64, torch.uint64, torch.uint32, torch.int32)
MAX_INPUT = 2**20  # of an integer input in a call: above the size of any vocabulary
MAX_RESULT = 2**24  # float32 holds all integers up to this one
PROBE = Limits(tensor_bytes=GIB, live_bytes=4 * GIB, steps=1_000_000, seconds=5.0)


class Largest(Interpreter):
    """Finds the largest integer of a run.

    Attributes:
        largest: its absolute value.
    """

    def __init__(self) -> None:
        self.largest = 0

    def run_step(self, step: Step, frame: Frame) -> Any:
        """Run the step, and look at its results."""
        result = super().run_step(step, frame)
        for _, value in by_name(step, result):
            if isinstance(value, Tensor):
                self.largest = max(self.largest, largest(value))
        return result


def largest(value: Tensor) -> int:
    """The largest absolute value of a tensor of wide integers; 0 of any other."""
    if value.dtype not in WIDE or not value.numel():
        return 0
    if value.dtype == torch.uint64:  # of which torch has no minimum
        return int(value.cpu().numpy().max())
    low, high = torch.aminmax(value.to(torch.int64))
    return max(-int(low), int(high))


def check_integers(module: Subject, inputs: tuple[Tensor, ...]) -> None:
    """Check that float32 holds the integers of a model, as far as running it can tell.

    Raises:
        EngineError: it computes larger ones.
    """
    plans = module._plans.unfused()
    for probe in _probes(inputs):
        found = Largest()
        given = dict(zip(module.input_names, probe, strict=True))
        try:
            with torch.no_grad(), Guard(PROBE):
                module._run((), given, plans, found)
        except OnnxError:  # an index that is out of range, a size too large
            continue
        if found.largest > MAX_RESULT:
            raise EngineError("the model computes integers beyond 2**24")


def _probes(inputs: tuple[Tensor, ...]) -> Iterator[list[Tensor]]:
    """The example, and the example with each integer input at its bound."""
    yield [x.clone() for x in inputs]
    for index, x in enumerate(inputs):
        if x.dtype in WIDE:
            yield [
                torch.full_like(y, MAX_INPUT) if i == index else y.clone()
                for i, y in enumerate(inputs)
            ]


def check_inputs(inputs: tuple[Tensor, ...]) -> None:
    """Check that the integers of a call are within their bound.

    Raises:
        EngineError: they are not.
    """
    for x in inputs:
        if x.dtype in WIDE and largest(x) > MAX_INPUT:
            raise EngineError(f"integer inputs must be at most {MAX_INPUT:,}")


def check_no_doubles(module: Subject) -> None:
    """Check that a model does not compute in double precision.

    Raises:
        EngineError: it does.
    """
    types = module._plans._facts.types
    doubles = (TensorProto.DOUBLE, TensorProto.COMPLEX64, TensorProto.COMPLEX128)
    for node in module._plans.graph.walk():
        if found := [name for name in node.outputs if types.get(name) in doubles]:
            raise EngineError(f"the model computes {found[0]!r} in double precision")

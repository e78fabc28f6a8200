"""Programs: a plan as straight-line Python, for inputs of the same sizes.

    record        runs a plan once, and notes the torch functions that its kernels call
    Program       these calls, between values
    compiled      a program as a Python function
    Programs      those of one plan: made at the first call, run at the next ones

A program makes exactly the calls of the loop, without its bookkeeping and without what kernels
compute of shapes and attributes. It reads the weights at each call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from onnxinterp.programs.calls import Program
from onnxinterp.programs.eligibility import can_record
from onnxinterp.programs.eligibility import may_run as may_run
from onnxinterp.programs.inference import for_inference
from onnxinterp.programs.recording import record
from onnxinterp.programs.restoring import Generators, draws
from onnxinterp.programs.source import compiled
from onnxinterp.programs.weight_sizes import WeightSizes as WeightSizes
from onnxinterp.runtime.interpreter import Frame, is_from_outside
from onnxinterp.runtime.plan import Plan, WeightPlace
from onnxinterp.values import read_weight

MAX_DEVIATIONS = 4  # of one program: then its plan has none


@dataclass(eq=False)
class Compiled:
    """A program that runs.

    Attributes:
        recorded: the calls that were recorded.
        program: those that it makes.
        function: called with the inputs and the weights.
        source: its source.
        sizes: those that the weights must have.
        draws: whether it may draw random numbers.
        device: where it runs.
        cells: table and name of each weight; None where one is computed.
        deviations: how often its checks have failed.
    """

    recorded: Program
    program: Program
    function: Callable[..., tuple[Any, ...]]
    source: str
    cells: list[tuple[dict[str, Any], str]] | None
    sizes: WeightSizes
    draws: bool
    device: torch.device
    deviations: int = 0

    def weights(self, root: nn.Module) -> list[Tensor]:
        """The current values of the weights."""
        if self.cells is not None:
            try:
                return [table[name] for table, name in self.cells]
            except KeyError:  # one is computed now, or has moved
                pass
        places = [place for _, place in self.program.weights]
        return [read_weight(root if h is None else h, name) for _, h, name in places]


class Programs:
    """The programs of one plan for inputs of the same sizes: without gradients, and with."""

    def __init__(self, plan: Plan, places: Sequence[WeightPlace]) -> None:
        self.plan = plan
        self.places = places
        self._made: dict[bool, Compiled | None] = {}
        self.can_record = can_record(plan)

    def run(self, inputs: Sequence[Tensor], root: nn.Module) -> tuple[Any, ...] | None:
        """Run the program that there is.

        Returns:
            The results; None where the loop must run the plan, which raises the errors, too.
        """
        made = self._made.get(torch.is_grad_enabled())
        if made is None:
            return None
        generators = Generators(made.device) if made.draws else None
        try:
            weights = made.weights(root)
            if not made.sizes.hold(weights):
                return None
            return made.function(*inputs, weights)
        except Exception as error:  # the loop raises it again, and says where
            if is_from_outside(error):
                raise
        if generators is not None:
            generators.restore()
        made.deviations += 1
        if made.deviations > MAX_DEVIATIONS:
            self._made = {**self._made, torch.is_grad_enabled(): None}
        return None

    def wants(self) -> bool:
        """Whether the next call is to be recorded."""
        return self.can_record and torch.is_grad_enabled() not in self._made

    def record(self, frame: Frame, inputs: Sequence[str], root: nn.Module) -> tuple[Any, ...]:
        """Run the plan by the loop, and make its program.

        Raises:
            As `Interpreter.run`.
        """
        weights = {place: frame.values[place.name] for place in self.places}
        results, recorded = record(self.plan, frame, inputs, self.places)
        made = None
        if recorded is not None:
            device = frame.device
            program = recorded if torch.is_grad_enabled() else for_inference(recorded, device)
            function, source = compiled(program)
            sizes = WeightSizes(weights[place] for _, place in program.weights)
            cells = _cells(program, root)
            made = Compiled(
                recorded, program, function, source, cells, sizes, draws(program), device
            )
        self._made = {**self._made, torch.is_grad_enabled(): made}
        return results

    def made(self) -> Compiled | None:
        """The program of calls without gradients; None where there is none."""
        return self._made.get(False)


def _cells(program: Program, root: nn.Module) -> list[tuple[dict[str, Any], str]] | None:
    """Where the weights are stored; None where one is computed."""
    found = []
    for _, (_, holder, name) in program.weights:
        module = root if holder is None else holder
        tables = [t for t in (module._parameters, module._buffers) if t.get(name) is not None]
        if not tables:
            return None
        found.append((tables[0], name))
    return found

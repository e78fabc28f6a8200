"""Recording a program: the plan runs once, and each torch function that a kernel calls is noted.

At known sizes a kernel always makes the same calls, unless it looks at the data of a tensor. Where
it does (`tolist`, `item`, the truth of a tensor), the program has a `Check`: the data must be the
same again. A function whose result has a size that depends on data is followed by a check of the
size. A step that cannot be recorded, such as one that makes arrays of numpy, is one call of the
whole step.

    record(plan, frame, ...)      runs the plan, returns its results and the program
        Tape                      sees each torch function (a TorchFunctionMode)
        _Recorder                 runs the steps, and takes back what cannot be recorded
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import count
from typing import Any

import torch
from torch import Tensor

from onnxinterp.programs.calls import Call, Program, mapped, values_in
from onnxinterp.programs.tape import PLAIN, NotRecordableError, Tape, tensors_in
from onnxinterp.runtime.interpreter import Frame, Interpreter, by_name
from onnxinterp.runtime.plan import Plan, Step, WeightPlace
from onnxinterp.runtime.steps import StepCall
from onnxinterp.values import Host


def record(
    plan: Plan, frame: Frame, inputs: Sequence[str], places: Sequence[WeightPlace]
) -> tuple[tuple[Any, ...], Program | None]:
    """Run a plan and record what it calls.

    Args:
        plan: without blocks.
        frame: its values; they are those of one call.
        inputs: names of the inputs that the call gives.
        places: where the weights are.

    Returns:
        The results of the call, and the program; None where there cannot be one.

    Raises:
        As `Interpreter.run`.
    """
    tape = Tape()
    values = frame.values
    for name in (*inputs, *[place.name for place in places]):
        values[name] = tape.distinct(values[name])  # one object under two names is two values
    program = Program(
        [tape.add(values[name]) for name in inputs],
        [(tape.add(values[place.name]), place) for place in places],
        {},
    )
    tape.constants.update((id(v), v) for v in plan.constants.values() if isinstance(v, Tensor))
    recorder = _Recorder(tape)
    results = recorder.start(plan, frame)
    try:
        with tape:
            results = tuple([_tensor(r, frame.device) for r in results])
        program.outputs = [tape.encode(r) for r in results]
    except NotRecordableError:
        return results, None
    if tape.failure or tape.is_closed:
        return results, None
    program.calls = tape.calls
    program.constants = dict(tape.used.values())
    return results, program


def _tensor(result: Any, device: torch.device) -> Any:
    return result.tensor(device) if isinstance(result, Host) else result


class _Recorder(Interpreter):
    """Runs steps under a tape."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self._numbers = count()

    def run_step(self, step: Step, frame: Frame) -> Any:
        """Run one step, inside of others where it belongs to a subgraph."""
        tape, values = self.tape, frame.values
        if tape.is_closed:
            return super().run_step(step, frame)
        around, begin = (tape.step, tape.failure), tape.mark()
        with tape.paused():
            tape.step, tape.failure = next(self._numbers), None
            before = {key: values[key] for key in step.reads}
            tape.constants.update(tensors_in(step.attributes))
        with nullcontext() if tape.is_on else tape:
            result = super().run_step(step, frame)
        with tape.paused():
            if not tape.is_closed and (tape.failure or self._unknown(result)) is not None:
                tape.take_back(begin)
                result = self._note_whole(step, before, frame, result)
            if not tape.is_closed:
                self._note_updates(step, values, result)
        tape.step, tape.failure = around
        return result

    def _unknown(self, result: Any) -> str | None:
        """Why a result cannot be recorded."""
        try:
            mapped(result, self._check_result)
        except NotRecordableError as error:
            return str(error)
        return None

    def _check_result(self, leaf: Any) -> None:
        if isinstance(leaf, Tensor):
            self.tape.encode(leaf)
        elif not isinstance(leaf, (Host, type(None))):
            raise NotRecordableError(f"a value of type {type(leaf).__name__}")

    def _note_whole(self, step: Step, before: Mapping[Any, Any], frame: Frame, result: Any) -> Any:
        """Note a step as one call; return its result, as `Tape.note_step` does."""
        try:
            live = {key: value for key, value in before.items() if self._is_live(value)}
            held = {key: value for key, value in before.items() if key not in live}
            call = StepCall(step, list(live), held, frame.device, frame.loop_trips)
            results = [value for _, value in by_name(step, result)]
            return self.tape.note_step(call, list(live.values()), results)
        except NotRecordableError:
            self.tape.close()
            return result

    def _note_updates(self, step: Step, values: Mapping[Any, Any], result: Any) -> None:
        """Note what a step changes of the state; the loop writes it afterwards."""
        tape = self.tape
        try:
            for name, index in step.updates:
                args = tape.encode((values[name], result[index]))
                tape.calls.append(Call(assign_, args, {}, [], False, tape.step))
        except NotRecordableError:
            tape.close()

    def _is_live(self, value: Any) -> bool:
        """Whether a value differs from call to call."""
        if not isinstance(value, (Tensor, list, Host, *PLAIN)):
            raise NotRecordableError(f"a value of type {type(value).__name__}")
        encoded = self.tape.encode(value) if isinstance(value, (Tensor, list)) else None
        constants = {found for found, _ in self.tape.used.values()}
        return any(found not in constants for found in values_in(encoded))


def assign_(state: Tensor, value: Tensor) -> None:
    """Take over the next value of a state."""
    with torch.no_grad():
        state.copy_(value)

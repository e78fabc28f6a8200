"""Recording a module with free sizes: its nested plan runs once, on tensors without data.

Kernels see symbols where the file leaves a size free, and compute with them; what they call of
torch is noted as for a program, but function by function of torch's public interface. A step that
looks at data cannot run so: its kernel is written along, and its results have sizes of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

from onnxinterp.errors import NodeError, SourceError
from onnxinterp.inspection.runnable import Runnable
from onnxinterp.planning.bound import EVAL
from onnxinterp.planning.placement import device_of
from onnxinterp.programs.calls import Call, Value, values_in
from onnxinterp.programs.tape import NotRecordableError
from onnxinterp.python_source.bodies import Body, Choice, Layer, Recorded
from onnxinterp.python_source.free_sizes import FreeSizes
from onnxinterp.python_source.layers import layer_of
from onnxinterp.python_source.source_tape import SourceTape
from onnxinterp.runtime.interpreter import Frame, Interpreter, by_name
from onnxinterp.runtime.plan import Block, Key, Plan, Step, read_weights
from onnxinterp.values import Host

OTHER_SIZES = "this branch cannot run for the sizes of the example of to_python"
BRANCHES = ("then_branch", "else_branch")


def record(module: Runnable, given: Mapping[str, Tensor]) -> Recorded:
    """Write down what a module computes in `eval()` mode.

    Args:
        module: the module; it runs once on the example.
        given: ONNX name of each input -> an example. Sizes that the file leaves free stay free.

    Raises:
        As a call of the module; SourceError: a kernel looks at data, or a value is no tensor.
    """
    bound = module._plans.bound(EVAL._replace(nested=True))
    plan, device = bound.plan, device_of(module.weights)
    inner = [place for block in plan.blocks() for place in block.reads]
    places = {place.name: place for place in (*bound.reads, *inner)}
    weights = read_weights(places.values(), module)
    seen, sizes = _Seen(), FreeSizes()
    with torch.no_grad():
        seen.run(plan, Frame(_values(plan, weights, given), device, root=module))
    with torch.no_grad(), sizes.active():
        fakes = {key: sizes.fixed(weight) for key, weight in weights.items()}
        inputs = sizes.of_inputs(module._call.infos, given)
        tape = SourceTape(sizes)
        held = {tape.add(fakes[name]): place for name, place in places.items()}
        paths = {id(level): path for path, level in module.named_modules()}
        recorder = _Recorder(tape, sizes, fakes, seen.results, module, paths)
        body = Body("", [tape.add(tensor) for tensor in inputs.values()])
        with tape, _refused():
            results = recorder.run(plan, Frame(_values(plan, fakes, inputs), device, root=module))
            body.outputs = [tape.encode(_tensor(r, device)) for r in results]
            if body.outputs and not all(isinstance(o, Value) for o in body.outputs):
                raise NotRecordableError("an output that is no tensor")
    body.calls = tape.calls
    symbols = sizes.names(module._call.infos, inputs)
    conditions = sizes.conditions()
    if others := [c for c in conditions if not c.free_symbols <= symbols.keys()]:
        what = f"a kernel decides by a size that follows from data: {others[0]}"
        raise SourceError(f"the module cannot be written as Python source: {what}")
    return Recorded(
        body,
        [alias for alias, name in module._call.aliases.items() if name in given],
        {v: (_path(place, paths), weights[place.name]) for v, place in held.items()},
        dict(tape.used.values()),
        symbols,
        sizes.replaced,
        conditions,
        [(list(given).index(name), axis) for name, axis in sizes.ones],
    )


@contextmanager
def _refused() -> Iterator[None]:
    """Errors of a run on tensors without data: the same run with data succeeded."""
    try:
        yield
    except (NodeError, NotRecordableError) as error:
        raise SourceError(f"the module cannot be written as Python source: {error}") from error


def _values(
    plan: Plan, weights: Mapping[Key, Tensor], given: Mapping[str, Tensor]
) -> dict[Key, Any]:
    """The values of a frame before the first step."""
    values: dict[Key, Any] = {"": None, **plan.constants, **weights}
    values.update(given)
    return values


def _path(place: Any, paths: Mapping[int, str]) -> str:
    """The path of a weight in the tree."""
    around = "" if place.holder is None else paths.get(id(place.holder), "")
    return f"{around}.{place.attribute}" if around else place.attribute


class _Seen(Interpreter):
    """Notes the dtype and the sizes of all results of a call."""

    def __init__(self) -> None:
        self.results: dict[str, tuple[torch.dtype, torch.Size]] = {}

    def run_step(self, step: Step, frame: Frame) -> Any:
        result = super().run_step(step, frame)
        for name, value in by_name(step, result):
            if isinstance(value, Tensor):
                self.results[name] = value.dtype, value.shape
        return result


class _Recorder(Interpreter):
    """Runs a nested plan under a tape."""

    def __init__(
        self,
        tape: SourceTape,
        sizes: FreeSizes,
        weights: Mapping[Key, Tensor],
        seen: Mapping[str, Any],
        module: Runnable,
        paths: Mapping[int, str],
    ) -> None:
        self.tape = tape
        self.sizes = sizes
        self.weights = weights
        self.seen = seen
        self.module = module
        self.paths = paths
        self.path = ""

    def run_step(self, step: Step, frame: Frame) -> Any:
        """Run one step, and note what it calls."""
        tape = self.tape
        if step.block is not None:
            return self._note_block(step, step.block, frame)
        begin, before = tape.mark(), tape.failure
        tape.failure = None
        try:
            result = super().run_step(step, frame)
            self.sizes.keep_conditions()
            if tape.failure is not None:
                raise NotRecordableError(tape.failure)
            tape.encode(_plain(result))
        except Exception as error:  # whatever a kernel raises that looks at data
            tape.take_back(begin)
            result = self._note_choice(step, frame, error)
        tape.failure = before
        self._note_layer(step, frame, begin[0], result)
        return result

    def _note_block(self, step: Step, block: Block, frame: Frame) -> Any:
        """Note the call of a module as one call of its body."""
        tape = self.tape
        inputs = [frame.values[key] for key in step.inputs]
        body = Body(self.paths[id(block.level)], self._values(inputs))
        begin, _ = tape.mark()
        values: dict[Key, Any] = {"": None, **block.plan.constants}
        values.update(zip(block.plan.inputs, inputs, strict=True))
        values.update((place.name, self.weights[place.name]) for place in block.reads)
        around, self.path = self.path, body.path
        results = self.run(block.plan, Frame(values, frame.device, root=frame.root))
        self.path = around
        body.calls = tape.calls[begin:]
        del tape.calls[begin:]
        body.outputs = self._values(results)
        many = len(body.outputs) != 1
        tape.calls.append(Call(body, tuple(body.inputs), {}, list(body.outputs), many, 0))
        return results if len(results) != 1 else results[0]

    def _values(self, given: Iterable[Any]) -> list[Value]:
        """The values of tensors; numbers follow from sizes, wherever they are needed."""
        return list(values_in(self.tape.encode([_plain(value) for value in given])))

    def _note_layer(self, step: Step, frame: Frame, begin: int, result: Any) -> None:
        """Note the layer of torch that a step is a call of, in the place of what it called."""
        tape = self.tape
        calls, (_, result), *others = tape.calls[begin:], *by_name(step, result)
        if others or not calls or isinstance(calls[0].function, Choice):
            return
        with tape.paused(), unset_fake_temporarily(), torch.device("meta"):
            found = layer_of(step, self.module.weights, frame.values)
        if found is None:
            return
        layer, source, names = found
        weights = {attribute: tape._find(frame.values[name]) for attribute, name in names.items()}
        value, given = tape._find(result), tape._find(frame.values[source])
        if value is None or given is None or None in weights.values():
            return
        del tape.calls[begin:]
        call = Layer(layer, weights, calls)  # type: ignore[arg-type]  # none is None
        tape.calls.append(Call(call, (given,), {}, [value], False, 0))

    def _note_choice(self, step: Step, frame: Frame, error: Exception) -> Any:
        """Note a step that runs one of two subgraphs, by data.

        Raises:
            Exception: the error, where it is another step.
        """
        if set(step.subgraphs) != set(BRANCHES):
            raise error
        tape, condition = self.tape, frame.values[step.inputs[0]]
        if not isinstance(condition, Tensor):
            raise error
        branches = [self._note_branch(step, name, frame) for name in BRANCHES]
        bodies = [body for body, _ in branches]
        results = [found for _, found in branches if found]
        if not results:
            raise error
        pairs = zip(step.outputs, results[0], results[-1], strict=True)
        made = tuple([self._either(*pair) for pair in pairs])
        with tape.paused():
            values: list[Any] = [tape.add(tensor) for tensor in made]
        choice = Choice(*bodies)
        tape.calls.append(Call(choice, (tape.encode(condition),), {}, values, len(values) != 1, 0))
        return made if len(made) != 1 else made[0]

    def _note_branch(self, step: Step, name: str, frame: Frame) -> tuple[Body, Sequence[Any]]:
        """A branch and its results: none where it does not run for the sizes of the example."""
        tape = self.tape
        begin, known = tape.mark(), self.sizes.n_conditions
        body = Body(self.path, [], is_subgraph=True)
        found: Sequence[Any] = ()
        try:
            found = self._bind(step.subgraphs[name], frame, step.node)()
            body.outputs = [tape.encode(_plain(result)) for result in found]
        except (NodeError, NotRecordableError) as error:
            tape.failure = str(error)
        if tape.failure is not None or not all(isinstance(r, Tensor) for r in found):
            tape.take_back(begin)
            self.sizes.forget_conditions(known)
            return Body(self.path, [], is_subgraph=True, error=OTHER_SIZES), ()
        body.calls = tape.calls[begin[0] :]
        del tape.calls[begin[0] :]
        return body, found

    def _either(self, name: str, then: Tensor, otherwise: Tensor) -> Tensor:
        """A tensor that stands for either of two."""
        with self.tape.paused():
            if then.shape == otherwise.shape:
                return torch.empty_like(then)
            return self.sizes.of_data(name, then.dtype, self.seen[name][1])


def _plain(value: Any) -> Any:
    """A value of a frame without its wrapper."""
    return value.data if isinstance(value, Host) else value


def _tensor(value: Any, device: torch.device) -> Any:
    """An output as the module returns it."""
    return value.tensor(device) if isinstance(value, Host) else value

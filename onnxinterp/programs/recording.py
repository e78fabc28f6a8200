"""Recording a program: the plan runs once, and each torch function that a kernel calls is noted.

At known sizes a kernel always makes the same calls, unless it looks at the data of a tensor. Where
it does (`tolist`, `item`, the truth of a tensor), the program has a `Check`: the data must be the
same again. A function whose result has a size that depends on data is followed by a check of the
size. A step that cannot be recorded, such as a kernel of the user, is one call of the whole step.

    record(plan, frame, ...)      runs the plan, returns its results and the program
        _Tape                     sees each torch function (a TorchFunctionMode)
        _Recorder                 runs the steps, and takes back what cannot be recorded
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from onnxinterp.programs.calls import Call, Check, Program, Value, mapped, values_in
from onnxinterp.programs.functions import has_size_of_data, name_of, names, without_overrides
from onnxinterp.runtime.interpreter import Frame, Interpreter
from onnxinterp.runtime.plan import Plan, Step, WeightPlace
from onnxinterp.runtime.steps import StepCall
from onnxinterp.values import Host

MAX_CALLS = 20_000  # of a program
MAX_CHECKED = 1024  # elements of the data that a check compares
PLAIN = (int, float, bool, complex, str, type(None), torch.dtype, torch.device, type(...))
LITERALS = (*PLAIN, torch.memory_format, torch.layout)
METADATA = names(
    "shape dtype device ndim layout size dim numel nelement is_floating_point is_complex",
    "is_signed element_size itemsize nbytes __len__ is_cuda is_meta is_sparse is_quantized",
    "is_nested",
)
"""What a tensor tells about itself that depends on sizes and types alone."""


class NotRecordableError(Exception):
    """A plan cannot become a program."""


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
    tape = _Tape()
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
    if tape.failure or recorder.failure or len(tape.calls) > MAX_CALLS:
        return results, None
    program.calls = tape.calls
    program.constants = dict(tape.used.values())
    return results, program


def _tensor(result: Any, device: torch.device) -> Any:
    return result.tensor(device) if isinstance(result, Host) else result


class _Tape(TorchFunctionMode):
    """Notes calls of torch functions.

    Attributes:
        calls: what was called, in order.
        failure: why what has run since it was last None cannot be recorded.
        step: index of the step that runs.
        is_on: whether it sees functions now.
        constants: id -> tensor that is the same in each call.
        used: id -> value and tensor of the constants that calls read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.failure: str | None = None
        self.step = 0
        self.constants: dict[int, Tensor] = {}
        self.used: dict[int, tuple[Value, Tensor]] = {}
        self._values: dict[int, tuple[weakref.ref[Tensor], Value]] = {}
        self.is_on = False
        self._is_paused = False
        self._within: list[Any] = []  # functions written in Python, of which some call themselves
        self._with_grad = torch.is_grad_enabled()

    def distinct(self, tensor: Tensor) -> Tensor:
        """A tensor that is not known yet; a view of it where it is."""
        if id(tensor) in self._values:
            tensor = tensor.view_as(tensor)
        self.add(tensor)
        return tensor

    def add(self, tensor: Tensor) -> Value:
        """The value of a tensor, a new one where it has none."""
        found = self._find(tensor)
        if found is None:
            found = Value.of(tensor)
            self._values[id(tensor)] = weakref.ref(tensor), found
        return found

    def _find(self, tensor: Tensor) -> Value | None:
        reference, value = self._values.get(id(tensor), (None, None))
        return value if reference is not None and reference() is tensor else None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Note nothing meanwhile."""
        before, self._is_paused = self._is_paused, True
        try:
            yield
        finally:
            self._is_paused = before

    def take_back(self, begin: int) -> None:
        """Forget the calls from an index on, and what they returned."""
        gone = {value for call in self.calls[begin:] for value in call.results}
        self._values = {i: held for i, held in self._values.items() if held[1] not in gone}
        del self.calls[begin:]
        self.failure = None

    def __enter__(self) -> _Tape:
        self.is_on = True
        super().__enter__()  # type: ignore[no-untyped-call]  # untyped in torch
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]  # as above
        self.is_on = False

    def encode(self, structure: Any) -> Any:
        """Arguments with values in place of tensors.

        Raises:
            NotRecordableError: a tensor of unknown origin, or an object of unknown meaning.
        """
        return mapped(structure, self._encode)

    def _encode(self, leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            if (value := self._find(leaf)) is not None:
                if value.requires_grad is not leaf.requires_grad:
                    raise NotRecordableError("a function with a gradient of its own")
                return value
            if self.constants.get(id(leaf)) is not leaf:
                raise NotRecordableError("a tensor of unknown origin")
            return self.used.setdefault(id(leaf), (Value.of(leaf), leaf))[0]
        if isinstance(leaf, LITERALS):
            return leaf
        raise NotRecordableError(f"an argument of type {type(leaf).__name__}")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch, and note the call."""
        kwargs = kwargs or {}
        if self._is_paused:
            return func(*args, **kwargs)
        python = without_overrides(func)
        if python is not None and func not in self._within:
            self._within.append(func)
            try:
                with self:
                    return python(*args, **kwargs)
            finally:
                self.is_on = True
                self._within.pop()
        result = func(*args, **kwargs)
        if self.failure is None:
            try:
                self._note(func, args, kwargs, result)
            except NotRecordableError as error:
                self.failure = str(error)
        return result

    def _note(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> None:
        name = name_of(func)
        if name in METADATA or (name == "requires_grad" and not self._with_grad):
            return
        if torch.is_grad_enabled() is not self._with_grad or name.startswith("_set_"):
            raise NotRecordableError("a change of a setting of torch")
        encoded, keywords = self.encode(args), self.encode(kwargs)
        tensors = [result] if isinstance(result, Tensor) else result
        if isinstance(tensors, (tuple, list)) and any(isinstance(t, Tensor) for t in tensors):
            known = [isinstance(t, Tensor) and self._find(t) is not None for t in tensors]
            if known == [True] and isinstance(result, Tensor) and _returns_input(name, kwargs):
                return  # it had nothing to do
            if name == "contiguous":
                self._values.pop(id(result), None)
            values = [self.add(t) if isinstance(t, Tensor) else None for t in tensors]
            _note_shared((args, kwargs), (encoded, keywords), tensors, values)
            many = not isinstance(result, Tensor)
            self.calls.append(Call(func, encoded, keywords, values, many, self.step))
            if has_size_of_data(func, _tensors_in(args[1:]).values()):
                for tensor, value in zip(tensors, values, strict=True):
                    self._check_shape(tensor, value)
        elif result is None:
            self.calls.append(Call(func, encoded, keywords, [], False, self.step))
        elif _is_plain(result):
            if not any(values_in((encoded, keywords))):
                return  # numbers of numbers
            self.calls.append(Check(func, encoded, keywords, [], False, self.step, result))
        else:
            raise NotRecordableError(f"a result of type {type(result).__name__}")

    def _check_shape(self, tensor: Tensor, value: Value | None) -> None:
        size = torch.Tensor.size
        self.calls.append(Check(size, (value,), {}, [], False, self.step, tensor.shape))

    def note_step(self, call: StepCall, arguments: Sequence[Any], result: Any) -> None:
        """Note a whole step as one call; sizes of its results are checked.

        Raises:
            NotRecordableError: it takes or returns something else than tensors.
        """
        encoded = self.encode(tuple(arguments))
        results = list(result) if isinstance(result, tuple) else [result]
        if not all(isinstance(r, Tensor) for r in results if r is not None):
            raise NotRecordableError("a step that returns something else than tensors")
        for tensor in results:
            if tensor is not None and self._find(tensor) is not None:
                self._values.pop(id(tensor))  # the step may return another one next time
        values = [None if r is None else self.add(r) for r in results]
        many = isinstance(result, tuple)
        self.calls.append(Call(call, encoded, {}, values, many, self.step))
        for tensor, value in zip(results, values, strict=True):
            if tensor is not None:
                self._check_shape(tensor, value)


class _Recorder(Interpreter):
    """Runs steps under a tape."""

    def __init__(self, tape: _Tape) -> None:
        self.tape = tape
        self.failure: str | None = None
        self._numbers = count()

    def run_step(self, step: Step, frame: Frame) -> Any:
        """Run one step, inside of others where it belongs to a subgraph."""
        tape, values = self.tape, frame.values
        around, begin = tape.step, len(tape.calls)
        with tape.paused():
            tape.step = next(self._numbers)
            before = {key: values[key] for key in step.reads}
            tape.constants.update(_tensors_in(step.attributes))
        if not _is_own(step):
            tape.failure = "a kernel that is not of this library"
        with nullcontext() if tape.is_on else tape:
            result = super().run_step(step, frame)
        with tape.paused():
            if (tape.failure or self._unknown(result)) is not None:
                tape.take_back(begin)
                self._note_whole(step, before, frame, result)
            self._note_updates(step, values, result)
        tape.step = around
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

    def _note_whole(self, step: Step, before: Mapping[Any, Any], frame: Frame, result: Any) -> None:
        try:
            live = {k: v for k, v in before.items() if self._is_live(v)}
            held = {k: v for k, v in before.items() if k not in live}
            call = StepCall(step, list(live), held, frame.device, frame.loop_trips)
            self.tape.note_step(call, list(live.values()), result)
        except NotRecordableError as error:
            self.failure = str(error)

    def _note_updates(self, step: Step, values: Mapping[Any, Any], result: Any) -> None:
        """Note what a step changes of the state; the loop writes it afterwards."""
        tape = self.tape
        try:
            for name, index in step.updates:
                args = tape.encode((values[name], result[index]))
                tape.calls.append(Call(assign_, args, {}, [], False, tape.step))
        except NotRecordableError as error:
            self.failure = str(error)

    def _is_live(self, value: Any) -> bool:
        """Whether a value differs from call to call."""
        encoded = self.tape.encode(value) if isinstance(value, (Tensor, list)) else None
        if isinstance(value, (np.ndarray, dict)):
            raise NotRecordableError("a value that is not a tensor")
        return any(found not in self._constants() for found in values_in(encoded))

    def _constants(self) -> set[Value]:
        return {value for value, _ in self.tape.used.values()}


def assign_(state: Tensor, value: Tensor) -> None:
    """Take over the next value of a state."""
    with torch.no_grad():
        state.copy_(value)


def _is_own(step: Step) -> bool:
    """Whether all kernels of a step belong to this library: what others do is not known."""
    nodes = [part.node for part in step.parts] or [step.node]
    functions = [node.kernel.function for node in nodes if node.kernel]
    return all(f.__module__.startswith("onnxinterp.") for f in functions)


def _tensors_in(structure: Any) -> dict[int, Tensor]:
    found: dict[int, Tensor] = {}

    def visit(leaf: Any) -> None:
        if isinstance(leaf, Tensor):
            found[id(leaf)] = leaf

    mapped(structure, visit)
    return found


def _note_shared(
    arguments: Any, encoded: Any, tensors: Sequence[Any], values: Sequence[Value | None]
) -> None:
    """Note which of the arguments a result shares memory with."""
    given = zip(_tensors_in(arguments).values(), dict.fromkeys(values_in(encoded)), strict=True)
    memory = {_memory(t): value for t, value in given if t.numel()}
    for tensor, value in zip(tensors, values, strict=True):
        if value is not None and (base := memory.get(_memory(tensor))) not in (None, value):
            value.base = base


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)  # fake tensors have no data pointer


def _is_plain(result: Any) -> bool:
    """Whether a result is numbers, few enough to compare them in each call."""
    if isinstance(result, (list, tuple)):
        return len(result) <= MAX_CHECKED and all(map(_is_plain, result))
    return isinstance(result, (int, float, complex))


def _returns_input(name: str, kwargs: Mapping[str, Any]) -> bool:
    """Whether a function that returned a known tensor had nothing to do, and did not write it."""
    return not (name.endswith("_") or name.startswith("__i") or "out" in kwargs) and (
        name != "contiguous"
    )

"""Snapshot: a module for inference, run by the engine that is fastest here.

Snapshot.__call__      checks the inputs, asks whether weights have changed, picks the lane
    Lane.runner        of the sizes, or of any sizes
    _fall_back         the module itself, where an engine fails
Snapshot.refresh       prepares all anew from the weights as they are
"""

from __future__ import annotations

import copy
import ctypes
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from threading import Lock, RLock
from typing import Any, Literal, TypeAlias
from weakref import WeakSet

import torch
from torch import Tensor
from torch._C._functorch import peek_interpreter_stack

from onnxinterp.errors import ChangedWeightsError, EngineError, plain
from onnxinterp.planning.isolation import outside_transforms
from onnxinterp.snapshots.checking import Reference, references
from onnxinterp.snapshots.competition import (
    Competition,
    Entry,
    Lane,
    Outcome,
    described,
    entries,
    measure,
    rank,
)
from onnxinterp.snapshots.engines import FAITHFUL, engine_names
from onnxinterp.snapshots.staleness import WeightWatch
from onnxinterp.snapshots.state import MAX_LANES, Signature, State, remember, signature_of
from onnxinterp.snapshots.subject import Subject, evaluate, modules_with_modes
from onnxinterp.values import is_traced

OnChange: TypeAlias = Literal["raise", "renew", "ignore"]
ON_CHANGE = ("raise", "renew", "ignore")
_SNAPSHOTS: WeakSet[Snapshot] = WeakSet()


class Snapshot:
    """A module for inference, over copies of its weights: see `OnnxModule.optimize`.

    Call it as the module. `print(snapshot)` shows which engine runs which sizes, with the measured
    times. It can be copied and pickled; engines are prepared again at the first call of the copy.
    """

    def __init__(
        self,
        module: Subject,
        example: Mapping[str, Any],
        *,
        engine: str | Sequence[str] | None = None,
        on_change: OnChange = "raise",
        cache: bool = True,
        tolerance: float | None = None,
        providers: Sequence[Any] | None = None,
    ) -> None:
        if on_change not in ON_CHANGE:
            raise ValueError(f"on_change must be one of {', '.join(ON_CHANGE)}, got {on_change!r}")
        if tolerance is not None and not tolerance >= 0:
            raise ValueError(f"tolerance must be a number from 0 on or None, got {tolerance!r}")
        self.module = module
        self.on_change = on_change
        self._source = module  # what is prepared
        self._competition = Competition(
            engine_names(engine), cache, tolerance, None if providers is None else tuple(providers)
        )
        self._example = {name: _copied(value) for name, value in example.items()}
        self._seconds: Mapping[str, float] = {}  # engine -> what was measured on the example
        self._start()
        self.refresh()

    def _start(self) -> None:
        self._lock = RLock()
        self._preparing = Lock()
        self._uses = count(1)
        self._state: State | None = None
        _SNAPSHOTS.add(self)

    # calls

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Run the model, in `eval()` mode and without gradients.

        Args:
            *args: inputs, in graph order.
            **keywords: inputs by ONNX name, or by the name in the signature.

        Returns:
            The one output, or a tuple of the outputs in graph order. They share memory with
            nothing.

        Raises:
            InputError: as of a call of the module.
            NodeError: as of a call of the module.
            ChangedWeightsError: the weights changed, and `on_change` is "raise".
        """
        state = self._state or self._prepared()
        if state.watch is not None:
            state = self._current(state, state.watch)
        signature = None if keywords else signature_of(args)
        if signature in state.accepted and not _is_transformed():
            results = self._run(state, args, signature)
        else:
            results = self._check_and_run(state, args, keywords)
        return results[0] if len(results) == 1 else results

    def _check_and_run(self, state: State, args: Any, keywords: Any) -> tuple[Any, ...]:
        """Check the inputs, and run; later calls with such inputs need no check."""
        module = state.module
        given = module._call.gather(args, keywords, module._floating)
        if _is_transformed():
            return evaluate(module, given)
        if len(given) != len(state.names):
            return state.faithful.run(given)
        inputs = tuple([given[name] for name in state.names])
        signature = signature_of(inputs)
        if signature is None:
            return state.faithful(inputs)
        remember(state.accepted, signature, None)
        return self._run(state, inputs, signature)

    def _prepared(self) -> State:
        """The state, prepared now where this is a copy, or in a forked process."""
        with self._lock:
            return self._state or self._prepare()

    def _current(self, state: State, watch: WeightWatch) -> State:
        """The state, made anew where weights have changed and that is wanted.

        Raises:
            ChangedWeightsError: they have changed.
        """
        change = watch.change(self.module)
        if not change and not watch.is_in_training():
            return state
        _check_mode(self.module)
        if change and self.on_change == "raise":
            message = f"the weights changed since the snapshot was made ({change})"
            raise ChangedWeightsError(f"{message}: call refresh()")
        with self._lock:  # another thread may have renewed it meanwhile
            if self._state is state:
                self.refresh()
            return self._prepared()

    def _run(self, state: State, inputs: Any, signature: Signature) -> tuple[Any, ...]:
        lane = state.lanes.get(signature)
        if lane is None:
            lane = self._lane_of(state, signature, inputs)
        lane.last_use = next(self._uses)
        if lane.runner is state.faithful:
            return lane.runner(inputs)
        try:
            return lane.runner(inputs)
        except Exception as error:  # those of an engine have no common class
            return self._fall_back(state, signature, lane, inputs, error)

    def _fall_back(
        self,
        state: State,
        signature: Signature,
        lane: Lane,
        inputs: tuple[Any, ...],
        error: Exception,
    ) -> tuple[Any, ...]:
        """Run the module where an engine failed; its own error is that of the call.

        An `EngineError` is about these values, any other about the sizes: these stay with the
        module, and the report says why.
        """
        results = state.faithful(inputs)
        if not isinstance(error, EngineError):
            reason = f"it failed in a call: {type(error).__name__}: {error}"
            with self._lock:
                state.lanes.pop(signature, None)
                remember(state.without, signature, state.slowest)
                line = described(state.names, inputs)
                state.note(line, entries(line, {}, {lane.engine: reason}, state.slowest))
        return results

    def _lane_of(self, state: State, signature: Signature, inputs: tuple[Any, ...]) -> Lane:
        """The lane for sizes that no lane is kept for; prepared when they come a second time."""
        if (lane := state.without.get(signature)) is not None:
            return lane
        if state.chosen is None:
            return state.any_lane
        if signature not in state.seen:
            remember(state.seen, signature, None)
            return state.any_lane
        if not self._preparing.acquire(blocking=False):
            return state.any_lane  # another thread is preparing a lane
        try:
            return self._prepare_lane(state, signature, inputs)
        finally:
            self._preparing.release()

    def _prepare_lane(self, state: State, signature: Signature, inputs: tuple[Any, ...]) -> Lane:
        """Prepare the chosen engine for further sizes."""
        if (known := state.lanes.get(signature)) is not None:
            return known
        assert state.chosen is not None, "asked before"
        inputs = tuple([_copied(x) for x in inputs])
        line = described(state.names, inputs)
        try:
            checks = references(state.module, inputs)
        except EngineError as error:
            found = Outcome([], {state.chosen: str(error)}, {})
        else:
            found = self._against(state.any_lane, state.chosen, state.module, checks)
        lane = min(found.lanes, key=rank) if found.lanes else state.any_lane
        if found.refused:
            remember(state.without, signature, state.any_lane)
        with self._lock:
            if len(state.lanes) >= MAX_LANES:
                oldest = min(state.lanes, key=lambda key: state.lanes[key].last_use)
                del state.lanes[oldest]
            state.lanes[signature] = lane
            state.note(line, entries(line, found.seconds, found.refused, lane))
        return lane

    def _against(
        self, general: Lane, name: str, module: Subject, checks: Sequence[Reference]
    ) -> Outcome:
        """Measure an engine for particular sizes against one for any."""
        lanes, refused = self._competition.prepare([name], module, checks)
        lanes.append(general)
        if len(lanes) > 1:
            measure(lanes, checks[0].inputs)
        return Outcome(lanes, refused, {lane.engine: rank(lane) for lane in lanes})

    # preparing

    def refresh(self) -> None:
        """Prepare everything anew from the weights as they are now.

        Raises:
            ChangedWeightsError: the module is in `train()` mode.
            EngineError: none of the engines that `engine=` names can run the model any more.
        """
        with self._lock:
            _check_mode(self.module)
            if self.on_change == "ignore":
                self._source = copy.deepcopy(self.module)
            self._prepare()

    def _prepare(self) -> State:
        with _plainly(self._example.values()):
            self._state = state = self._make_state(self._source)
        return state

    def _make_state(self, module: Subject) -> State:
        # made before weights are read: what changes them meanwhile is noticed
        watch = None if self.on_change == "ignore" else WeightWatch(module)
        state = State(module, watch)
        inputs = tuple([self._example[name] for name in state.names])
        found = self._compete(module, inputs)
        lanes = found.lanes
        if FAITHFUL in self._competition.engines and not lanes:
            lanes = [state.slowest]
        if not lanes:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in found.refused.items())
            raise EngineError(f"no engine can run this model: {reasons}")
        best = min(lanes, key=rank)
        self._seconds = found.seconds
        line = described(state.names, inputs)
        state.note(line, entries(line, found.seconds, found.refused, best))
        general = [lane for lane in lanes if lane.any_sizes]
        state.any_lane = min(general, key=rank) if general else state.slowest
        if not best.any_sizes and (signature := signature_of(inputs)) is not None:
            state.chosen = best.engine
            state.lanes[signature] = best
        return state

    def _compete(self, module: Subject, inputs: tuple[Any, ...]) -> Outcome:
        """Find the engine for the example."""
        try:
            if signature_of(inputs) is None:
                raise EngineError("inputs must be tensors, not strings, sequences or maps")
            checks = references(module, inputs)
        except EngineError as error:
            others = (name for name in self._competition.engines if name != FAITHFUL)
            return Outcome([], dict.fromkeys(others, str(error)), {})
        return self._competition.run(module, checks, self._seconds)

    # what it tells of itself

    def report(self) -> list[Entry]:
        """What became of each engine, for each signature of inputs, the fastest first."""
        state = self._state or self._prepared()
        return [entry for found in tuple(state.entries.values()) for entry in found]

    @property
    def engine(self) -> str:
        """The engine that runs inputs of the example's sizes."""
        return next(entry.engine for entry in self.report() if entry.serves)

    def __repr__(self) -> str:
        if self._state is None:
            return f"<Snapshot of {plain(self.module._plans.graph.name)!r}, not prepared yet>"
        lines = [f"Snapshot of {self.module._plans.graph.name!r}, on_change={self.on_change!r}"]
        line = None
        for entry in self.report():
            if entry.inputs != line:
                lines.append(f"  {entry.inputs or 'no inputs'}")
                line = entry.inputs
            time = "" if entry.seconds is None else f"{entry.seconds * 1e3:10.3f} ms"
            said = f"refused: {entry.refused}" if entry.refused else time
            lines.append(f"  {'->' if entry.serves else '  '} {entry.engine:<12} {said}".rstrip())
        return "\n".join(map(plain, lines))

    def __getstate__(self) -> dict[str, Any]:
        """The module and the choice: engines are prepared again."""
        derived = ("_lock", "_preparing", "_uses", "_state")
        state = {k: v for k, v in self.__dict__.items() if k not in derived}
        return {**state, "module": self._source}  # where changes are ignored, what was copied

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()


def _check_mode(module: Subject) -> None:
    if any(level.training for level in modules_with_modes(module)):
        message = "a snapshot computes what the module does in eval() mode"
        raise ChangedWeightsError(f"{message}, but a part of it is in train() mode: call eval()")


def _is_transformed() -> bool:
    """Whether torch is capturing or transforming the call, or computes in other types."""
    return (
        torch.compiler.is_compiling()
        or peek_interpreter_stack() is not None
        or torch._C._is_any_autocast_enabled()
        or torch._C._len_torch_dispatch_stack() > 0
        or is_traced()
    )


@contextmanager
def _plainly(values: Iterable[Any]) -> Iterator[None]:
    """Run as calls outside of any transform and autocast do."""
    devices = {"cpu", *(x.device.type for x in values if isinstance(x, Tensor))}
    with ExitStack() as stack:
        if _is_transformed():
            stack.enter_context(outside_transforms())
        for device in devices - {"meta"}:
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)


def _after_fork() -> None:
    """Let snapshots prepare again in a forked process, which has none of the engines' threads.

    Those of the parent are never freed here: an engine that ends waits for its threads.
    """
    for snapshot in tuple(_SNAPSHOTS):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(snapshot._state))
        snapshot._start()


if hasattr(os, "register_at_fork"):  # posix only
    os.register_at_fork(after_in_child=_after_fork)

"""Engines compete: each is prepared, compared with the module, and measured; the fastest serves.

Entry       what became of one engine, for one signature of inputs
Lane        a runner that was right
compete     entries and lanes, the fastest first
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from onnxinterp.errors import EngineError
from onnxinterp.extras import MissingExtraError
from onnxinterp.programs.timing import least_seconds
from onnxinterp.snapshots.checking import Reference, problem
from onnxinterp.snapshots.choices import processor, read_choice, versions, write_choice
from onnxinterp.snapshots.engines import ENGINES, Options, Runner
from onnxinterp.snapshots.subject import Subject, graph_hash

SECONDS = 0.25  # of measuring, for each engine


@dataclass(frozen=True)
class Entry:
    """What became of one engine.

    Attributes:
        engine: its name.
        inputs: the inputs that it was tried on: `x float32[1, 3]`.
        seconds: of the fastest call; None where it was not measured.
        refused: why it does not serve; "" where it could.
        serves: whether it is the one that calls with such inputs run in.
    """

    engine: str
    inputs: str
    seconds: float | None = None
    refused: str = ""
    serves: bool = False


@dataclass(eq=False)
class Lane:
    """An engine, ready to run.

    Attributes:
        engine: its name.
        runner: runs.
        any_sizes: whether it runs all sizes.
        seconds: of the fastest call; None where it was not measured.
        last_use: counts up, to find the one that was not used for longest.
    """

    engine: str
    runner: Runner
    any_sizes: bool
    seconds: float | None = None
    last_use: int = 0


def prepare(
    name: str,
    module: Subject,
    checks: Sequence[Reference],
    options: Options,
    tolerance: float | None,
) -> Lane | str:
    """Prepare one engine, and compare it with the module; a string is why it is refused."""
    try:
        runner = ENGINES[name].load()(module, _clones(checks[0].inputs), options)
    except (EngineError, MissingExtraError) as error:
        return str(error)
    except Exception as error:  # of a broken installation, or of a runtime
        return f"it cannot be prepared: {type(error).__name__}: {error}"
    lane = Lane(name, runner, runner.takes_any_sizes)
    for check in checks:
        if not check.is_example and not lane.any_sizes:
            continue
        try:
            results = runner(_clones(check.inputs))
        except Exception as error:  # those of an engine have no common class
            if check.is_example:
                return f"it fails: {type(error).__name__}: {error}"
            lane.any_sizes = False  # the file fits the sizes of the example only
            continue
        if difference := problem(results, check.outputs, tolerance):
            sizes = "" if check.is_example else " with other sizes"
            return f"it computes something else{sizes}: {difference}"
    return lane


def _clones(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Inputs that an engine might write to or keep."""
    return tuple([x.clone() for x in inputs])


def measure(lanes: Sequence[Lane], inputs: tuple[Tensor, ...]) -> None:
    """Measure runners, one call of each in turn, and keep the fastest of each."""
    calls = [partial(lane.runner, inputs) for lane in lanes]
    for lane, seconds in zip(lanes, least_seconds(calls, SECONDS * len(lanes)), strict=True):
        lane.seconds = seconds


@dataclass(frozen=True)
class Competition:
    """The engines that compete, and on which terms.

    Attributes:
        engines: their names.
        cache: whether choices are kept on disk.
        tolerance: how far they may differ from the module; None for that of the element type.
        providers: of onnxruntime.
    """

    engines: tuple[str, ...]
    cache: bool
    tolerance: float | None
    providers: tuple[Any, ...] | None

    def prepare(
        self, names: Iterable[str], module: Subject, checks: Sequence[Reference]
    ) -> tuple[list[Lane], dict[str, str]]:
        """Prepare engines: those that are right, and why others are refused, by name."""
        options = Options(torch.get_num_threads(), self.providers, self.cache)
        lanes: list[Lane] = []
        refused: dict[str, str] = {}
        for name in names:
            found = prepare(name, module, checks, options, self.tolerance)
            if isinstance(found, Lane):
                lanes.append(found)
            else:
                refused[name] = found
        return lanes, refused

    def run(
        self, module: Subject, checks: Sequence[Reference], known: Mapping[str, float]
    ) -> Outcome:
        """Find the fastest engine.

        Args:
            module: what runs.
            checks: what is right; the first is the example.
            known: engine -> seconds, of an earlier competition: its winner is not measured again.
        """
        inputs = checks[0].inputs
        key = self._key(module, inputs) if self.cache else None
        if not known and key is not None:
            known = read_choice(key) or {}
        if known and (first := min(known, key=known.__getitem__)) in self.engines:
            lanes = self._known(module, checks, known)
            if lanes and lanes[0].engine == first:
                return Outcome(lanes, {}, known)
        lanes, refused = self.prepare(self.engines, module, checks)
        measure(lanes, inputs)
        seconds = {lane.engine: lane.seconds for lane in lanes if lane.seconds is not None}
        if seconds and key is not None:
            write_choice(key, seconds)
        return Outcome(lanes, refused, seconds)

    def _known(
        self, module: Subject, checks: Sequence[Reference], known: Mapping[str, float]
    ) -> list[Lane]:
        """The winner of an earlier competition, and the next one that takes any sizes."""
        found: list[Lane] = []
        for name in sorted(known, key=known.__getitem__):
            lanes, _ = self.prepare([name] if name in self.engines else [], module, checks)
            for lane in lanes:
                lane.seconds = known[name]
            found += lanes
            if not found or found[-1].any_sizes:
                break
        return found

    def _key(self, module: Subject, inputs: tuple[Tensor, ...]) -> dict[str, Any] | None:
        """What the choice depends on; None where the model has no bytes to be known by."""
        graph = graph_hash(module)
        if graph is None:
            return None
        return {
            "engines": list(self.engines),
            "inputs": described(module.input_names, inputs),
            "device": [str(x.device) for x in inputs],
            "model": graph,
            "processor": processor(),
            "providers": repr(self.providers),
            "threads": torch.get_num_threads(),
            "versions": versions(),
        }


class Outcome(NamedTuple):
    """The end of a competition.

    Attributes:
        lanes: the engines that are right, or of a known choice its winner alone.
        refused: engine -> why it is not.
        seconds: engine -> the fastest call.
    """

    lanes: list[Lane]
    refused: dict[str, str]
    seconds: Mapping[str, float]


def rank(lane: Lane) -> float:
    """Sorts lanes by what was measured."""
    return float("inf") if lane.seconds is None else lane.seconds


def entries(
    inputs: str, seconds: Mapping[str, float], refused: Mapping[str, str], serving: Lane
) -> list[Entry]:
    """The entries of a competition: the fastest first, then the refused."""
    ranked = {serving.engine: None, **dict.fromkeys(sorted(seconds, key=seconds.__getitem__))}
    found = [Entry(n, inputs, seconds.get(n), serves=n == serving.engine) for n in ranked]
    return found + [Entry(name, inputs, refused=reason) for name, reason in refused.items()]


def described(names: Sequence[str], inputs: Sequence[Any]) -> str:
    """Inputs in a line: `x float32[1, 3]`."""
    return ", ".join(
        f"{name} {str(x.dtype).removeprefix('torch.')}{list(x.shape)}"
        if isinstance(x, Tensor)
        else f"{name} {type(x).__name__}"
        for name, x in zip(names, inputs, strict=True)
    )

"""How long onnxruntime takes for each node of a model, by its own profile."""

from __future__ import annotations

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import onnx
import torch

from onnxinterp.errors import InputError
from onnxinterp.inspection import ReferenceTimes
from onnxinterp.reading.source import Source, reusable
from onnxinterp.verify.reference import Reference

WARM_UP_RUNS = 3
KERNEL_TIME = "_kernel_time"  # what onnxruntime appends to the name of a node
SEPARATOR = "/"  # between the number of a node and that of a node in its subgraphs


class _Timed(Reference):
    """A model in which each node has a number in place of its name.

    onnxruntime opens no model with two nodes of one name. It has as many threads as torch.

    Attributes:
        outputs: number of a node -> its first output.
    """

    def _options(self) -> Any:
        options = super()._options()
        options.intra_op_num_threads = torch.get_num_threads()
        return options

    def _open(self, model: onnx.ModelProto) -> Any:
        self.outputs = dict(_number(model.graph))
        return super()._open(model)


class _Profiled(_Timed):
    """The same with a profile, in a folder."""

    def __init__(self, source: Source, folder: Path) -> None:
        self._prefix = str(folder / "profile")
        super().__init__(source, level="disabled")

    def _options(self) -> Any:
        options = super()._options()
        options.enable_profiling = True
        options.profile_file_prefix = self._prefix
        return options

    def events(self) -> list[dict[str, Any]]:
        """End the profile and return its events."""
        content: list[dict[str, Any]] = json.loads(Path(self._session.end_profiling()).read_text())
        return content


def time_nodes(source: Source, inputs: Mapping[str, Any], *, runs: int = 10) -> ReferenceTimes:
    """Time a model and its nodes in onnxruntime, with as many threads as torch has.

    Args:
        source: the model.
        inputs: values by name.
        runs: that are timed; times are minima.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        ReferenceFailedError: onnxruntime cannot run the model.
        InputError: `runs` is less than 1.
    """
    if runs < 1:
        raise InputError(f"runs must be at least 1, got {runs}")
    source = reusable(source)
    with tempfile.TemporaryDirectory() as folder:
        profiled = _Profiled(source, Path(folder))
        for _ in range(WARM_UP_RUNS + runs):
            profiled(inputs)
        times, outputs = _own_times(profiled.events(), runs), profiled.outputs
    names = Counter(outputs.values())
    nodes = {outputs[n]: s for n, s in times.items() if n in outputs and names[outputs[n]] == 1}
    seconds = [_seconds(_Timed(source, level=level), inputs, runs) for level in ("disabled", "all")]
    return ReferenceTimes(nodes, *seconds)


def _seconds(reference: Reference, inputs: Mapping[str, Any], runs: int) -> float:
    """The minimum time of a call."""
    found = []
    for _ in range(WARM_UP_RUNS + runs):
        start = perf_counter()
        reference(inputs)
        found.append(perf_counter() - start)
    return min(found)


def _number(graph: onnx.GraphProto, around: str = "") -> Iterator[tuple[str, str]]:
    """Give each node a number as its name; return number and first output of each."""
    for place, node in enumerate(graph.node):
        node.name = f"{around}{place}"
        yield node.name, next(filter(None, node.output), "")
        bodies = [a.g for a in node.attribute if a.HasField("g")]
        bodies += [body for attribute in node.attribute for body in attribute.graphs]
        for index, body in enumerate(bodies):
            yield from _number(body, f"{node.name}{SEPARATOR}{index}.")


def _own_times(events: Sequence[Mapping[str, Any]], runs: int) -> dict[str, float]:
    """Number of a node -> seconds of a run, without those of its subgraphs."""
    calls = [event for event in events if event["name"] == "model_run"][-runs:]
    totals: list[dict[str, float]] = [defaultdict(float) for _ in calls]
    for event in events:
        if event["cat"] != "Node" or not event["name"].endswith(KERNEL_TIME):
            continue
        place = next((i for i, call in enumerate(calls) if _is_inside(event, call)), None)
        if place is not None:
            name, seconds = event["name"].removesuffix(KERNEL_TIME), event["dur"] / 1e6
            totals[place][name] += seconds
            if SEPARATOR in name:
                totals[place][name.rpartition(SEPARATOR)[0]] -= seconds
    names = dict.fromkeys(name for total in totals for name in total)
    return {name: max(0.0, min(t[name] for t in totals if name in t)) for name in names}


def _is_inside(event: Mapping[str, Any], call: Mapping[str, Any]) -> bool:
    begin: float = call["ts"]
    return bool(begin <= event["ts"] <= begin + call["dur"])

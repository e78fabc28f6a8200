"""Results of models: ratios to onnxruntime, and their geometric means by class."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.speed.engines import ENGINES, ONNXRUNTIME, OPTIMIZED, PLAIN
from benchmarks.tables import Table

BASELINE, CURRENT = "baseline", "current"  # two checkouts, each in a process of its own
MAX_MSE = 1e-7


@dataclass(frozen=True)
class Result:
    """One model with one number of threads.

    Attributes:
        model: its name.
        kind: its class.
        nodes: of its graph.
        threads: of each engine.
        seconds: engine -> minimum over the rounds.
        errors: engine -> mean squared error against unoptimized onnxruntime.
        failures: engine -> why it has no time.
        chosen: `optimized` -> the engine that it has chosen.
    """

    model: str
    kind: str
    nodes: int
    threads: int
    seconds: dict[str, float]
    errors: dict[str, float]
    failures: dict[str, str] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)

    def ratio(self, engine: str, other: str = ONNXRUNTIME) -> float | None:
        """Return the ratio of two minima; None if one of the engines did not run."""
        if engine not in self.seconds or other not in self.seconds:
            return None
        return self.seconds[engine] / self.seconds[other]


def geometric_mean(ratios: Iterable[float | None]) -> float | None:
    """Return the mean of the known ratios; None if there is none."""
    logs = [math.log(ratio) for ratio in ratios if ratio is not None]
    return math.exp(sum(logs) / len(logs)) if logs else None


def engines_of(results: Sequence[Result]) -> list[str]:
    """Return the engines that ran, in the usual order, then the others."""
    ran = dict.fromkeys(name for result in results for name in (*result.seconds, *result.failures))
    known = [name for name in ENGINES if name in ran]
    return known + [name for name in ran if name not in (*known, BASELINE, CURRENT)]


def number_of(threads: int) -> str:
    """Return "1 thread", "2 threads"."""
    return f"{threads} thread{'s' if threads > 1 else ''}"


def _shown(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def _mean(ratios: Sequence[float | None]) -> str:
    """Return the mean, with the number of the models if it is not that of all."""
    known = [ratio for ratio in ratios if ratio is not None]
    some = f" ({len(known)})" if 0 < len(known) < len(ratios) else ""
    return _shown(geometric_mean(known)) + some


def _cell(result: Result, engine: str) -> str:
    if engine in result.failures:
        return "fails"
    right = result.errors.get(engine, 0.0) < MAX_MSE  # not for NaN
    chosen = f" {result.chosen[engine]}" if engine == OPTIMIZED and engine in result.chosen else ""
    return _shown(result.ratio(engine)) + chosen + ("" if right else " (!)")


def _note(threads: int) -> str:
    clock = "process" if threads == 1 else "wall"
    return (
        f"Milliseconds of onnxruntime, and the ratio of {clock} times to it: below 1 is faster "
        "than onnxruntime. `MSE` is the largest of onnxinterp's. (!) marks an engine whose MSE "
        f"against unoptimized onnxruntime is not below {MAX_MSE:g}. A mean over fewer models has "
        "their number behind it."
    )


def table_of(results: Sequence[Result], threads: int) -> Table:
    """Return the table of one number of threads, with geometric means at its end."""
    results = [result for result in results if result.threads == threads]
    others = [name for name in engines_of(results) if name != ONNXRUNTIME]
    has_baseline = any(BASELINE in result.seconds for result in results)
    rows = []
    for r in results:
        row = [r.model, str(r.nodes), 1e3 * r.seconds.get(ONNXRUNTIME, math.nan)]
        row += [_cell(r, name) for name in others]
        row += [_shown(r.ratio(BASELINE, CURRENT))] * has_baseline
        ours = [e for name, e in r.errors.items() if name.partition(":")[0] in (PLAIN, OPTIMIZED)]
        rows.append((*row, f"{max(ours):.0e}" if ours else "-"))
    for kind in (*dict.fromkeys(r.kind for r in results), "all"):
        own = [r for r in results if kind in ("all", r.kind)]
        row = [f"**{kind}, geometric mean**", str(len(own)), ""]
        row += [_mean([r.ratio(name) for r in own]) for name in others]
        mean = _mean([r.ratio(BASELINE, CURRENT) for r in own])
        rows.append((*row, *[mean] * has_baseline, ""))
    old = ["old / new"] * has_baseline
    columns = ("model", "nodes", "onnxruntime ms", *others, *old, "MSE")
    return Table(number_of(threads), _note(threads), columns, tuple(rows))

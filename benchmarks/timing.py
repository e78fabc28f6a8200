"""How things are measured: side by side in one process, or each in a process of its own.

A machine's speed drifts by more than the differences of interest. So the candidates take turns, one
short block of calls each, and what is reported is a ratio of two medians, or of two minima, taken
over the same stretch of time. The clock is that of the process: with one thread it shows what a
wall clock shows on an idle machine, and on a busy one it does not count the turns of others.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import process_time

import torch

WARM_UP = 5
BLOCK = 2e-3  # seconds that one block of calls lasts, far above what the clock resolves


@dataclass(frozen=True)
class Times:
    """Seconds per call, one number per block."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """What a call takes."""
        return statistics.median(self.seconds)

    @property
    def minimum(self) -> float:
        """What a call takes where nothing came in between."""
        return min(self.seconds)


def _block(call: Callable[[], object], repeats: int) -> float:
    start = process_time()
    for _ in range(repeats):
        call()
    return (process_time() - start) / repeats


def _repeats(call: Callable[[], object]) -> int:
    """How many calls fill a block."""
    for _ in range(WARM_UP):
        call()
    return max(1, round(BLOCK / _block(call, WARM_UP)))


def interleaved(
    candidates: Mapping[str, Callable[[], object]], *, rounds: int = 200
) -> dict[str, Times]:
    """Time every candidate in every round; who goes first moves on by one each round."""
    names = list(candidates)
    repeats = {name: _repeats(candidates[name]) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            first = turn % len(names)
            for name in (*names[first:], *names[:first]):
                seconds[name].append(_block(candidates[name], repeats[name]))
    finally:
        gc.enable()
    return {name: Times(tuple(found)) for name, found in seconds.items()}


def one_thread() -> None:
    """Keep torch to one thread: what threads add differs by machine, and noise grows with them."""
    torch.set_num_threads(1)


def fresh_process(program: str, *arguments: str) -> list[float]:
    """Run a Python program in a new interpreter; return the numbers that it prints."""
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(word) for word in done.stdout.split()]

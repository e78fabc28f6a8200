"""Measurements: candidates in turn in one process, or each in a fresh process.

The speed of a machine drifts by more than the differences of interest. So the candidates run in
turn, one short block of calls each, and the result is a ratio of two medians, or of two minima, of
the same period. Times are process time: with one thread it equals wall time on an idle machine, and
on a busy machine it does not include other processes.
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

WARM_UP_CALLS = 5
BLOCK_SECONDS = 2e-3  # seconds of one block of calls, far above the resolution of the clock
MEMORY_STATUS = """
def status(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024
"""  # for a program of `run_in_fresh_process`; in MB


@dataclass(frozen=True)
class Times:
    """Seconds per call, one value per block."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median time of a call."""
        return statistics.median(self.seconds)

    @property
    def minimum(self) -> float:
        """Minimum time of a call."""
        return min(self.seconds)

    def ratios(self, other: Times) -> tuple[float, float]:
        """Return the ratio to another candidate, by medians and by minima."""
        return self.median / other.median, self.minimum / other.minimum


def _block(call: Callable[[], object], repeats: int) -> float:
    start = process_time()
    for _ in range(repeats):
        call()
    return (process_time() - start) / repeats


def _repeats(call: Callable[[], object]) -> int:
    """Return the number of calls in a block."""
    for _ in range(WARM_UP_CALLS):
        call()
    return max(1, round(BLOCK_SECONDS / _block(call, WARM_UP_CALLS)))


def time_candidates(
    candidates: Mapping[str, Callable[[], object]], *, rounds: int = 200
) -> dict[str, Times]:
    """Time every candidate in every round; each round starts with the next candidate."""
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


def use_one_thread() -> None:
    """Limit torch to one thread: more threads add noise, and their gain depends on the machine."""
    torch.set_num_threads(1)


def run_in_fresh_process(program: str, *arguments: str) -> list[float]:
    """Run a Python program in a new process; return the numbers that it prints."""
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(word) for word in done.stdout.split()]

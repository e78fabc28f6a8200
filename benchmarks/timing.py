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
LONG_BLOCK_SECONDS = 5e-3  # of whole models in several engines
Block = Callable[[int], float]  # number of calls -> seconds per call
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


def block_of(call: Callable[[], object], clock: Callable[[], float] = process_time) -> Block:
    """Return the blocks of a call, timed by a clock."""

    def block(repeats: int) -> float:
        start = clock()
        for _ in range(repeats):
            call()
        return (clock() - start) / repeats

    return block


def time_blocks(
    blocks: Mapping[str, Block], rounds: int, block_seconds: float = BLOCK_SECONDS
) -> dict[str, Times]:
    """Time every candidate in every round; each round starts with the next candidate."""
    names = list(blocks)
    repeats = {}
    for name in names:
        blocks[name](WARM_UP_CALLS)
        repeats[name] = max(1, round(block_seconds / blocks[name](WARM_UP_CALLS)))
    seconds: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            first = turn % len(names)
            for name in (*names[first:], *names[:first]):
                seconds[name].append(blocks[name](repeats[name]))
    finally:
        gc.enable()
    return {name: Times(tuple(found)) for name, found in seconds.items()}


def time_candidates(
    candidates: Mapping[str, Callable[[], object]], *, rounds: int = 200
) -> dict[str, Times]:
    """Time every candidate by the processor, in rounds as above."""
    return time_blocks({name: block_of(call) for name, call in candidates.items()}, rounds)


def use_one_thread() -> None:
    """Limit torch to one thread: more threads add noise, and their gain depends on the machine."""
    torch.set_num_threads(1)


def run_in_fresh_process(program: str, *arguments: str) -> list[float]:
    """Run a Python program in a new process; return the numbers that it prints."""
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(word) for word in done.stdout.split()]

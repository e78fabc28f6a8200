"""Interleaved rounds: each candidate runs one block of calls in each round."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping

from benchmarks.timing import Times

WARM_UP_CALLS = 4
BLOCK_SECONDS = 5e-3  # of one block of calls, far above the resolution of the clock
Block = Callable[[int], float]  # number of calls -> seconds per call


def block_of(call: Callable[[], object], clock: str) -> Block:
    """Return the blocks of a call, timed by a clock of module `time`."""
    now: Callable[[], float] = getattr(time, clock)

    def block(repeats: int) -> float:
        start = now()
        for _ in range(repeats):
            call()
        return (now() - start) / repeats

    return block


def time_blocks(blocks: Mapping[str, Block], rounds: int) -> dict[str, Times]:
    """Time every candidate in every round; each round starts with the next candidate."""
    names = list(blocks)
    repeats = {}
    for name in names:
        blocks[name](WARM_UP_CALLS)
        repeats[name] = max(1, round(BLOCK_SECONDS / blocks[name](WARM_UP_CALLS)))
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

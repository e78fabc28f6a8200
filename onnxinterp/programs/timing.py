"""Choosing by measuring: calls run in turn, and the least time of each counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from time import perf_counter, process_time

import torch

MIN_ROUNDS, MAX_ROUNDS = 5, 200


def least_seconds(calls: Sequence[Callable[[], object]], seconds: float) -> list[float]:
    """The least time that each call takes.

    With one thread this is processor time, which other processes change little; with several it is
    time on the clock.

    Args:
        calls: what is measured; each runs once more, before.
        seconds: how long all of them run, on the clock; each runs at least a few times.
    """
    clock = process_time if torch.get_num_threads() == 1 else perf_counter
    best = [math.inf] * len(calls)
    for call in calls:
        call()
    end = perf_counter() + seconds
    for turn in range(MAX_ROUNDS):
        for index, call in enumerate(calls):
            start = clock()
            call()
            best[index] = min(best[index], clock() - start)
        if turn >= MIN_ROUNDS and perf_counter() > end:
            break
    return best

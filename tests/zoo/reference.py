"""onnxruntime's answers, and the clock that runs both sides in turn."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime

THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))
ROUNDS, SECONDS = 9, 1.5  # of timing, whichever ends first


def session(path: Path) -> onnxruntime.InferenceSession:
    """Open a model with the default graph optimisations.

    Products of uint8 and int8 are exact, also on processors where sums of two of them saturate.
    """
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def answers(
    opened: onnxruntime.InferenceSession, inputs: list[dict[str, np.ndarray]]
) -> list[list[Any]]:
    """All outputs for each case."""
    return [list(opened.run(None, arrays)) for arrays in inputs]


def time_in_turn(
    ours: Callable[[], object], reference: Callable[[], object]
) -> tuple[float, float]:
    """Median milliseconds of both, run alternately so that both see the same machine."""
    times: tuple[list[float], list[float]] = ([], [])
    end = perf_counter() + SECONDS
    while len(times[0]) < ROUNDS and (len(times[0]) < 2 or perf_counter() < end):
        for run, spent in zip((ours, reference), times, strict=True):
            start = perf_counter()
            run()
            spent.append(1000 * (perf_counter() - start))
    return median(times[0]), median(times[1])

"""Time that `import onnxinterp` adds to `import torch`, in fresh processes."""

from __future__ import annotations

import statistics

from benchmarks.tables import Table, main
from benchmarks.timing import run_in_fresh_process

RUNS = 9
PROGRAM = """
import sys, time
for name in sys.argv[1:]:
    start = time.perf_counter()
    __import__(name)
    print(time.perf_counter() - start)
"""


def measure() -> Table:
    run_in_fresh_process(PROGRAM, "torch", "onnx", "onnxinterp")  # warm-up: bytecode, file cache
    together, separate = [], []
    for _ in range(RUNS):
        together.append(run_in_fresh_process(PROGRAM, "torch", "onnxinterp"))
        separate.append(run_in_fresh_process(PROGRAM, "torch", "onnx", "onnxinterp"))
    rows = {
        "torch": [torch for torch, _ in together],
        "onnxinterp after torch": [ours for _, ours in together],
        "onnx after torch": [onnx for _, onnx, _ in separate],
        "onnxinterp after torch and onnx": [ours for _, _, ours in separate],
    }
    return Table(
        "Import time",
        "Milliseconds in fresh processes, with files in the system's cache. The target for the "
        "time that onnxinterp adds to torch is 300.",
        ("import", "median", "minimum"),
        tuple(
            (name, 1e3 * statistics.median(times), 1e3 * min(times)) for name, times in rows.items()
        ),
    )


if __name__ == "__main__":
    main(measure)

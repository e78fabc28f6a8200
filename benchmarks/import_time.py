"""What `import onnxinterp` adds to `import torch`, in processes that have imported nothing else."""

from __future__ import annotations

import statistics

from benchmarks.tables import Table, main
from benchmarks.timing import fresh_process

RUNS = 9
PROGRAM = """
import sys, time
for name in sys.argv[1:]:
    start = time.perf_counter()
    __import__(name)
    print(time.perf_counter() - start)
"""


def measure() -> Table:
    fresh_process(PROGRAM, "torch", "onnx", "onnxinterp")  # writes the byte code, warms the disk
    whole, apart = [], []
    for _ in range(RUNS):
        whole.append(fresh_process(PROGRAM, "torch", "onnxinterp"))
        apart.append(fresh_process(PROGRAM, "torch", "onnx", "onnxinterp"))
    rows = {
        "torch": [torch for torch, _ in whole],
        "onnxinterp after torch": [ours for _, ours in whole],
        "onnx after torch": [onnx for _, onnx, _ in apart],
        "onnxinterp after torch and onnx": [ours for _, _, ours in apart],
    }
    return Table(
        "Import time",
        "Milliseconds, fresh processes, files cached by the system. The target for what we add to "
        "torch is 300.",
        ("import", "median", "minimum"),
        tuple(
            (name, 1e3 * statistics.median(times), 1e3 * min(times)) for name, times in rows.items()
        ),
    )


if __name__ == "__main__":
    main(measure)

"""Measure everything and write docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path

import onnx
import onnxruntime
import torch

from benchmarks import import_time, memory, models, overhead, training
from benchmarks.tables import write_json

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"


def processor() -> str:
    """Return the processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def load() -> str:
    """Return how busy the machine is: on a busy one the small differences mean little."""
    return f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"


def heading() -> str:
    return f"""# Benchmarks

Written by `python -m benchmarks.report`; one part alone: `python -m benchmarks.overhead`.
Candidates take turns within one process, so that a drift of the machine's speed meets them all;
their times are those of the process, imports those of the wall clock.

{processor()}, one thread, {load()}.
Python {platform.python_version()}, torch {torch.__version__}, onnx {onnx.__version__}, \
onnxruntime {onnxruntime.__version__}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the tables there, too")
    options = parser.parse_args()
    parts = (overhead, models, training, import_time, memory)
    top = heading()
    tables = [part.measure() for part in parts]
    PAGE.write_text("\n".join([top, *(table.markdown() for table in tables)]))
    if options.json:
        write_json(options.json, tables)


if __name__ == "__main__":
    main()

"""Run the benchmarks and write docs/benchmarks.md."""

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
    """Return the name of the processor, or the architecture if the name is unknown."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def load() -> str:
    """Return the load of the machine: on a busy one, small differences mean little."""
    return f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"


def heading() -> str:
    return f"""# Benchmarks

Written by `python -m benchmarks.report`; `python -m benchmarks.overhead` runs one part. The
candidates run in turn in one process, so changes in the speed of the machine affect all of them.
Times are process time, except for imports, which are wall time.

{processor()}, one thread, {load()}.
Python {platform.python_version()}, torch {torch.__version__}, onnx {onnx.__version__}, \
onnxruntime {onnxruntime.__version__}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the tables as JSON")
    options = parser.parse_args()
    parts = (overhead, models, training, import_time, memory)
    top = heading()
    tables = [part.measure() for part in parts]
    PAGE.write_text("\n".join([top, *(table.markdown() for table in tables)]))
    if options.json:
        write_json(options.json, tables)


if __name__ == "__main__":
    main()

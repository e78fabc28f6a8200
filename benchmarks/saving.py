"""Saving a model with 3 GB of external data: time, and memory in addition to the module (Linux).

All weights are changed first, so the module has its own copy of them in memory. The benchmark needs
10 GB of disk and 4 GB of memory, and is not part of `benchmarks.report`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from benchmarks.networks import make_model
from benchmarks.tables import Table, main
from benchmarks.timing import MEMORY_STATUS, run_in_fresh_process

LAYERS = 48
WIDTH = 4096  # 64 MB a tensor
GIGABYTES = LAYERS * WIDTH * WIDTH * 4 / 2**30

PROGRAM = f"""
{MEMORY_STATUS}
import os, shutil, sys, time
import torch
from onnxinterp import OnnxModule
source, folder = sys.argv[1:3]
def synced(path):
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
module = OnnxModule(source)
with torch.no_grad():
    for weight in module.weights.values():
        weight.add_(1)
os.sync()
start = time.perf_counter()
shutil.copyfile(source.replace("m.onnx", "w.bin"), folder + "/copy")
synced(folder + "/copy")
print(time.perf_counter() - start, 0)
os.unlink(folder + "/copy")
for target in (folder + "/m.onnx", source):
    os.sync()
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")  # resets the peak
    before, start = status("VmRSS:"), time.perf_counter()
    module.save_onnx(target)
    print(time.perf_counter() - start, status("VmHWM:") - before)
again = OnnxModule(source)
assert all(torch.equal(w, module.weights[n]) for n, w in again.weights.items())
"""


def _write_model(path: Path) -> None:
    """Write a model that multiplies by w0, w1, ... (external data) and adds b (in the file)."""
    weights, size = [], WIDTH * WIDTH * 4
    with path.with_name("w.bin").open("wb") as data:
        for i in range(LAYERS):
            weight = TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=[WIDTH, WIDTH])
            weight.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "w.bin"), ("offset", i * size), ("length", size)):
                weight.external_data.add(key=key, value=str(value))
            weights.append(weight)
            np.full(WIDTH * WIDTH, i, np.float32).tofile(data)
    values = ["x", *(f"h{i}" for i in range(LAYERS))]
    nodes = [
        helper.make_node("MatMul", [values[i], f"w{i}"], [values[i + 1]]) for i in range(LAYERS)
    ]
    nodes.append(helper.make_node("Add", [values[-1], "b"], ["y"]))
    weights.append(helper.make_tensor("b", TensorProto.FLOAT, [WIDTH], [0.0] * WIDTH))
    path.write_bytes(make_model(nodes, weights, ["batch", WIDTH]).SerializeToString())


def measure() -> Table:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source" / "m.onnx"
        target = Path(folder) / "target"
        source.parent.mkdir()
        target.mkdir()
        _write_model(source)
        measured = run_in_fresh_process(PROGRAM, str(source), str(target))
    names = ("copy of the data", "into another folder", "over the source")
    rows = tuple((n, *measured[2 * i : 2 * i + 2]) for i, n in enumerate(names))
    return Table(
        "Saving",
        f"`save_onnx` with {GIGABYTES:.0f} GB of changed weights in external data: seconds until "
        "all data is on disk, and peak memory in MB in addition to the module. The target is 64 MB "
        "(one tensor) plus 300. If the source is overwritten, the data is written twice.",
        ("operation", "seconds", "peak"),
        rows,
    )


if __name__ == "__main__":
    main(measure)

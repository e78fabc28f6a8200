"""Writing back a model with 3 GB of external data: time, and memory beside the module (Linux).

Every weight was changed before, so that the module has its own copy of all of them in memory. It
takes 10 GB of disk and 4 GB of memory, and is not part of `benchmarks.report`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from benchmarks.tables import Table, main
from benchmarks.timing import fresh_process

LAYERS = 48
WIDTH = 4096  # 64 MB a tensor
GIGABYTES = LAYERS * WIDTH * WIDTH * 4 / 2**30

PROGRAM = """
import os, shutil, sys, time
import torch
from onnxinterp import OnnxModule
source, folder = sys.argv[1:3]
def status(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024
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
        peak.write("5")  # the peak starts anew
    before, start = status("VmRSS:"), time.perf_counter()
    module.save_onnx(target)
    print(time.perf_counter() - start, status("VmHWM:") - before)
again = OnnxModule(source)
assert all(torch.equal(w, module.weights[n]) for n, w in again.weights.items())
"""


def _write_model(path: Path) -> None:
    """Multiply by w0, w1, ... and add b: the matrices in one file beside the model, b inside it."""
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
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH]) for name in "xy"
    )
    graph = helper.make_graph(nodes, "layers", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def measure() -> Table:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source" / "m.onnx"
        target = Path(folder) / "target"
        source.parent.mkdir()
        target.mkdir()
        _write_model(source)
        measured = fresh_process(PROGRAM, str(source), str(target))
    names = ("copy of the data", "into another folder", "over the source")
    rows = tuple((n, *measured[2 * i : 2 * i + 2]) for i, n in enumerate(names))
    return Table(
        "Saving",
        f"`save_onnx` with {GIGABYTES:.0f} GB of tuned weights in external data: seconds until it "
        "is on the disk, and MB at the peak beside the module. The target is 64 MB, one tensor, "
        "and 300. Over the source, model and data both change: the data are written twice.",
        ("what", "seconds", "peak"),
        rows,
    )


if __name__ == "__main__":
    main(measure)

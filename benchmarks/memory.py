"""Resident memory of a model with 192 MB of weights, in the file or as external data (Linux).

Each measurement is the growth since just before the model is opened, in a fresh process.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.networks import make_model
from benchmarks.tables import Table, main
from benchmarks.timing import MEMORY_STATUS, run_in_fresh_process

LAYERS = 12
WIDTH = 2048
MEGABYTE = 2**20
WEIGHTS = LAYERS * WIDTH * WIDTH * 4 / MEGABYTE

SETUP = f"""
{MEMORY_STATUS}
import gc, sys
def report():
    gc.collect()
    print(status("VmRSS:") - before)
path, width = sys.argv[1], {WIDTH}
"""
PROGRAMS = {
    "onnxinterp": """
import torch, onnxinterp
torch.set_num_threads(1)
torch.ones(width, width) @ torch.ones(width, 1)  # allocates torch's own buffers
before = status("VmRSS:")
model = onnxinterp.OnnxModule(path)
report()
model(torch.ones(1, width))
report()
print(status("VmHWM:") - before)
""",
    "onnxruntime": """
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
before = status("VmRSS:")
session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
report()
session.run(None, {"x": numpy.ones((1, width), numpy.float32)})
report()
print(status("VmHWM:") - before)
""",
}


def _model() -> onnx.ModelProto:
    generator = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(
            generator.standard_normal((WIDTH, WIDTH), np.float32) / np.float32(WIDTH**0.5), f"w{i}"
        )
        for i in range(LAYERS)
    ]
    values = ["x", *(f"h{i}" for i in range(1, LAYERS)), "y"]
    nodes = [
        helper.make_node("MatMul", [values[i], f"w{i}"], [values[i + 1]]) for i in range(LAYERS)
    ]
    return make_model(nodes, weights, ["batch", WIDTH])


def _rows(folder: Path) -> list[tuple[str | float, ...]]:
    model = _model()
    files = {"embedded": folder / "embedded.onnx", "external": folder / "external.onnx"}
    onnx.save(model, files["embedded"])
    onnx.save(model, files["external"], save_as_external_data=True, location="external.data")
    rows: list[tuple[str | float, ...]] = []
    for name, program in PROGRAMS.items():
        for kind, path in files.items():
            loaded, run, peak = run_in_fresh_process(SETUP + program, str(path))
            rows.append((f"{name}, {kind}", loaded, run, peak, run / WEIGHTS, peak / WEIGHTS))
    return rows


def measure() -> Table:
    with tempfile.TemporaryDirectory() as folder:
        rows = _rows(Path(folder))
    return Table(
        "Memory",
        f"Growth of resident memory in MB for {WEIGHTS:.0f} MB of weights: after loading, after "
        "one run, and at the peak. Memory-mapped weights become resident when they are read. The "
        "target for the memory after a run is 1.1 times the weights.",
        ("model", "loaded", "after a run", "peak", "after a run / weights", "peak / weights"),
        tuple(rows),
    )


if __name__ == "__main__":
    main(measure)

"""Time and memory to open models, and the part of the time that checks take.

The first table is of fresh processes, each after its imports: what is imported or set up at the
first model counts. The last table is the time to load 100 MB with all checks, divided by the time
without them. CHECKS lists the checks. Opening files safely below the model's folder is included in
both times: it cannot be turned off.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import convert_model_to_external_data
from torch import nn

from benchmarks.networks import AttentionBlock, export, make_model, residual_network
from benchmarks.tables import Table, main
from benchmarks.timing import (
    MEMORY_STATUS,
    run_in_fresh_process,
    time_candidates,
    use_one_thread,
)
from benchmarks.training import WORDS, Tagger
from onnxinterp import OnnxModule

BYTES = 100 * 10**6
ROUNDS = 15
FRESH_RUNS = 5
PROGRAMS = {
    "onnxinterp": """
import torch, onnxinterp
torch.set_num_threads(1)
load = onnxinterp.OnnxModule
""",
    "onnxruntime": """
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
load = lambda path: onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
""",
}
OPEN = f"""
{MEMORY_STATUS}
import sys, time
before, start = status("VmRSS:"), time.process_time()
opened = load(sys.argv[1])
print(time.process_time() - start, status("VmHWM:") - before)
"""
CHECKS = (
    "reading.source.check_utf8",
    "reading.source.check_weights",
    "reading.source.validate",
    "module.check_types",
    "format.tensor_reader.check_tensor",
    "format.tensor_reader.check_numbers",
)


@contextmanager
def without_checks() -> Iterator[None]:
    """Disable all checks."""
    with ExitStack() as stack:
        for check in CHECKS:
            stack.enter_context(patch(f"onnxinterp.{check}", lambda *_: None))
        yield


def _model(layers: int, *, numbers: bool = False, size: int = BYTES) -> onnx.ModelProto:
    """Return a model of `layers` times Mul and Add.

    Args:
        layers: half the number of nodes.
        numbers: store weights in `float_data` instead of `raw_data`.
        size: bytes of all weights.
    """
    width = size // 4 // (2 * layers)
    generator = np.random.default_rng(0)
    nodes, weights, value = [], [], "x"
    for i in range(layers):
        for operator in ("Mul", "Add"):
            name, result = f"{operator}{i}", f"{operator}{i}.out"
            array = generator.standard_normal(width, np.float32)
            weights.append(
                helper.make_tensor(name, TensorProto.FLOAT, [width], array)
                if numbers
                else numpy_helper.from_array(array, name)
            )
            nodes.append(helper.make_node(operator, [value, name], [result]))
            value = result
    return make_model(nodes, weights, [width])


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for name, model in (
        ("20 nodes", _model(10)),
        ("20 nodes, weights as numbers", _model(10, numbers=True)),
        ("2,000 nodes", _model(1000)),
    ):
        path = folder / f"{len(name)}.onnx"
        onnx.save(model, path)
        yield name, path
    model = _model(1000)
    convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
    onnx.save(model, folder / "external.onnx")
    yield "2,000 nodes, external data", folder / "external.onnx"


def _models() -> Iterator[tuple[str, onnx.ModelProto]]:
    yield "2,000 nodes", _model(1000, size=8000)
    image, tokens = torch.randn(1, 3, 224, 224), torch.randn(1, 16, 64)
    yield "residual network", export(residual_network(), image, opset=17, dynamic=False)
    yield "tagger", export(Tagger(), torch.randint(WORDS, (1, 8)), opset=17, dynamic=True)
    blocks = nn.Sequential(*(AttentionBlock(384, 6) for _ in range(6)))
    yield "transformer", export(blocks, torch.randn(1, 16, 384), opset=17, dynamic=True)
    blocks = nn.Sequential(*(AttentionBlock(decomposed=True) for _ in range(12)))
    yield "transformer in parts", export(blocks, tokens, opset=17, dynamic=True)


def _opening(path: Path) -> float:
    """Milliseconds to open a model: the minimum of `ROUNDS` runs, without garbage of others."""
    times = []
    for _ in range(ROUNDS):
        gc.collect()
        start = time.process_time()
        OnnxModule(path)
        times.append(time.process_time() - start)
    return 1e3 * min(times)


def measure_fresh() -> Table:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        for name, model in _models():
            onnx.save(model, path)
            size = path.stat().st_size / 2**20
            runs: dict[str, list[list[float]]] = {of: [] for of in PROGRAMS}
            for _ in range(FRESH_RUNS):
                for of, program in PROGRAMS.items():
                    runs[of].append(run_in_fresh_process(program + OPEN, str(path)))
            ours, theirs = (1e3 * min(time for time, _ in runs[of]) for of in PROGRAMS)
            peaks = (max(peak for _, peak in runs[of]) for of in PROGRAMS)
            rows.append((name, size, ours, theirs, ours / theirs, *peaks))
    return Table(
        "Opening models in fresh processes",
        f"Milliseconds of process time, minimum of {FRESH_RUNS} runs, and the peak of memory above "
        "that after the imports, in MB.",
        ("model", "MB", "onnxinterp", "onnxruntime", "ratio", "peak", "peak of onnxruntime"),
        tuple(rows),
    )


def measure_opening() -> Table:
    use_one_thread()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        for name, model in _models():
            onnx.save(model, path)
            rows.append((name, path.stat().st_size / 1e6, _opening(path)))
    note = f"Milliseconds from a path to a module: minimum of {ROUNDS} runs."
    return Table("Opening models", note, ("model", "MB", "ms"), tuple(rows))


def measure() -> Table:
    use_one_thread()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, path in _files(Path(folder)):
            load: Callable[[], object] = partial(OnnxModule, path)

            def load_unchecked(load: Callable[[], object] = load) -> None:
                with without_checks():
                    load()

            times = time_candidates({"with": load, "without": load_unchecked}, rounds=ROUNDS)
            slow, fast = (times[n].minimum for n in ("with", "without"))
            rows.append((name, 1e3 * slow, 1e3 * fast, slow / fast))
    return Table(
        "Checking files",
        "Milliseconds to load 100 MB of weights with and without the checks of a file: minimum of "
        f"{ROUNDS} runs, and their ratio.",
        ("model", "with", "without", "ratio"),
        tuple(rows),
    )


if __name__ == "__main__":
    main(measure_fresh, measure_opening, measure)

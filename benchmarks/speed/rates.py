"""How fast this machine multiplies matrices, per library: what no engine on it can exceed."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name in torch
from onnx import numpy_helper

from benchmarks.networks import make_model
from benchmarks.report import processor
from benchmarks.speed.engines import outputs_of, session_options
from benchmarks.tables import Table
from benchmarks.timing import LONG_BLOCK_SECONDS, block_of, time_blocks

ROUNDS = 15
TITLE = "Products of matrices"
NOTE = (
    "GFLOP/s of float32 products, one thread, by rows x inner size x columns. The second matrix is "
    "constant, as the weights of a model are."
)
SHAPES = (  # rows of the input, its columns, columns of the result
    (128, 768, 768),
    (128, 768, 3072),
    (128, 3072, 768),
    (197, 384, 1536),
    (197, 1536, 384),
    (196, 1024, 256),
    (49, 512, 2048),
    (8, 768, 3072),
    (1, 768, 3072),
)
INSTRUCTIONS = (
    *("avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("avx_vnni", "amx_tile", "amx_int8", "amx_bf16", "asimd", "sve", "bf16", "i8mm"),
)


def machine() -> str:
    """Return a sentence about the processor and its instruction sets."""
    flags: set[str] = set()
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                flags.update(value.split())
    found = ", ".join(name for name in INSTRUCTIONS if name in flags) or "unknown"
    return (
        f"{processor()}, {os.cpu_count()} processors, {platform.machine()}, instruction sets: "
        f"{found}; torch uses {torch.backends.cpu.get_cpu_capability()}"
    )


def _libraries(m: int, k: int, n: int) -> dict[str, Callable[[], object]]:
    """Return the product in each library; the second matrix is constant, and packed if possible."""
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(m, k, generator=generator), torch.randn(n, k, generator=generator)
    a, b = x.numpy(), np.ascontiguousarray(w.T.numpy())
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    model = make_model([node], [numpy_helper.from_array(b, "w")], ["m", "n"])
    run = onnxruntime.InferenceSession(
        model.SerializeToString(), session_options(1), ["CPUExecutionProvider"]
    ).run
    calls: dict[str, Callable[[], object]] = {"torch F.linear": lambda: F.linear(x, w)}
    if torch.backends.mkl.is_available():
        packed = torch.ops.mkl._mkl_reorder_linear_weight(w, m)
        calls["MKL packed"] = lambda: torch.ops.mkl._mkl_linear(x, packed, w, None, m)
    if torch.backends.mkldnn.is_available():
        blocked = torch.ops.mkldnn._reorder_linear_weight(w, m)
        calls["oneDNN packed"] = lambda: torch.ops.mkldnn._linear_pointwise(
            x, blocked, None, "none", [], ""
        )
    calls["numpy"] = lambda: a @ b
    calls["onnxruntime MatMul"] = lambda: run(None, {"x": a})
    return calls


def _check_equal(calls: dict[str, Callable[[], object]]) -> None:
    """Raise AssertionError where a library computes something else than the first one."""
    expected, *others = (outputs_of(call)[0] for call in calls.values())
    for found in others:
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def rates() -> Table:
    """Return GFLOP/s by shape and library; all libraries have one thread, in a new process."""
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = os.environ | dict.fromkeys(variables, "1")  # read when a library is loaded
    command = [sys.executable, "-m", "benchmarks.speed.rates"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    found = json.loads(done.stdout)
    columns = ("product", *found["libraries"])
    return Table(TITLE, NOTE, columns, tuple(tuple(row) for row in found["rows"]))


def _measure() -> dict[str, Any]:
    """Return the rows of the table, as JSON has them."""
    torch.set_num_threads(1)
    rows, names = [], list[str]()
    for m, k, n in SHAPES:
        with torch.no_grad():
            calls = _libraries(m, k, n)
            _check_equal(calls)
            blocks = {name: block_of(call) for name, call in calls.items()}
            times = time_blocks(blocks, ROUNDS, LONG_BLOCK_SECONDS)
        names = list(times)
        flops = 2 * m * k * n
        found = [f"{flops / times[name].minimum / 1e9:.0f}" for name in names]
        rows.append((f"{m} x {k} x {n}", *found))
    return {"libraries": names, "rows": rows}


if __name__ == "__main__":
    print(json.dumps(_measure()))

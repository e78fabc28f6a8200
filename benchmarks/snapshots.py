"""Snapshots against the runtimes that they use, called directly.

    python -m benchmarks.snapshots [--threads N] [--engine NAME] MODEL.onnx ...

Beside each model may lie MODEL.inputs.npz with its inputs by name. The columns: the runtime called
directly on numpy arrays, the snapshot with its checks of inputs and weights, the same without the
check of weights, and the module. With one thread times are process time, otherwise wall time: that
needs an idle machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch

from onnxinterp import OnnxModule
from onnxinterp.snapshots.competition import described


def _onnxruntime(path: Path, inputs: dict[str, Any], threads: int) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    return lambda: session.run(None, inputs)


def _openvino(path: Path, inputs: dict[str, Any], threads: int) -> Callable[[], object]:
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape({name: list(x.shape) for name, x in inputs.items()})
    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    settings |= {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda: request.infer(inputs, share_inputs=True, share_outputs=True)


DIRECT = {"onnxruntime": _onnxruntime, "openvino": _openvino}


def _minima(
    calls: dict[str, Callable[[], object]], seconds: float, clock: Callable[[], float]
) -> dict[str, float]:
    best = dict.fromkeys(calls, float("inf"))
    for call in calls.values():
        call()
    end = perf_counter() + seconds
    while perf_counter() < end:
        for name, call in calls.items():
            start = clock()
            call()
            best[name] = min(best[name], clock() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--engine", choices=list(DIRECT), default="onnxruntime")
    parser.add_argument("--seconds", type=float, default=10)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    clock = process_time if given.threads == 1 else perf_counter
    print("| model | direct ms | snapshot | unchecked | module | snapshot / direct |")
    print("|---|---|---|---|---|---|")
    for path in given.models:
        module = OnnxModule(path)
        stored = np.load(path.with_suffix(".inputs.npz"))
        arrays = {name: stored[name] for name in module.input_names}
        inputs = tuple(torch.from_numpy(x) for x in arrays.values())
        fast = module.optimize(*inputs, engine=given.engine, cache=False)
        free = module.optimize(*inputs, engine=given.engine, cache=False, on_change="ignore")
        calls = {
            "direct": DIRECT[given.engine](path, arrays, given.threads),
            "snapshot": lambda fast=fast, inputs=inputs: fast(*inputs),
            "unchecked": lambda free=free, inputs=inputs: free(*inputs),
            "module": torch.no_grad()(lambda module=module, inputs=inputs: module(*inputs)),
        }
        best = _minima(calls, given.seconds, clock)
        cells = [f"{best[name] * 1e3:.3f}" for name in calls]
        ratio = best["snapshot"] / best["direct"]
        weights = f"{len(list(module.parameters()))} parameters"
        shown = described(module.input_names, inputs)
        print(
            f"| {path.stem} ({shown}, {weights}) | {' | '.join(cells)} | {ratio:.3f} |", flush=True
        )


if __name__ == "__main__":
    main()

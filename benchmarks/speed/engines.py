"""One model in each engine, as a call without arguments that returns the outputs as arrays."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from benchmarks.zoo.entries import Entry
from onnxinterp import OnnxModule

Arrays = Mapping[str, np.ndarray[Any, Any]]
Call = Callable[[], Any]
TORCH, PLAIN, ONNXRUNTIME, OPENVINO = "torch", "onnxinterp", "onnxruntime", "openvino"
OPTIMIZED = "optimized"  # or "optimized:ENGINE"
ENGINES = (TORCH, PLAIN, OPTIMIZED, ONNXRUNTIME, OPENVINO)


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Return options of onnxruntime: its threads do not spin while another engine runs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def session(path: Path, threads: int, *, optimize: bool = True) -> onnxruntime.InferenceSession:
    options = session_options(threads)
    if not optimize:
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
    return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])


def tensors(arrays: Arrays) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


def _openvino(path: Path, arrays: Arrays, threads: int) -> Call:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # the default is bfloat16 on some processors
    }
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    request = compiled.create_infer_request()
    feeds = dict(arrays)
    return lambda: tuple(request.infer(feeds).values())


def _make(name: str, path: Path, arrays: Arrays, entry: Entry | None, threads: int) -> Call | None:
    """Return the call of one engine; None if it is not there for this model."""
    inputs = tensors(arrays)
    if name == TORCH and entry is not None:
        network, positional = entry.build(), tuple(inputs.values())
        return lambda: network(*positional)
    if name == PLAIN:
        module = OnnxModule(path)
        return lambda: module(**inputs)
    if name.partition(":")[0] == OPTIMIZED and hasattr(OnnxModule, "optimize"):
        engine = name.partition(":")[2] or None
        fast = OnnxModule(path).optimize(**inputs, engine=engine, cache=False)
        return lambda: fast(**inputs)
    if name == ONNXRUNTIME:
        run, feeds = session(path, threads).run, dict(arrays)
        return lambda: run(None, feeds)
    if name == OPENVINO and importlib.util.find_spec("openvino") is not None:
        return _openvino(path, arrays, threads)
    return None


def make_engines(
    path: Path, arrays: Arrays, entry: Entry | None, threads: int, names: Sequence[str]
) -> tuple[dict[str, Call], dict[str, str]]:
    """Return the calls of the engines that are available for a model, and why others fail.

    Args:
        path: the model.
        arrays: its inputs by name.
        entry: the network that the model was exported from, if there is one.
        threads: of onnxruntime and OpenVINO; torch has one setting for the process.
        names: the engines that are wanted.
    """
    calls, failures = dict[str, Call](), dict[str, str]()
    for name in names:
        try:
            call = _make(name, path, arrays, entry, threads)
            if call is not None:
                call()
                calls[name] = call
        except Exception as error:  # noqa: PERF203 - an engine may refuse a model in any way
            failures[name] = f"{type(error).__name__}: {error}"
    return calls, failures


def outputs_of(call: Call) -> list[np.ndarray[Any, Any]]:
    """Run a call; return its outputs as arrays."""
    found = call()
    results = found if isinstance(found, (tuple, list)) else (found,)
    return [r.detach().numpy() if isinstance(r, Tensor) else np.asarray(r) for r in results]


def mean_squared_error(
    found: Sequence[np.ndarray[Any, Any]], expected: Sequence[np.ndarray[Any, Any]]
) -> float:
    """Return the largest mean squared error of an output.

    Raises:
        ValueError: the number of outputs or a shape differs.
    """
    shapes = [a.shape for a in found], [a.shape for a in expected]
    if shapes[0] != shapes[1]:
        raise ValueError(f"outputs must have the shapes {shapes[1]}, got {shapes[0]}")
    pairs = zip(found, expected, strict=True)
    return max(float(np.mean((a.astype(float) - b.astype(float)) ** 2)) for a, b in pairs)

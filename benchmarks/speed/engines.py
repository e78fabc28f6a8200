"""One model in each engine, as a call without arguments that returns the outputs as arrays."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
OPTIMIZED = "optimized"  # by the fastest engine that is installed
OPTIMIZED_TORCH = f"{OPTIMIZED}:torch"  # by the engine behind the colon
ENGINES = (TORCH, PLAIN, OPTIMIZED_TORCH, OPTIMIZED, ONNXRUNTIME, OPENVINO)


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


@dataclass(frozen=True)
class Prepared:
    """A model in an engine.

    Attributes:
        call: runs it once.
        chosen: the engine that a snapshot of onnxinterp has chosen; otherwise "".
    """

    call: Call
    chosen: str = ""


def _optimized(path: Path, inputs: Mapping[str, Tensor], engine: str | None) -> Prepared:
    fast = OnnxModule(path).optimize(**inputs, engine=engine, cache=False)
    return Prepared(lambda: fast(**inputs), fast.engine)


def _prepare(
    name: str, path: Path, arrays: Arrays, entry: Entry | None, threads: int
) -> Prepared | None:
    """Return a model in one engine; None if it is not there for this model."""
    inputs = tensors(arrays)
    if name == TORCH and entry is not None:
        network, positional = entry.build(), tuple(inputs.values())
        return Prepared(lambda: network(*positional))
    if name == PLAIN:
        module = OnnxModule(path)
        return Prepared(lambda: module(**inputs))
    if name.partition(":")[0] == OPTIMIZED:
        return _optimized(path, inputs, name.partition(":")[2] or None)
    if name == ONNXRUNTIME:
        run, feeds = session(path, threads).run, dict(arrays)
        return Prepared(lambda: run(None, feeds))
    if name == OPENVINO and importlib.util.find_spec("openvino") is not None:
        return Prepared(_openvino(path, arrays, threads))
    return None


def prepare_engines(
    path: Path, arrays: Arrays, entry: Entry | None, threads: int, names: Sequence[str]
) -> tuple[dict[str, Prepared], dict[str, str]]:
    """Return the model in the engines that are available for it, and why others fail.

    Args:
        path: the model.
        arrays: its inputs by name.
        entry: the network that the model was exported from, if there is one.
        threads: of onnxruntime and OpenVINO; torch has one setting for the process.
        names: the engines that are wanted.
    """
    found, failures = dict[str, Prepared](), dict[str, str]()
    for name in names:
        try:
            prepared = _prepare(name, path, arrays, entry, threads)
            if prepared is not None:
                prepared.call()
                found[name] = prepared
        except Exception as error:  # noqa: PERF203 - an engine may refuse a model in any way
            failures[name] = f"{type(error).__name__}: {error}"
    return found, failures


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

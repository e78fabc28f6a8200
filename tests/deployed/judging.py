"""What onnxruntime and onnxinterp answer to a file, and how far the answers are apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper

from onnxinterp import OnnxModule
from tests.deployed.files import Deployed, Feeds, original
from tests.zoo.comparison import Difference, compare

NOISE = 0.1  # of the weight's root mean square
HALF = 3e-3  # of files that compute in float16: each side has operators that round less often
ACTIVATIONS_IN_INT8 = 2e-2  # accuracy_level 4 allows onnxruntime to do so; here they stay floats


def reference(file: Deployed) -> list[list[Any]]:
    """Return onnxruntime's outputs for each call, without its optimizations."""
    return run(file.path() if file.judge == "the file" else original(file.original), file.feeds())


def run(model: Path | bytes, calls: Sequence[Feeds]) -> list[list[Any]]:
    """Return onnxruntime's outputs for each call."""
    opened = session(model)
    kinds = {i.name: i.type for i in opened.get_inputs()}
    return [opened.run(None, _converted(feeds, kinds)) for feeds in calls]


def session(model: Path | bytes) -> onnxruntime.InferenceSession:
    """Open a file without optimizations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _converted(feeds: Feeds, kinds: dict[str, str]) -> Feeds:
    """Return inputs with the element types that a file wants: float16 in place of float32."""
    half = {n for n, kind in kinds.items() if kind == "tensor(float16)"}
    return {n: x.astype(np.float16) if n in half else x for n, x in feeds.items() if n in kinds}


def ours(source: Path | onnx.ModelProto, calls: Sequence[Feeds]) -> list[list[Any]]:
    """Return our outputs for each call."""
    module = OnnxModule(source).eval()
    model = onnx.load(source, load_external_data=False) if isinstance(source, Path) else source
    types = {i.name: i.type.tensor_type.elem_type for i in model.graph.input}
    half = {n: "tensor(float16)" for n, t in types.items() if t == onnx.TensorProto.FLOAT16}
    found = []
    with torch.no_grad():
        for feeds in calls:
            given = _converted(feeds, {n: half.get(n, "") for n in module.input_names})
            outputs = module(*(torch.from_numpy(given[n]) for n in module.input_names))
            several = outputs if isinstance(outputs, tuple) else (outputs,)
            found.append([o.numpy() for o in several])
    return found


def difference(
    file: Deployed, source: Path | onnx.ModelProto, wanted: list[list[Any]]
) -> Difference:
    """Return the worst difference over all calls and outputs."""
    return compare(ours(source, file.feeds()), wanted)


def matches(found: Difference, tolerance: float | None) -> bool:
    """Return whether the answers are equal within float32, or within this relative difference."""
    if tolerance is None or found.mismatch:
        return found.matches
    return found.relative < tolerance


def with_noise(path: Path) -> tuple[str, onnx.ModelProto]:
    """Return the name of the largest weight, and the file with 10 % of noise on it."""
    model = onnx.load(path)
    tensor = max(model.graph.initializer, key=lambda t: np.prod(t.dims))
    values = numpy_helper.to_array(tensor)
    generator = np.random.default_rng(0)
    tensor.CopyFrom(numpy_helper.from_array(_noisy(values, generator), tensor.name))
    return tensor.name, model


def _noisy(values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    if values.dtype.kind == "f":
        scale = NOISE * np.sqrt(np.mean(np.square(values, dtype=np.float64)))
        return (values + scale * generator.standard_normal(values.shape)).astype(values.dtype)
    # whole numbers, packed or not: a tenth of them in another place
    moved = np.nonzero(generator.random(values.size) < NOISE)[0]
    flat = values.flatten()
    flat[moved] = flat[np.roll(moved, 1)]
    return flat.reshape(values.shape)

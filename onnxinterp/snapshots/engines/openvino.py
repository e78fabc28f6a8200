"""OpenVINO on the processor: the file with the current weights, compiled for sizes of the inputs.

It would compute in bfloat16 where the processor can, so it is told to use float32. It computes
integers of 64 bits in 32, compares integers as floats of 32 bits, and computes doubles in floats:
such models are refused. So are those with operators of onnxruntime: it translates a part of them,
and a decoder with GroupQueryAttention ended the process.
"""

from __future__ import annotations

from collections import deque
from functools import cache
from typing import Any

import torch
from torch import Tensor

from onnxinterp.errors import EngineError
from onnxinterp.extras import require
from onnxinterp.schemas import CONTRIB
from onnxinterp.snapshots.engines import Options, Runner
from onnxinterp.snapshots.engines.exported import Exported, export
from onnxinterp.snapshots.engines.integers import (
    WIDE,
    check_inputs,
    check_integers,
    check_no_doubles,
)
from onnxinterp.snapshots.subject import Subject

TYPES = {
    torch.float32,
    torch.float16,
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    *WIDE,
}


class Compiled:
    """Runs a compiled model; each thread that is in a call has a request of its own."""

    takes_any_sizes = False

    def __init__(self, runtime: Any, model: Any, names: tuple[str, ...], wide: bool) -> None:
        self._tensor = runtime.Tensor
        self._model = model
        self._wide = wide
        places = {name: i for i, port in enumerate(model.inputs) for name in port.get_names()}
        self._places = [places.get(name) for name in names]  # inputs that no node reads are gone
        self._sizes = [_sizes(port) for port in model.outputs]
        self._types = [_dtype(port) for port in model.outputs]
        self._requests: deque[Any] = deque()

    def __call__(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Run once."""
        if self._wide:
            check_inputs(inputs)
        try:
            request = self._requests.pop()
        except IndexError:
            request = self._model.create_infer_request()
        arrays = [x.contiguous().numpy(force=True) for x in inputs]  # nobody else holds copies
        for place, array in zip(self._places, arrays, strict=True):
            if place is not None:
                request.set_input_tensor(place, self._tensor(array, shared_memory=True))
        results: list[Tensor | None] = []
        for i, (sizes, dtype) in enumerate(zip(self._sizes, self._types, strict=True)):
            result = None if sizes is None else torch.empty(sizes, dtype=dtype, device="cpu")
            if result is not None:
                shared = self._tensor(result.numpy(), shared_memory=True)
                request.set_output_tensor(i, shared)
            results.append(result)
        request.infer()
        found = [
            torch.from_numpy(request.get_output_tensor(i).data.copy()) if r is None else r
            for i, r in enumerate(results)
        ]
        self._requests.append(request)
        return tuple(found)


def _check_operators(module: Subject) -> None:
    """Check that all operators are ONNX's own."""
    for node in module._plans.graph.walk():
        if node.domain in CONTRIB:
            operator = f"{node.domain}::{node.op_type}"
            raise EngineError(f"OpenVINO's {operator} (node {node.name!r}) is not relied on")


def prepare(module: Subject, inputs: tuple[Tensor, ...], options: Options) -> Runner:
    """Compile the module's file with its current weights for the sizes of the inputs.

    Raises:
        EngineError: it cannot run the model, or would be less exact.
        MissingExtraError: OpenVINO is not installed.
    """
    runtime = require("openvino", "openvino")
    for info, x in zip(module.inputs, inputs, strict=True):
        if x.device.type != "cpu" or x.dtype not in TYPES or x.dtype != info.dtype:
            kind = str(x.dtype).removeprefix("torch.")
            raise EngineError(
                f"input {info.name!r} must be {info} on cpu, got {kind} on {x.device}"
            )
    _check_operators(module)
    exported = export(module)
    check_no_doubles(module)
    check_integers(module, inputs)
    try:
        model = _read(_core(runtime), exported)
        model.reshape(_shapes(model, module.input_names, inputs))
        compiled = _core(runtime).compile_model(model, "CPU", _config(options))
    except Exception as error:  # OpenVINO's exceptions have no common class
        raise EngineError(f"OpenVINO cannot compile the model: {error}") from error
    if any(dtype is None for dtype in map(_dtype, compiled.outputs)):
        raise EngineError("OpenVINO returns another type than torch has")
    wide = any(x.dtype in WIDE for x in inputs)
    return Compiled(runtime, compiled, module.input_names, wide)


@cache
def _core(runtime: Any) -> Any:
    return runtime.Core()


def _read(core: Any, exported: Exported) -> Any:
    if not exported.files:
        return core.read_model(exported.content)
    with exported.on_disk() as path:
        core.set_property({"ENABLE_MMAP": False})  # the files are gone when it is compiled
        return core.read_model(path)


def _shapes(model: Any, names: tuple[str, ...], inputs: tuple[Tensor, ...]) -> dict[int, list[int]]:
    """Index of each input of the model -> its sizes."""
    sizes = {name: list(x.shape) for name, x in zip(names, inputs, strict=True)}
    return {
        i: next(sizes[name] for name in port.get_names() if name in sizes)
        for i, port in enumerate(model.inputs)
    }


def _config(options: Options) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": "f32",
        "EXECUTION_MODE_HINT": "ACCURACY",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": options.threads,
        "ENABLE_CPU_PINNING": False,  # torch's threads run on the same processors
    }


def _sizes(port: Any) -> tuple[int, ...] | None:
    """The sizes of an output; None where they depend on values."""
    shape = port.get_partial_shape()
    return tuple(port.get_shape()) if shape.is_static else None


def _dtype(port: Any) -> torch.dtype | None:
    name = port.get_element_type().to_dtype().name
    found = getattr(torch, name, None)
    return found if isinstance(found, torch.dtype) else None

"""OpenVINO: an `.xml` file with its weights in a `.bin` beside it.

OpenVINO converts the ONNX file with the module's current weights: then inputs and outputs keep
their names, and sizes stay fixed or free as the file has them. From an exported program it takes
neither names of outputs nor fixed sizes. A model with operators outside ONNX's own set is converted
from the program all the same, because OpenVINO translates only some of them.

It computes 64-bit integers in 32 bits, and doubles in floats.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from onnxinterp.deploy.errors import reported
from onnxinterp.deploy.exported import export
from onnxinterp.deploy.subject import Dims, Subject
from onnxinterp.extras import require
from onnxinterp.format.atomic import atomic_write
from onnxinterp.snapshots.engines.exported import export as onnx_file

EXTRA = "openvino"
CONFIG = {"INFERENCE_PRECISION_HINT": "f32"}  # it computes in bfloat16 where the processor can


def write(subject: Subject, path: Path) -> Dims:
    """Write an `.xml` and a `.bin`; weights stay in their type.

    Returns:
        The dimensions that can vary.
    """
    runtime = require("openvino", EXTRA)
    subject.tensors("OpenVINO")
    own = all(node.domain == "" for node in subject.module.onnx_graph.walk())
    converted = _from_file if own else _from_program
    with TemporaryDirectory(prefix="onnxinterp-") as folder:
        part = Path(folder, path.name)
        with reported("OpenVINO cannot convert the model"), converted(runtime, subject) as model:
            _name(model, subject)
            runtime.save_model(model, part, compress_to_fp16=False)
            dims = _varying(model, subject)
        for written in (part.with_suffix(".bin"), part):  # last the one that needs the other
            with written.open("rb") as source:
                atomic_write(path.with_name(written.name), partial(shutil.copyfileobj, source))
    return dims


@contextmanager
def _from_file(runtime: Any, subject: Subject) -> Iterator[Any]:
    """The ONNX file, converted; the model may read its weights as long as the file is there."""
    with onnx_file(subject.module).on_disk() as file:
        yield _reshaped(runtime.convert_model(file), subject, subject.dims)


@contextmanager
def _from_program(runtime: Any, subject: Subject) -> Iterator[Any]:
    """The exported program, converted."""
    program, dims = export(subject)
    model = runtime.convert_model(program)
    for port, name in zip(model.inputs, subject.values, strict=True):
        port.get_tensor().set_names({name})
    yield _reshaped(model, subject, dims)


def _reshaped(model: Any, subject: Subject, dims: Dims) -> Any:
    """Fix the sizes that do not vary; inputs that nothing reads are gone."""
    sizes = {}
    for index, name in enumerate(_input_names(model, subject)):
        free = dims.get(name, {})
        sizes[index] = [-1 if a in free else n for a, n in enumerate(subject.sizes[name])]
    model.reshape(sizes)
    return model


def _input_names(model: Any, subject: Subject) -> list[str]:
    """The name of each input, as the module has it."""
    return [next(n for n in port.get_names() if n in subject.values) for port in model.inputs]


def _name(model: Any, subject: Subject) -> None:
    """Give the outputs their names."""
    for port, name in zip(model.outputs, subject.module.output_names, strict=True):
        port.get_tensor().add_names({name})


def _varying(model: Any, subject: Subject) -> Dims:
    found: Dims = {}
    for port, name in zip(model.inputs, _input_names(model, subject), strict=True):
        axes = [a for a, n in enumerate(port.get_partial_shape()) if n.is_dynamic]
        if axes:
            found[name] = {a: subject.dims.get(name, {}).get(a, "") for a in axes}
    return found


def load(path: Path, names: Sequence[str]) -> Callable[..., Any]:
    """A function that runs an `.xml` on the processor.

    Args:
        path: the file.
        names: the names of the inputs, in the order of a call.
    """
    runtime = require("openvino", EXTRA)
    compiled = runtime.compile_model(path, "CPU", CONFIG)
    taken = {name for port in compiled.inputs for name in port.get_names()}

    def call(*inputs: Tensor) -> tuple[Tensor, ...]:
        pairs = zip(names, inputs, strict=True)
        found = compiled({n: x.numpy(force=True) for n, x in pairs if n in taken})
        return tuple(torch.from_numpy(found[port].copy()) for port in compiled.outputs)

    return call

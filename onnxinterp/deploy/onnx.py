"""ONNX again: the original graph with other weights, or a new graph by one of torch's exporters.

Of the exporters, the one on torch.export ("dynamo") writes opset 18 and newer. Asked for an older
one, it tries to convert its file, and where it fails it leaves it as it is: so it is not asked. The
one on TorchScript writes opset 7 to 20. torch has deprecated it, and it cannot write layers whose
sizes it must know while the dimensions of the inputs vary: then they are fixed.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import torch

from onnxinterp.deploy.errors import reported
from onnxinterp.deploy.exported import export
from onnxinterp.deploy.subject import Dims, Subject
from onnxinterp.deploy.torchscript import quiet
from onnxinterp.errors import InputError, OnnxError
from onnxinterp.extras import require
from onnxinterp.format.atomic import atomic_write
from onnxinterp.reading.source import serialized
from onnxinterp.verify.reference import Reference

DYNAMO_OPSET = 18  # the first that it writes
NAME = re.compile(r"[A-Za-z_]\w*")  # in a dimension such as `s27 + s9`


def fill(subject: Subject, path: Path) -> Dims:
    """Write the original graph with the weights of the module; sizes are those of the file."""
    subject.module.save_onnx(path)
    return subject.dims


def write(subject: Subject, path: Path) -> Dims:
    """Export a new graph.

    Returns:
        The dimensions that can vary.
    """
    name = subject.exporter or _default_exporter(subject.opset)
    if name not in EXPORTERS:
        raise InputError(f"exporter must be one of {', '.join(EXPORTERS)}, got {name!r}")
    if name == "dynamo" and (subject.opset or DYNAMO_OPSET) < DYNAMO_OPSET:
        least = f"opset {DYNAMO_OPSET} and newer, got {subject.opset}"
        raise InputError(f"the exporter dynamo writes {least}: use torchscript")
    tensors = subject.tensors("torch.onnx.export")
    with reported(f"torch's exporter ({name}) cannot write the model"):
        model, dims = EXPORTERS[name](subject, tensors)
    data = serialized(model)
    atomic_write(path, lambda out: out.write(data))
    return dims


def load(path: Path, names: Sequence[str]) -> Callable[..., Any]:
    """A function that runs a model in onnxruntime, without optimisation.

    Args:
        path: the file.
        names: the names of the inputs, in the order of a call.
    """
    session = Reference(path, level="disabled")

    def call(*inputs: Any) -> tuple[Any, ...]:
        return tuple(session(dict(zip(names, inputs, strict=True))).values())

    return call


def _default_exporter(opset: int | None) -> str:
    return "dynamo" if opset is None or opset >= DYNAMO_OPSET else "torchscript"


def _dynamo(subject: Subject, tensors: tuple[Any, ...]) -> tuple[onnx.ModelProto, Dims]:
    """By torch.export; the dimensions get the names that the source has for them."""
    require("onnxscript", "exporter")
    program, dims = export(subject)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own use of torch
        written = torch.onnx.export(
            program,
            tensors,
            dynamo=True,
            verbose=False,
            opset_version=subject.opset,
            input_names=list(subject.values),
            output_names=list(subject.module.output_names),
        )
    assert written is not None
    model = written.model_proto
    _rename_dims(model.graph, dims)
    return model, dims


def _rename_dims(graph: onnx.GraphProto, dims: Dims) -> None:
    """Name the dimensions of a graph as the source does, in place of `s77`."""
    names: dict[str, str] = {}
    for info in graph.input:
        sizes = info.type.tensor_type.shape.dim
        for axis, name in dims.get(info.name, {}).items():
            if NAME.fullmatch(name) and NAME.fullmatch(sizes[axis].dim_param):
                names.setdefault(sizes[axis].dim_param, name)
    for info in (*graph.input, *graph.output, *graph.value_info):
        for dim in info.type.tensor_type.shape.dim:
            if dim.HasField("dim_param"):
                dim.dim_param = NAME.sub(lambda m: names.get(m[0], m[0]), dim.dim_param)


def _torchscript(subject: Subject, tensors: tuple[Any, ...]) -> tuple[onnx.ModelProto, Dims]:
    """By a trace; without varying dimensions where it cannot follow them."""
    try:
        return _traced(subject, subject.module, tensors, subject.dims), subject.dims
    except OnnxError:
        raise
    except Exception:  # it needs the sizes of a layer
        fixed = replace(subject, dims={})
        program = export(fixed)[0].module(check_guards=False)
        return _traced(subject, program, tensors, {}), {}


def _traced(
    subject: Subject, module: torch.nn.Module, tensors: tuple[Any, ...], dims: Dims
) -> onnx.ModelProto:
    axes = {
        name: {axis: dim or f"{name}_{axis}" for axis, dim in found.items()}
        for name, found in dims.items()
    }
    with quiet(), torch.no_grad(), TemporaryDirectory(prefix="onnxinterp-") as folder:
        file = Path(folder, "model.onnx")
        torch.onnx.export(
            module,
            tensors,
            file,
            dynamo=False,
            opset_version=subject.opset,
            input_names=list(subject.values),
            output_names=list(subject.module.output_names),
            dynamic_axes=axes,
            training=torch.onnx.TrainingMode.PRESERVE,  # a program has no train() and eval()
            do_constant_folding=False,  # which belongs to this mode
        )
        return onnx.load(file)


EXPORTERS = {"dynamo": _dynamo, "torchscript": _torchscript}

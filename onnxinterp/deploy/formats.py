"""The table of formats: how each is written, loaded again, and described."""

from __future__ import annotations

import copy
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from onnxinterp import checkpoints
from onnxinterp.deploy import executorch, exported, onnx, openvino, torchscript
from onnxinterp.deploy.errors import ConversionError
from onnxinterp.deploy.subject import Dims, Subject
from onnxinterp.errors import InputError
from onnxinterp.module import OnnxModule


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        suffixes: of its files.
        summary: what it is.
        write: writes a file, and returns the dimensions of the inputs that vary in it.
        load: loads the file: a function of the inputs in order, which returns the outputs.
        loading: the Python that does so, where {path} is the file and {source} the Python that
            loads the source as `module`.
        extra: the optional dependencies that it needs; "" for none.
        varies: whether dimensions vary that the model declares so. Otherwise they are fixed, unless
            that is asked for.
    """

    suffixes: tuple[str, ...]
    summary: str
    write: Callable[[Subject, Path], Dims]
    load: Callable[[Path, Subject], Callable[..., Any]]
    loading: str
    extra: str = ""
    varies: bool = True


def _write_checkpoint(subject: Subject, path: Path) -> Dims:
    checkpoints.save(subject.source or b"", path, module=subject.module)
    return subject.dims


def _write_weights(subject: Subject, path: Path) -> Dims:
    subject.module.save_safetensors(path)
    return subject.dims


def _load_weights(path: Path, subject: Subject) -> OnnxModule:
    """A module with these weights and no others."""
    module = copy.deepcopy(subject.module)
    with torch.no_grad():
        for weight in module.parameters():
            weight.zero_()
    module.load_safetensors(path)
    return module


def _write_source(subject: Subject, path: Path) -> Dims:
    writer: Any = subject.module
    if not hasattr(writer, "to_python"):
        raise ConversionError("this version cannot write Python source")
    writer.to_python(path, *subject.tensors("Python source"))
    return subject.dims


def _load_source(path: Path) -> Callable[..., Any]:
    """The module that a Python file defines by its function `load`."""
    module: Callable[..., Any] = runpy.run_path(str(path))["load"]()
    return module


def _write_ncnn(subject: Subject, path: Path) -> Dims:
    subject.tensors("ncnn")
    import_module(NCNN).write(subject.module, subject.values, path)
    return {}


def _load_ncnn(path: Path, subject: Subject) -> Callable[..., Any]:
    """A model in ncnn, which computes floats of 32 bits; outputs get their declared types."""
    run = import_module(NCNN).load(path)
    types = [output.dtype for output in subject.module.onnx_graph.outputs]

    def call(*inputs: Any) -> tuple[Any, ...]:
        results = run(*inputs)
        several = results if isinstance(results, tuple) else (results,)
        return tuple(x.to(dtype) for x, dtype in zip(several, types, strict=True))

    return call


NCNN = "onnxinterp.deploy.ncnn"

CHECKPOINT = Format(
    (".pth", ".pt"),
    "state dict with its graph",
    _write_checkpoint,
    lambda path, subject: checkpoints.load(path, limits=subject.module.limits),
    'from onnxinterp import checkpoints; module = checkpoints.load("{path}")',
)
WEIGHTS = Format(
    (".safetensors",),
    "weights only",
    _write_weights,
    _load_weights,
    '{source}; module.load_safetensors("{path}")',
    "safetensors",
)
PROGRAM = Format(
    (".pt2",),
    "torch.export",
    exported.write,
    lambda path, _: exported.load(path),
    'import torch; module = torch.export.load("{path}").module()',
)
SOURCE = Format(
    (".py",),
    "Python source of a torch module, weights beside it",
    _write_source,
    lambda path, _: _load_source(path),
    'import runpy; module = runpy.run_path("{path}")["load"]()',
    "safetensors",
)
TRACE = Format(
    (".ts",),
    "TorchScript",
    torchscript.write,
    lambda path, _: torchscript.load(path),
    'import torch; module = torch.jit.load("{path}")',
)
EXECUTORCH = Format(
    (".pte",),
    "ExecuTorch with XNNPACK",
    executorch.write,
    lambda path, _: executorch.load(path),
    "from executorch.runtime import Runtime; "
    'method = Runtime.get().load_program("{path}").load_method("forward")',
    "executorch",
    varies=False,
)
OPENVINO = Format(
    (".xml",),
    "OpenVINO, weights in a .bin",
    openvino.write,
    lambda path, subject: openvino.load(path, list(subject.values)),
    'import openvino; model = openvino.compile_model("{path}", "CPU", '
    '{{"INFERENCE_PRECISION_HINT": "f32"}})',
    "openvino",
)
NCNN_FORMAT = Format(
    (".param",),
    "ncnn, weights in a .bin",
    _write_ncnn,
    _load_ncnn,
    'from onnxinterp.deploy import ncnn; model = ncnn.load("{path}")',
    "ncnn",
    varies=False,
)
FILLED = Format(
    (".onnx",),
    "ONNX: the original graph with other weights",
    onnx.fill,
    lambda _, subject: subject.module,
    'module = OnnxModule("{path}")',
)
REEXPORTED = Format(
    (".onnx",),
    "ONNX: a new graph by torch's exporter, with --opset or --exporter",
    onnx.write,
    lambda path, subject: onnx.load(path, list(subject.values)),
    'module = OnnxModule("{path}")',
    "exporter",
)
FORMATS = (
    CHECKPOINT,
    WEIGHTS,
    PROGRAM,
    SOURCE,
    TRACE,
    FILLED,
    REEXPORTED,
    EXECUTORCH,
    OPENVINO,
    NCNN_FORMAT,
)
"""All formats; of two with one suffix, the first is meant unless an exporter or opset is given."""

SUFFIXES = tuple(dict.fromkeys(suffix for f in FORMATS for suffix in f.suffixes))


def format_of(path: Path, *, reexport: bool) -> Format:
    """The format of a file to be written.

    Args:
        path: the file.
        reexport: whether an exporter of torch is to make a new graph.

    Raises:
        InputError: no format has its suffix, or it is not written by an exporter.
    """
    formats = [f for f in FORMATS if path.suffix in f.suffixes]
    if not formats:
        raise InputError(f"suffix must be one of {', '.join(SUFFIXES)}, got {str(path)!r}")
    if reexport and REEXPORTED not in formats:
        raise InputError(f"opset and exporter are for .onnx files, got {path}")
    return formats[-1] if reexport else formats[0]

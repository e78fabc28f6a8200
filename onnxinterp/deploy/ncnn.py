"""ncnn: a module as `.param` and `.bin`, through pnnx, and the files as a callable.

    write    module and inputs -> `model.param` and `model.bin`, compared with the module
    load     the files -> an `NcnnModel`, called with arrays by name

The model is fixed at the sizes of the inputs (`fixed_sizes`), rewritten where pnnx or ncnn would be
wrong (`ncnn_rewrites`), converted without float16, run, and compared. Where the answer differs, the
conversion of parts of the model finds the first operator that does, and the error names it.

Behind the layers, which ncnn counts, the `.param` file has a line of notes for `load`: names,
shapes and batch axes. ncnn does not read that line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch

from onnxinterp.deploy.errors import ConversionError
from onnxinterp.deploy.fixed_sizes import Array, FixedModel, cut, freeze, needed
from onnxinterp.deploy.ncnn_rewrites import Context, Refused, rewrite_node, rewritten
from onnxinterp.deploy.pnnx import NOTES, PnnxError, convert
from onnxinterp.errors import InputError, InvalidModelError, OnnxError
from onnxinterp.extras import require
from onnxinterp.format.atomic import atomic_write
from onnxinterp.module import OnnxModule
from onnxinterp.snapshots.engines.exported import export

MAX_MSE = 1e-7
"""Of an output, relative to its mean square where that is above 1."""

OFF = (
    "use_fp16_packed",
    "use_fp16_storage",
    "use_fp16_arithmetic",
    "use_bf16_storage",
    "use_bf16_packed",
    "use_int8_inference",
    "use_vulkan_compute",
)
"""Options of ncnn under which it computes with fewer digits, or elsewhere."""

DTYPES = ("float32", "int32", "int64")
"""Element types of inputs; ncnn has 32 bits of each."""


class NcnnError(ConversionError):
    """pnnx or ncnn cannot compute what the module computes; the message names the operator."""


class NcnnModel:
    """A model in ncnn: float32, one thread.

    Attributes:
        inputs: name, shape and dtype of each input.
        outputs: the same of each output.
    """

    def __init__(self, param: Path, weights: Path, notes: Mapping[str, Any]) -> None:
        ncnn = require("ncnn", "ncnn")
        self.inputs: list[dict[str, Any]] = notes["inputs"]
        self.outputs: list[dict[str, Any]] = notes["outputs"]
        self._ncnn, self._net = ncnn, ncnn.Net()
        self._net.opt.num_threads = 1  # options count when layers are made: before loading
        for option in OFF:
            setattr(self._net.opt, option, False)
        if self._net.load_param(str(param)) or self._net.load_model(str(weights)):
            raise InvalidModelError(f"ncnn cannot load {param}")

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Run once.

        Args:
            args: tensors or arrays in the order of the inputs, of the noted shapes.
            keywords: inputs by name.

        Returns:
            The output, a float32 tensor; a tuple of them where there are several.

        Raises:
            InputError: inputs are missing, unknown, or have other shapes.
        """
        results = self.run(self._bind(args, keywords))
        tensors = tuple(torch.from_numpy(array) for array in results.values())
        return tensors[0] if len(tensors) == 1 else tensors

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Run once: outputs by name for inputs by name."""
        extractor = self._net.create_extractor()
        held = []
        for note in self.inputs:
            array = self._array(note, inputs[note["name"]])
            mat = self._ncnn.Mat(array, batch_index=note["batch_axis"]).clone()
            held.append(mat)
            if extractor.input(note["blob"], mat):
                raise NcnnError(f"ncnn does not take input {note['name']!r}")
        return {note["name"]: self._extract(extractor, note) for note in self.outputs}

    def _extract(self, extractor: Any, note: Mapping[str, Any]) -> Array:
        status, mat = extractor.extract(note["blob"])
        if status or mat is None:
            raise NcnnError(f"ncnn does not compute output {note['name']!r} (status {status})")
        array = np.array(mat.numpy(batch_index=note["batch_axis"]))
        if array.size != np.prod(note["shape"]):
            shapes = f"{list(array.shape)} instead of {note['shape']}"
            raise NcnnError(f"ncnn computes output {note['name']!r} of shape {shapes}")
        result: Array = array.reshape(note["shape"])  # ncnn has no rank 0, and drops some axes of 1
        return result

    def _array(self, note: Mapping[str, Any], value: Any) -> Array:
        array = np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value)
        if list(array.shape) != note["shape"]:
            shapes = f"{note['shape']}, got {list(array.shape)}"
            raise InputError(f"input {note['name']!r} must be of shape {shapes}")
        if note["dtype"] == "float32":
            return np.ascontiguousarray(array, np.float32)
        if array.size and np.abs(array).max() > np.iinfo(np.int32).max:
            raise InputError(f"input {note['name']!r} must fit 32 bits in ncnn")
        return np.ascontiguousarray(array, np.int32)

    def _bind(self, args: Sequence[Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
        names = [note["name"] for note in self.inputs]
        given = {**dict(zip(names, args, strict=False)), **keywords}
        if set(given) != set(names) or len(args) + len(keywords) != len(names):
            raise InputError(f"inputs must be {', '.join(names)}, got {', '.join(given)}")
        return given


def load(path: str | os.PathLike[str]) -> NcnnModel:
    """Load what `write` wrote.

    Args:
        path: the `.param` file, or the path without suffix; the `.bin` file is beside it.

    Raises:
        InvalidModelError: the files were not written by `write`, or ncnn cannot load them.
        MissingExtraError: ncnn is not installed.
    """
    param, weights = _paths(path)
    lines = param.read_text(encoding="utf-8").splitlines()
    if not lines or not lines[-1].startswith(NOTES):
        raise InvalidModelError(f"{param} has no notes of its inputs: onnxinterp did not write it")
    return NcnnModel(param, weights, json.loads(lines[-1].removeprefix(NOTES)))


def write(
    module: OnnxModule, inputs: Sequence[Any] | Mapping[str, Any], path: str | os.PathLike[str]
) -> None:
    """Write a module for ncnn, at the sizes of the inputs.

    Args:
        module: the module, with its current weights, as it computes in `eval()` mode.
        inputs: tensors of the sizes that the files are for, in order or by name; results are
            compared on them.
        path: `model.param` (or `model`); the weights are written beside it, to `model.bin`.

    Raises:
        NcnnError: an operator has no right form in ncnn; the message names it.
        EngineError: the module computes something else than its file would.
        InputError: inputs do not fit.
        MissingExtraError: pnnx or ncnn is not installed.
    """
    require("pnnx", "ncnn")
    require("ncnn", "ncnn")
    names = module.input_names
    if len(inputs) != len(names):
        raise InputError(f"inputs must be {', '.join(names)}, got {len(inputs)} of them")
    given = inputs if isinstance(inputs, Mapping) else dict(zip(names, inputs, strict=True))
    if missing := [name for name in names if name not in given]:
        raise InputError(f"inputs must be {', '.join(names)}, got no {missing[0]}")
    named = {name: torch.as_tensor(given[name]).detach().cpu() for name in names}
    _check_types(named)
    with export(module).on_disk() as file:
        model = freeze(onnx.load(file), named)
    if not model.proto.graph.node:
        raise NcnnError("ncnn has no form for a model without operators")
    param, weights = _convert_and_compare(model)
    files = _paths(path)
    atomic_write(files[1], lambda out: out.write(weights))
    atomic_write(files[0], lambda out: out.write(param))


def _paths(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    param = Path(path)
    if param.suffix != ".param":
        param = param.with_name(f"{param.name}.param")
    return param, param.with_suffix(".bin")


def _check_types(inputs: Mapping[str, torch.Tensor]) -> None:
    for name, value in inputs.items():
        dtype = str(value.dtype).removeprefix("torch.")
        if dtype not in DTYPES:
            raise NcnnError(f"input {name!r} must be one of {', '.join(DTYPES)}, got {dtype}")


def _convert_and_compare(model: FixedModel) -> tuple[bytes, bytes]:
    """The files of a model, once they compute the same; else an error about its first operator."""
    replaced = _rewrite(model)
    try:
        return _checked(model, replaced)
    except (PnnxError, NcnnError, InvalidModelError) as error:
        node, why = _first_wrong(model, str(error))
        raise NcnnError(f"{_describe(node)}: {why}") from error


def _rewrite(model: FixedModel) -> onnx.ModelProto:
    """The model in forms that pnnx and ncnn get right."""
    opset = next(o.version for o in model.proto.opset_import if o.domain in ("", "ai.onnx"))
    constants = {tensor.name for tensor in model.proto.graph.initializer}
    context = Context(model.values, constants, opset)
    nodes: list[onnx.NodeProto] = []
    node = model.proto.graph.node[0]
    try:
        for node in model.proto.graph.node:
            nodes += rewrite_node(node, context)
    except Refused as refusal:
        raise NcnnError(f"{_describe(node)}: {refusal}") from None
    return rewritten(model, nodes, context)


def _checked(model: FixedModel, replaced: onnx.ModelProto) -> tuple[bytes, bytes]:
    """Convert, run and compare.

    Raises:
        PnnxError: there are no files.
        NcnnError: they compute something else.
    """
    inputs = {name: model.values[name] for name in model.inputs}
    with TemporaryDirectory(prefix="onnxinterp-") as folder:
        param, weights = convert(replaced, inputs, model, Path(folder))
        got = load(param).run(inputs)
        for name, array in got.items():
            want = model.values[name]
            _check_close(name, array, want)
        return param.read_bytes(), weights.read_bytes()


def _check_close(name: str, got: Array, want: Array) -> None:
    want = np.asarray(want, np.float64)
    error = np.square(got.astype(np.float64) - want).mean()
    limit = MAX_MSE * max(1.0, np.square(want).mean())
    if not error < limit:
        raise NcnnError(f"ncnn differs in {name!r}: MSE {error:.2g}, must be below {limit:.2g}")


def _first_wrong(model: FixedModel, why: str) -> tuple[onnx.NodeProto, str]:
    """The first operator behind which ncnn differs, and how.

    The outputs of a prefix of the nodes are right, those of one more node are not. The search is
    repeated among the nodes that this one needs, until no earlier one is found.
    """
    nodes = list(model.proto.graph.node)
    while True:
        right, wrong = -1, len(nodes) - 1
        while wrong - right > 1:
            middle = (right + wrong) // 2
            problem = _problem(model, nodes[middle])
            right, wrong = (middle, wrong) if problem is None else (right, middle)
            why = why if problem is None else problem
        before = needed(nodes[: wrong + 1], nodes[wrong].output)
        if len(before) in (len(nodes), wrong + 1):
            return nodes[wrong], why
        nodes = before


def _problem(model: FixedModel, node: onnx.NodeProto) -> str | None:
    """What is wrong with the outputs of a node; None if nothing."""
    outputs = [n for n in node.output if n and n in model.values][:1]
    if not outputs or model.values[outputs[0]].dtype != np.float32:
        return None
    part = cut(model, outputs)
    try:
        _checked(part, _rewrite(part))
    except OnnxError as error:
        return str(error)
    return None


def _describe(node: onnx.NodeProto) -> str:
    name = f" {node.name!r}" if node.name else ""
    return f"node{name} ({node.op_type}) -> {', '.join(node.output)}"

"""A model as one PyTorch file: a plain state dict that also knows its graph.

    from onnxinterp import checkpoints; checkpoints.save("model.onnx", "model.pth")
    from onnxinterp import checkpoints; module = checkpoints.load("model.pth")

The second line needs no .onnx any more, and `module.save_onnx` writes one: the bytes of the source
without its weights travel along.

The file is exactly what `torch.save(module.state_dict(), ...)` writes: `torch.load(...,
weights_only=True)` gives the tensors by name, and `module.load_state_dict` takes them. The graph,
without its tensors, travels in the state dict's own metadata, where torch keeps version numbers;
it is data (bytes of ONNX), never code.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from onnxinterp import replacing
from onnxinterp.dtypes import CARRIER, NATIVE
from onnxinterp.errors import InvalidModelError
from onnxinterp.limits import Limits
from onnxinterp.loading import Source, read, reusable
from onnxinterp.module import OnnxModule

KEY = "onnxinterp"  # the entry in the metadata of the root module
DATA_FIELDS = tuple(
    field.name
    for field in TensorProto.DESCRIPTOR.fields
    if field.name not in ("name", "dims", "data_type", "doc_string", "metadata_props")
)


def save(source: Source, path: str | os.PathLike[str], *, module: OnnxModule | None = None) -> None:
    """Write a model as a state dict with its graph; the file appears whole or not at all.

    Args:
        source: the ONNX model: a path, bytes, a binary file or a ModelProto; not changed.
        path: where to write; `.pth` by custom.
        module: made of `source` and trained since: its weights, its choice of outputs and of what
            trains are saved. Without, those of a fresh import.

    Raises:
        OSError: the disk is full, the folder is missing, ...; what was there before is as it was.
    """
    source = reusable(source)
    module = OnnxModule(source) if module is None else module
    model, reader, _ = read(source)
    if isinstance(source, onnx.ModelProto):
        model = onnx.ModelProto()
        model.CopyFrom(source)
    keys = {name: f"weights.{module.weights.path(name)}" for name in module.weights}
    for name, tensor in _stored(model):
        if name in keys:
            _clear(tensor)
        elif tensor.data_location == TensorProto.EXTERNAL:
            value = reader(tensor)
            assert isinstance(value, Tensor), "strings are never external"
            _fill(tensor, value)
    state = module.state_dict()
    names = [
        n for n, t in module.weights.items() if isinstance(t, nn.Parameter) and t.requires_grad
    ]
    state._metadata[""][KEY] = {
        "graph": torch.frombuffer(bytearray(model.SerializeToString()), dtype=torch.uint8),
        "keys": keys,
        "trainable": names,
        "outputs": list(module.output_names),
        "template": module.template.plain(),
        "untied": module.untied,
    }
    replacing.whole(path, lambda out: _write(state, out))


def _write(state: dict[str, Any], out: BinaryIO) -> None:
    """`torch.save`; where the disk is full, with the system's error."""
    try:
        torch.save(state, out)
    except RuntimeError as error:  # of closing the archive, which fails because writing has failed
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def load(path: str | os.PathLike[str], *, limits: Limits = Limits()) -> OnnxModule:
    """Read a module back from a file that `save` wrote; on the CPU, in eval mode.

    Args:
        path: the file.
        limits: what the module is held to, as by `OnnxModule`.

    Raises:
        InvalidModelError: the file is no state dict, or does not know its graph.
        FileNotFoundError: the path does not exist.
    """
    state, known = _read(path)
    try:
        model = onnx.ModelProto.FromString(known["graph"].numpy().tobytes())
        keys, outputs, trainable = known["keys"], known["outputs"], frozenset(known["trainable"])
        for name, tensor in _stored(model):
            if name in keys:
                _fill(tensor, state[keys[name]])
    except (KeyError, TypeError, AttributeError, DecodeError) as error:
        raise InvalidModelError(f"{path} holds a damaged graph: {error!r}") from error
    module = OnnxModule(
        model,
        outputs=outputs,
        trainable=lambda name, _: name in trainable,
        untie=known.get("untied", True),
        limits=limits,
    )
    module.load_state_dict(state, assign=True)
    module.template = module.template.filled(known.get("template"))
    return module


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict, and what `save` put beside it."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile, EOFError, RuntimeError) as error:
        raise InvalidModelError(f"{path} is no PyTorch file of plain tensors: {error}") from error
    known = getattr(state, "_metadata", {}).get("", {}).get(KEY)
    if known is None:
        raise InvalidModelError(f"{path} holds no graph: onnxinterp.checkpoints.save writes one")
    return state, known


def _stored(model: onnx.ModelProto) -> Iterator[tuple[str, TensorProto]]:
    """The tensors of the main graph by name, initializers and Constant nodes alike."""
    for tensor in model.graph.initializer:
        yield tensor.name, tensor
    for node in model.graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield node.output[0], attribute.t


def _clear(tensor: TensorProto) -> None:
    """Drop the data, keep name, type and shape."""
    for field in DATA_FIELDS:
        tensor.ClearField(field)


def _fill(tensor: TensorProto, value: Tensor) -> None:
    """Put data back, in the type that the graph declares."""
    _clear(tensor)
    if tensor.data_type in NATIVE and value.dtype == CARRIER[tensor.data_type]:
        flat = value.detach().contiguous().flatten()
        tensor.raw_data = flat.view(torch.uint8).numpy().tobytes()
    else:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        wide = value.double() if value.is_floating_point() else value
        tensor.raw_data = numpy_helper.from_array(wide.numpy().astype(dtype)).raw_data

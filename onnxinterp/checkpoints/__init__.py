"""A model as one PyTorch file: a plain state dict that also knows its graph.

    from onnxinterp import checkpoints; checkpoints.save("model.onnx", "model.pth")
    from onnxinterp import checkpoints; module = checkpoints.load("model.pth")

The second line needs no .onnx any more, and `module.save_onnx` writes one: the bytes of the source
without its weights travel along.

The file is exactly what `torch.save(module.state_dict(), ...)` writes: `torch.load(...,
weights_only=True)` gives the tensors by name, and `module.load_state_dict` takes them. The graph,
without its tensors, travels in the state dict's own metadata, where torch keeps version numbers;
it is data (bytes of ONNX), never code. `load` reads the file by hand (`archives`), believes nothing
of the metadata (`metadata`), and refuses bytes to be saved that are another model (`likeness`).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import onnx
import torch
from onnx import TensorProto
from torch import Tensor, nn

from onnxinterp.checkpoints import pickle_reader
from onnxinterp.checkpoints.metadata import parse_metadata
from onnxinterp.checkpoints.same_model import check_same_model, clear
from onnxinterp.dtypes import CARRIER
from onnxinterp.errors import InvalidModelError, SaveError
from onnxinterp.format import atomic
from onnxinterp.format.files import open_model
from onnxinterp.format.tensor_bytes import check, raw
from onnxinterp.limits import Limits
from onnxinterp.module import OnnxModule
from onnxinterp.reading.source import Source, read, reusable

KEY = "onnxinterp"  # the entry in the metadata of the root module


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
            clear(tensor)
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
    atomic.atomic_write(path, lambda out: _write(state, out))


def _write(state: dict[str, Any], out: BinaryIO) -> None:
    """`torch.save`; where the disk is full, with the system's error."""
    try:
        torch.save(state, out)
    except RuntimeError as error:  # of closing the archive, which fails because writing has failed
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def load(
    path: str | os.PathLike[str],
    *,
    limits: Limits = Limits(),
    allowed_ops: Collection[str] | None = None,
) -> OnnxModule:
    """Read a module back from a file that `save` wrote; on the CPU, in eval mode.

    Args:
        path: the file.
        limits: what the module is held to, as by `OnnxModule`; `model_bytes` is of the graph.
        allowed_ops: the only operators the graph may use, as by `OnnxModule`.

    Raises:
        InvalidModelError: the file is no state dict, does not know its graph, or contradicts it.
        UnsafeModelError: it asks for more than its bytes hold, or for what is not allowed.
        UnsupportedOpError: operators are missing.
        FileNotFoundError: the path does not exist.
    """
    state, found = _read(path)
    try:
        known = parse_metadata(found)
        model = read(known.graph, limits, allowed_ops=allowed_ops).proto
        _fill_all(model, known.keys, state)
        module = OnnxModule(
            model,
            outputs=known.outputs,
            trainable=lambda name, _: name in known.trainable,
            untie=known.untied if isinstance(known.untied, bool) else known.untied.__contains__,
            limits=limits,
            allowed_ops=allowed_ops,
        )
        _refuse_misfits(module, known.keys, state)
        if known.wire is not None:
            check_same_model(known.wire, known.graph, module.template.places.keys(), known.sizes)
            module.template = module.template.filled(known.wire, known.sizes)
    except InvalidModelError as error:
        raise type(error)(f"{path} holds a damaged graph: {error}") from error
    module.load_state_dict(state, assign=True)
    return module


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], object]:
    """The state dict, and what `save` put beside it."""
    with open_model(Path(path))[0] as file:
        try:
            state = pickle_reader.read(file)
        except InvalidModelError as error:
            message = f"{path} is no PyTorch file of plain tensors: {error}"
            raise type(error)(message) from error
    metadata = state.metadata if isinstance(state, pickle_reader.Ordered) else None
    root = metadata.get("") if isinstance(metadata, dict) else None
    if not isinstance(state, dict) or not isinstance(root, dict) or KEY not in root:
        raise InvalidModelError(f"{path} holds no graph: onnxinterp.checkpoints.save writes one")
    if strange := [key for key, value in state.items() if not isinstance(value, Tensor)]:
        raise InvalidModelError(f"{path} is no PyTorch file of plain tensors: see {strange[0]!r}")
    return dict(state), root[KEY]


def _fill_all(model: onnx.ModelProto, keys: Mapping[str, str], state: Mapping[str, Tensor]) -> None:
    """Put the tensors of the state dict into the graph, each once."""
    waiting = dict(keys)
    for name, tensor in _stored(model):
        key = waiting.pop(name, None)
        if key is None:
            continue
        if key not in state:
            raise InvalidModelError(f"the tensor {key!r} of the weight {name!r} is missing")
        if tensor.data_type not in CARRIER:
            raise InvalidModelError(f"the weight {name!r} is of no type that has numbers")
        try:
            check(state[key], tensor.data_type, tuple(tensor.dims), name)
            _fill(tensor, state[key])
        except SaveError as error:
            raise InvalidModelError(str(error)) from error


def _refuse_misfits(
    module: OnnxModule, keys: Mapping[str, str], state: Mapping[str, Tensor]
) -> None:
    """Refuse tensors that are not the module's by name, shape and class of type."""
    wanted = {f"weights.{module.weights.path(name)}": name for name in module.weights}
    if dict(keys) != {name: key for key, name in wanted.items()}:
        raise InvalidModelError("its keys are not those of the weights of its graph")
    if strange := state.keys() ^ wanted.keys():
        raise InvalidModelError(f"the tensor {min(strange)!r} is missing, or is none of a weight")
    for key, name in wanted.items():
        ours, given = module.weights[name], state[key]
        if ours.shape != given.shape or _class(ours) != _class(given):
            found = f"{given.dtype}{list(given.shape)}"
            raise InvalidModelError(
                f"the weight {name!r} is {found}, in the graph {ours.dtype}{list(ours.shape)}"
            )


def _class(tensor: Tensor) -> object:
    """What of its type a module may change: floating numbers stay floating, others as they are."""
    return "floating" if tensor.is_floating_point() else tensor.dtype


def _stored(model: onnx.ModelProto) -> Iterator[tuple[str, TensorProto]]:
    """The tensors of the main graph by name, initializers and Constant nodes alike."""
    for tensor in model.graph.initializer:
        yield tensor.name, tensor
    for node in model.graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield node.output[0], attribute.t


def _fill(tensor: TensorProto, value: Tensor) -> None:
    """Put data back, in the type that the graph declares."""
    kind, name = tensor.data_type, tensor.name
    clear(tensor)
    tensor.raw_data = b"".join(raw(value.detach().to(CARRIER[kind]), kind, name))

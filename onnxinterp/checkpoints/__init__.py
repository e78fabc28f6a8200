"""A model as one PyTorch file: a plain state dict together with its graph.

    from onnxinterp import checkpoints; checkpoints.save("model.onnx", "model.pth")
    from onnxinterp import checkpoints; module = checkpoints.load("model.pth")

The second line needs no .onnx file, and `module.save_onnx` writes one.

The file is exactly what `torch.save(module.state_dict(), ...)` writes: `torch.load(...,
weights_only=True)` returns the tensors by name, and `module.load_state_dict` accepts them. Only a
parametrized weight (LoRA) is stored as one tensor, its current value. The state dict's own
metadata, where torch keeps version numbers, contain the template: the bytes of the source without
its weights (`writing.template`). They are data, never code. `load` builds the module from these
bytes, so `save_onnx` writes the model that the module computes. It reads the file without
`torch.load` (`pickle_reader`) and checks each entry of the metadata (`metadata`).
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
import torch
from onnx import TensorProto
from torch import Tensor, nn

from onnxinterp.checkpoints import pickle_reader
from onnxinterp.checkpoints.metadata import CheckpointMetadata, parse_metadata
from onnxinterp.checkpoints.pickle_reader import MAX_SHARING
from onnxinterp.dtypes import CARRIER, NARROW
from onnxinterp.errors import InvalidModelError, SaveError, UnsafeModelError
from onnxinterp.format import atomic
from onnxinterp.format.files import open_model
from onnxinterp.format.signatures import HEAD_BYTES, describe
from onnxinterp.format.tensor_bytes import check_weight, raw_size, same_class
from onnxinterp.format.tensor_checks import external_of
from onnxinterp.format.tensor_reader import TensorReader
from onnxinterp.format.wire import Place, Wire, messages
from onnxinterp.graph.adoption import Adoption
from onnxinterp.limits import Limits
from onnxinterp.module import OnnxModule
from onnxinterp.reading.source import Source, parse, read, serialized
from onnxinterp.torch_weights import LAYOUTS
from onnxinterp.weights.parametrized import merge_state
from onnxinterp.writing.template import without_holes

KEY = "onnxinterp"  # the entry in the metadata of the root module
ESCAPED = re.compile(r"\[([*?[])\]")  # by glob.escape: `untied` has patterns that match one name
MAX_GAP_BYTES = 2**16  # that writers leave between tensors of external data


def save(source: Source, path: str | os.PathLike[str], *, module: OnnxModule | None = None) -> None:
    """Write a model as a state dict with its graph; the file appears whole or not at all.

    Args:
        source: the ONNX model: a path, bytes, a binary file or a ModelProto; not changed.
        path: the file to write, usually `.pth`.
        module: a module loaded from `source`, perhaps trained since: its weights, outputs and
            choice of trainable weights are saved. By default `source` is loaded.

    Raises:
        OSError: the disk is full, the folder is missing, ...; an existing file is unchanged.
    """
    module = OnnxModule(source) if module is None else module
    template, weights, untied = module.template, module.weights, module.untied
    wire = template.wire or _without_weights(source, template.places)
    names = {tie.place: name for name, tie in template.ties.items() if tie.held}
    names |= {place: names[0] for place, names in template.places.items()}
    made_of = {n: (layout, parts) for n, (layout, parts) in weights.stored.items() if parts != (n,)}
    keys = {n: n if n in made_of else weights.path(n) for n in names.values()}
    trainable = [n for n, t in weights.items() if isinstance(t, nn.Parameter) and t.requires_grad]
    state = module.state_dict()
    merge_state(module, state)
    for key in [k for k in state if k.endswith("num_batches_tracked")]:  # not weights in ONNX
        del state[key]
    for name, weight in weights.items():  # constants, too
        state.setdefault(weights.path(name), weight.detach())
    state._metadata[""][KEY] = {
        "template": torch.frombuffer(
            bytearray(b"".join(data for _, data in wire.pieces)), dtype=torch.uint8
        ),
        "holes": [edge for hole in wire.holes for edge in hole],
        "sizes": template.sizes,
        "places": {keys[name]: list(place) for place, name in names.items()},
        "layouts": {
            name: [layout, *map(weights.path, parts)] for name, (layout, parts) in made_of.items()
        },
        "trainable": trainable,
        "outputs": list(module.output_names),
        "untied": untied if isinstance(untied, bool) else [ESCAPED.sub(r"\1", u) for u in untied],
        "tied": module.tied,
        "shared": Adoption(dict(weights.stored), dict(weights.tied)).shared(),
    }
    atomic.atomic_write(path, lambda out: _write(state, out))


def _without_weights(source: Source, places: Collection[Place]) -> Wire:
    """The bytes of a ModelProto of more than 2 GiB, with empty weights."""
    model = copy.deepcopy(read(source).proto)
    for place, message in messages(model):
        if place in places and isinstance(message, TensorProto):
            header = {f: getattr(message, f) for f in ("name", "dims", "data_type")}
            message.CopyFrom(TensorProto(**header, raw_data=b""))
    return Wire.whole(serialized(model))


def _write(state: dict[str, Any], out: BinaryIO) -> None:
    """`torch.save`; raises the system's error where the disk is full."""
    try:
        torch.save(state, out)
    except RuntimeError as error:  # closing the archive fails because writing has failed
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def load(
    path: str | os.PathLike[str],
    *,
    limits: Limits = Limits(),
    allowed_ops: Collection[str] | None = None,
) -> OnnxModule:
    """Read a module from a file that `save` wrote; it is on the CPU and in eval mode.

    Args:
        path: the file.
        limits: as for `OnnxModule`; `model_bytes` bounds the model without its weights.
        allowed_ops: the only operators that the graph may use, as for `OnnxModule`.

    Raises:
        InvalidModelError: the file is not a state dict, has no graph, or contradicts it.
        UnsafeModelError: it exceeds a limit, its own size, or uses an operator not allowed.
        UnsupportedOpError: operators are missing.
        FileNotFoundError: the path does not exist.
    """
    state, found = _read(path)
    try:
        known = parse_metadata(found)
        data, empty = without_holes(known.wire)
        model = parse(data, limits)
        _check_external(model.proto, known.sizes)
        reader = StateReader(model.proto, known, state, limits)
        module = OnnxModule(
            model._replace(reader=reader, content=known.wire),
            outputs=known.outputs,
            trainable=lambda name, _: name in known.trainable,
            untie=known.untie,
            tie=known.tied,
            limits=limits,
            allowed_ops=allowed_ops,
        )
        if empty - module.template.places.keys():
            raise InvalidModelError("the template lacks the data of a tensor that is not a weight")
        _check_state(module, state)
    except InvalidModelError as error:
        raise type(error)(f"{path} has a damaged model: {error}") from error
    module.load_state_dict(state, assign=True)
    module.weights.tie()
    return module


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors of a file of `torch.save`, of any torch module; no code in it runs.

    Raises:
        InvalidModelError: the file is not a state dict of plain tensors.
        UnsafeModelError: it exceeds its own size.
        FileNotFoundError: the path does not exist.
    """
    return dict(_plain_tensors(path))


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[object, object]]:
    """The state dict, and the metadata that `save` added to it."""
    state = _plain_tensors(path)
    metadata = state.metadata if isinstance(state, pickle_reader.StateDict) else None
    root = metadata.get("") if isinstance(metadata, dict) else None
    if not isinstance(root, dict) or KEY not in root:
        raise InvalidModelError(f"{path} has no graph: write it with onnxinterp.checkpoints.save")
    return dict(state), root[KEY]


def _plain_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The dict of tensors in a file, with its metadata if it is a state dict."""
    with open_model(Path(path))[0] as file:
        try:
            state = pickle_reader.read(file)
        except InvalidModelError as error:
            file.seek(0)
            head = file.read(HEAD_BYTES)
            found = "" if head.startswith(b"PK") else describe(head)
            what = f"it is {found}" if found else str(error)
            raise type(error)(f"{path} is not a PyTorch file of plain tensors: {what}") from error
    what = f"{path} is not a PyTorch file of plain tensors"
    if not isinstance(state, dict):
        raise InvalidModelError(f"{what}: it is a {type(state).__name__}")
    if strange := [key for key, value in state.items() if not isinstance(value, Tensor)]:
        raise InvalidModelError(f"{what}: {strange[0]!r} is not a tensor")
    return state


class StateReader(TensorReader):
    """Reads the weights of a model from a state dict, its other tensors from the model.

    Args:
        model: the model, whose weights may lack their data.
        known: where in the model each tensor of the state dict belongs; it is not trusted.
        state: the state dict.
        limits: as of `TensorReader`.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        known: CheckpointMetadata,
        state: Mapping[str, Tensor],
        limits: Limits,
    ) -> None:
        super().__init__(None, limits)
        keys = {place: key for key, place in known.places.items()}
        # the messages are kept so that each id stays its own
        self._keys = {id(m): (m, keys[place]) for place, m in messages(model) if place in keys}
        self._state = state
        self._layouts = known.layouts
        self._bytes_left = MAX_SHARING * sum(tensor.nbytes for tensor in state.values())
        self.sizes = known.sizes
        self.adopted = frozenset(known.layouts)
        self.shared = known.shared

    def __call__(self, proto: TensorProto) -> Tensor | np.ndarray[Any, Any]:
        """The tensor, in the carrier of the type that the model declares."""
        kind = proto.data_type
        if id(proto) not in self._keys or kind not in CARRIER:
            return super().__call__(proto)
        key = self._keys[id(proto)][1]
        value = self._value(key, tuple(proto.dims))
        try:
            check_weight(value, kind, tuple(proto.dims), key)
            if kind in NARROW:
                raw_size(value, kind, key)  # raises where a number does not fit
        except SaveError as error:
            raise InvalidModelError(str(error)) from error
        return value.to(CARRIER[kind])

    def _value(self, key: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor of the file, as it is or made of several of the state dict."""
        name, *keys = self._layouts.get(key, ["", key])
        if missing := [key for key in keys if key not in self._state]:
            raise InvalidModelError(f"the tensor {missing[0]!r} is missing")
        parts = [self._state[key] for key in keys]
        if not name:
            return parts[0]
        layout, first = LAYOUTS[name], parts[0]
        sizes = [tuple(size) for size in layout.sizes(shape)]
        if sizes != [tuple(p.shape) for p in parts] or any(p.dtype != first.dtype for p in parts):
            raise InvalidModelError(f"{keys!r} must be tensors of the shapes {sizes}")
        self._bytes_left -= sum(part.nbytes for part in parts)
        if self._bytes_left < 0:
            raise UnsafeModelError("the model has too many copies of the tensors")
        return layout.join(parts)


def _check_external(model: onnx.ModelProto, sizes: Mapping[str, int]) -> None:
    """Check that external data have few gaps: a small checkpoint must not become a huge file.

    Raises:
        UnsafeModelError: they have many more bytes than the tensors in them.
    """
    tensors = (m for _, m in messages(model) if isinstance(m, TensorProto))
    found = [external_of(t) for t in tensors if t.data_location == TensorProto.EXTERNAL]
    most = 2 * sum(part.length for part in found) + MAX_GAP_BYTES * (len(found) + 1)
    if max([*(part.offset + part.length for part in found), *sizes.values()], default=0) > most:
        raise UnsafeModelError(f"external data of the template go beyond {most} bytes")


def _check_state(module: OnnxModule, state: Mapping[str, Tensor]) -> None:
    """Check that the tensors are the module's by name, shape and class of type.

    Raises:
        InvalidModelError: the message says which tensor is not.
    """
    weights = {module.weights.path(name): t for name, t in module.weights.items()}
    if strange := state.keys() ^ weights.keys():
        raise InvalidModelError(f"the tensor {min(strange)!r} is missing, or is not a weight")
    for key, weight in weights.items():
        found = state[key]
        if found.shape != weight.shape or not same_class(found.dtype, weight.dtype):
            shapes = [f"{t.dtype}{list(t.shape)}" for t in (weight, found)]
            raise InvalidModelError(f"{key!r} must be {shapes[0]}, got {shapes[1]}")

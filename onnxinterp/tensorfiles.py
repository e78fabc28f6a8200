"""Weights to and from `.safetensors` files: tensors by name, and nothing else.

The names are those of ONNX, so a file of the torch model that was exported can be read where the
exporter kept its names. Tensors that are one in memory are stored once; the metadata tell the other
names, as `safetensors.torch.save_model` has it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from onnxinterp.errors import InvalidModelError, SaveError
from onnxinterp.extras import require
from onnxinterp.replacing import Parts
from onnxinterp.weights import Weights

EXTRA = "safetensors"


class Unmatched(NamedTuple):
    """What did not match when weights were loaded.

    Attributes:
        missing: weights that the file does not have; they are as they were.
        unexpected: tensors of the file that are no weights of the module.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def save(weights: Weights, path: str | os.PathLike[str], graph: str) -> None:
    """Write weights; the file appears whole or not at all.

    Args:
        weights: of a module.
        path: the file to write.
        graph: the name of their graph, for the metadata.

    Raises:
        MissingExtraError: safetensors is not installed.
        SaveError: a weight has no data.
        OSError: the disk is full, the folder is missing, ...
    """
    require("safetensors", EXTRA)
    save_file = require("safetensors.torch", EXTRA).save_file
    tensors: dict[str, Tensor] = {}
    names: dict[Any, str] = {}  # what tells a tensor in memory -> its name
    others: dict[str, str] = {}
    storages: set[int] = set()
    for name, weight in weights.items():
        if weight.is_meta:
            raise SaveError(f"the weight {name!r} is on the meta device: it has no data")
        view = (weight.data_ptr(), weight.dtype, weight.shape, weight.stride())
        if weight.numel() and view in names:
            others[name] = names[view]
            continue
        names[view] = name
        storage = weight.untyped_storage().data_ptr()
        overlaps = storage in storages  # a part of another weight: no file has such
        tensors[name] = weight.detach().clone() if overlaps else weight.detach().contiguous()
        storages.add(storage)
    metadata = {**others, "format": "pt", "onnxinterp.graph": graph}
    target = Path(os.path.abspath(path))
    with Parts(target.parent) as parts:
        part = parts.write(target, lambda out: save_file(tensors, out.name, metadata))
        parts.put(part, target)


@torch.no_grad()
def load(weights: Weights, path: str | os.PathLike[str], strict: bool) -> Unmatched:
    """Read weights in place; none is changed where an error is raised.

    Args:
        weights: of a module.
        path: the file.
        strict: whether names that do not match are an error.

    Raises:
        MissingExtraError: safetensors is not installed.
        InvalidModelError: the file is damaged, or its tensors do not fit.
        FileNotFoundError: the path does not exist.
    """
    safetensors = require("safetensors", EXTRA)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            there, metadata = set(file.keys()), file.metadata() or {}
            stored = {n: n if n in there else metadata.get(n, n) for n in weights}
            given = {n: file.get_tensor(s) for n, s in stored.items() if s in there}
    except safetensors.SafetensorError as error:
        raise InvalidModelError(f"{path} is no file of safetensors: {error}") from error
    missing = tuple(n for n in weights if n not in given)
    batches = {n for n in there if n.endswith("num_batches_tracked")}  # no weights of ONNX
    unexpected = tuple(sorted(there - set(stored.values()) - batches))
    wrong = [text for n, tensor in given.items() if (text := _misfit(weights, n, tensor))]
    if strict:
        wrong += [f"missing: {', '.join(missing)}"] if missing else []
        wrong += [f"not in the model: {', '.join(unexpected)}"] if unexpected else []
    if wrong:
        lines = [f"  {text}" for text in wrong]
        raise InvalidModelError(f"the tensors of {path} do not fit:", *lines)
    for name, tensor in given.items():
        weights[name].copy_(tensor)
    return Unmatched(missing, unexpected)


def _misfit(weights: Weights, name: str, given: Tensor) -> str:
    """Why a tensor cannot become the value of a weight; "" where it can."""
    weight = weights[name]
    holder, leaf = weights.holder(name)
    if leaf not in holder._parameters and leaf not in holder._buffers:
        return f"{name} is parametrized: load first"
    if given.shape != weight.shape:
        return f"{name} has the shape {list(given.shape)}, in the model {list(weight.shape)}"
    ours, theirs = [(t.is_floating_point(), t.is_complex()) for t in (weight, given)]
    if ours != theirs or (not any(ours) and given.dtype != weight.dtype):
        return f"{name} is {given.dtype}, in the model {weight.dtype}"
    return ""

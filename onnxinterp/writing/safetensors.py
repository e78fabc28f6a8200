"""Weights to and from `.safetensors` files, which contain tensors by name and nothing else.

The names are those of ONNX, so a file of the original torch model can be loaded if the exporter
kept its names. Tensors that share memory are stored once; the metadata contain their other names,
as `safetensors.torch.save_model` does it.

Files are written here, not by safetensors: its `save_file` replaces the file without preserving
permissions or flushing it to the disk, and the order of its metadata is random.

Source of the format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from onnxinterp.dtypes import ONNX_TYPE
from onnxinterp.errors import InvalidModelError, SaveError
from onnxinterp.extras import require
from onnxinterp.format.atomic import atomic_write
from onnxinterp.format.tensor_bytes import raw_parts, same_class
from onnxinterp.weights import Weights
from onnxinterp.weights.layouts import check_plain

EXTRA = "safetensors"
METADATA = "__metadata__"  # the entry of the header that is not a tensor
TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.complex64: "C64",
}


class Unmatched(NamedTuple):
    """The names that did not match when weights were loaded.

    Attributes:
        missing: weights that the file does not have; they are unchanged.
        unexpected: tensors of the file that are not weights of the module.
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
        SaveError: a weight has no data, or a type or a name that the format does not allow.
        OSError: the disk is full, the folder is missing, ...
    """
    require("safetensors", EXTRA)  # for reading the file
    tensors: dict[str, Tensor] = {}
    names: dict[Any, str] = {}  # identity of a tensor in memory -> its name
    others: dict[str, str] = {}
    for name, weight in weights.items():
        check_plain(weight, name)
        if weight.is_meta:
            raise SaveError(f"the weight {name!r} is on the meta device: it has no data")
        if weight.dtype not in TYPES or name == METADATA:
            what = "name" if name == METADATA else f"type {weight.dtype}"
            raise SaveError(f"a .safetensors file cannot store the weight {name!r}: its {what}")
        view = (weight.data_ptr(), weight.dtype, weight.shape, weight.stride())
        first = names.setdefault(view, name) if weight.numel() else name
        if first == name:
            tensors[name] = weight
        else:
            others[name] = first
    metadata = {**others, "format": "pt", "onnxinterp.graph": graph}
    atomic_write(path, lambda out: _write(out, tensors, metadata))


def save_tensors(tensors: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Write tensors by name, all with data of their own; the file appears whole or not at all.

    Raises:
        SaveError: the format has no type for one.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in TYPES:
            raise SaveError(f"a .safetensors file cannot store {name!r}: its type {tensor.dtype}")
    atomic_write(path, lambda out: _write(out, tensors, {"format": "pt"}))


def _write(out: BinaryIO, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write header and data; the largest elements first, so that all are aligned."""
    header: dict[str, Any] = {METADATA: metadata}
    in_order, at = sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize), 0
    for name, tensor in in_order:
        stop = at + tensor.numel() * tensor.dtype.itemsize
        shape = list(tensor.shape)
        header[name] = {"dtype": TYPES[tensor.dtype], "shape": shape, "data_offsets": [at, stop]}
        at = stop
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    out.write(len(encoded).to_bytes(8, "little") + encoded)
    for name, tensor in in_order:
        out.writelines(raw_parts(tensor, ONNX_TYPE[tensor.dtype], name))


@torch.no_grad()
def load(weights: Weights, path: str | os.PathLike[str], strict: bool) -> Unmatched:
    """Load weights in place; none is changed if an error is raised.

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
            for name, first in weights.tied.items():  # a file may have a weight once
                pair = (name, first) if stored[name] in there else (first, name)
                if stored[pair[1]] not in there:
                    stored[pair[1]] = stored[pair[0]]
            given = {n: file.get_tensor(s) for n, s in stored.items() if s in there}
    except safetensors.SafetensorError as error:
        raise InvalidModelError(f"{path} is not a .safetensors file: {error}") from error
    missing = tuple(n for n in weights if n not in given and n not in weights.transient)
    batches = {n for n in there if n.endswith("num_batches_tracked")}  # not weights in ONNX
    unexpected = tuple(sorted(there - set(stored.values()) - batches))
    wrong = [why for n, tensor in given.items() if (why := _misfit(weights, n, tensor))]
    if strict:
        wrong += [f"missing: {', '.join(missing)}"] if missing else []
        wrong += [f"not in the model: {', '.join(unexpected)}"] if unexpected else []
    if wrong:
        lines = [f"  {why}" for why in wrong]
        raise InvalidModelError(f"the tensors of {path} do not fit:", *lines)
    for name, tensor in given.items():
        weights[name].copy_(tensor)
    return Unmatched(missing, unexpected)


def _misfit(weights: Weights, name: str, given: Tensor) -> str:
    """Why a tensor cannot be loaded into a weight; "" if it can."""
    weight = weights[name]
    holder, leaf = weights.holder(name)
    if leaf not in holder._parameters and leaf not in holder._buffers:
        return f"{name} is parametrized: load first"
    if given.dtype not in TYPES and given.dtype != weight.dtype:
        return f"{name} is {given.dtype}, which is not supported"
    if given.shape != weight.shape:
        return f"{name} must have the shape {list(weight.shape)}, got {list(given.shape)}"
    if not same_class(given.dtype, weight.dtype):
        return f"{name} must be {weight.dtype}, got {given.dtype}"
    return ""

"""From a source (path, bytes, file, ModelProto) to a parsed model, and from its bytes to tensors.

External data is opened beside the model only, as a regular file below the model's folder, and
mapped privately with copy-on-write: pages are read when touched, a trained tensor never writes to
the file, and each tensor saves at its own size.
"""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper
from torch import Tensor

from onnxinterp.dtypes import CARRIER, NATIVE, onnx_name
from onnxinterp.errors import InvalidModelError, UnsafeModelError

PAGES_OF_ITS_OWN = 2**16  # bytes from which a tensor gets them
Source: TypeAlias = "str | os.PathLike[str] | bytes | BinaryIO | onnx.ModelProto"


def read(source: Source) -> tuple[onnx.ModelProto, TensorReader]:
    """Parse a model without reading its external data.

    Returns:
        The model and the reader of its tensors, which knows the folder of external data.

    Raises:
        InvalidModelError: the bytes are no ONNX model.
        FileNotFoundError: the path does not exist.
    """
    if isinstance(source, onnx.ModelProto):
        return source, TensorReader(None)
    if isinstance(source, bytes):
        return _parse(source, "the bytes given"), TensorReader(None)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        return _parse(path.read_bytes(), str(path)), TensorReader(path.parent)
    if hasattr(source, "read"):
        return _parse(source.read(), "the file given"), TensorReader(None)
    raise TypeError(f"a model is a path, bytes, a binary file or a ModelProto, not {type(source)}")


def _parse(data: bytes, what: str) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise InvalidModelError(f"{what} cannot be parsed as an ONNX model: {error}") from error
    if not model.HasField("graph"):
        raise InvalidModelError(f"{what} holds no ONNX graph")
    return model


class TensorReader:
    """Turns a TensorProto into a tensor: shape from `dims`, dtype by `dtypes.CARRIER`.

    Attributes:
        folder: where external data lies; None where the model came without a path.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._maps: dict[str, mmap.mmap] = {}

    def __call__(self, proto: TensorProto) -> Tensor | np.ndarray[Any, Any]:
        """The tensor; strings come as a numpy object array.

        Raises:
            InvalidModelError: the data does not fit shape and type.
            UnsafeModelError: external data lies where it must not.
        """
        name, kind, shape = proto.name, proto.data_type, tuple(proto.dims)
        if kind == TensorProto.STRING:
            return self._strings(proto, shape)
        if kind not in CARRIER:
            raise InvalidModelError(f"tensor {name!r} has the unknown type {onnx_name(kind)}")
        try:
            if proto.data_location == TensorProto.EXTERNAL:
                return self._external(proto, kind, shape)
            if kind in NATIVE and proto.HasField("raw_data"):
                return _from_buffer(_own_copy(proto.raw_data), CARRIER[kind], shape)
            array = np.array(numpy_helper.to_array(proto))
        except (ValueError, TypeError, RuntimeError) as error:
            if isinstance(error, InvalidModelError):
                raise
            message = f"tensor {name!r} of type {onnx_name(kind)} and shape {list(shape)}: {error}"
            raise InvalidModelError(message) from error
        return from_array(array.reshape(shape), kind)

    def sparse(self, proto: onnx.SparseTensorProto) -> Tensor:
        """A sparse tensor as the dense tensor it means; indices are linear or one row per value.

        Raises:
            InvalidModelError: an index lies outside the shape.
        """
        values, indices = self(proto.values), self(proto.indices)
        shape = tuple(proto.dims)
        if not isinstance(values, Tensor) or not isinstance(indices, Tensor):
            raise InvalidModelError(f"sparse tensor {proto.values.name!r} holds strings")
        if indices.ndim == 2:
            strides = [int(np.prod(shape[i + 1 :], dtype=object)) for i in range(len(shape))]
            indices = (indices * torch.tensor(strides)).sum(1)
        dense = torch.zeros(int(np.prod(shape, dtype=object)), dtype=values.dtype)
        if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < dense.numel():
            raise InvalidModelError(f"sparse tensor {proto.values.name!r} has an index outside")
        dense[indices] = values
        return dense.reshape(shape)

    @staticmethod
    def _strings(proto: TensorProto, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        strings = [s.decode("utf-8", "surrogateescape") for s in proto.string_data]
        return np.array(strings, dtype=object).reshape(shape)

    def _external(self, proto: TensorProto, kind: int, shape: tuple[int, ...]) -> Tensor:
        where = {entry.key: entry.value for entry in proto.external_data}
        data = self._map(where.get("location", ""), proto.name)
        offset = int(where.get("offset", 0))
        if kind not in NATIVE:
            length = int(where.get("length", len(data) - offset))
            inline = TensorProto(
                data_type=kind, dims=shape, raw_data=data[offset : offset + length]
            )
            return from_array(np.array(numpy_helper.to_array(inline)), kind)
        dtype, count = CARRIER[kind], int(np.prod(shape, dtype=object))
        if offset < 0 or offset + count * dtype.itemsize > len(data):
            raise InvalidModelError(f"external data of {proto.name!r} ends after its file")
        if offset % dtype.itemsize:  # torch wants aligned elements
            stop = offset + count * dtype.itemsize
            return _from_buffer(_own_copy(data[offset:stop]), dtype, shape)
        if not count:
            return torch.empty(shape, dtype=dtype)
        return torch.frombuffer(data, dtype=dtype, count=count, offset=offset).reshape(shape)

    def _map(self, location: str, tensor: str) -> mmap.mmap:
        if location not in self._maps:
            path = self._safe_path(location, tensor)
            with path.open("rb") as file:
                info = os.fstat(file.fileno())
                if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1:
                    raise UnsafeModelError(f"external data of {tensor!r} is no plain file")
                if not info.st_size:
                    raise InvalidModelError(f"external data of {tensor!r} is an empty file")
                self._maps[location] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        return self._maps[location]

    def _safe_path(self, location: str, tensor: str) -> Path:
        if self.folder is None:
            message = f"{tensor!r} lies in the file {location!r}: load the model from its path"
            raise InvalidModelError(message)
        relative = Path(location)
        if not location or relative.is_absolute() or ".." in relative.parts:
            raise UnsafeModelError(f"external data of {tensor!r} points outside: {location!r}")
        path = self.folder / relative
        if any(p.is_symlink() for p in (path, *path.parents) if self.folder in p.parents):
            raise UnsafeModelError(f"external data of {tensor!r} is behind a link: {location!r}")
        if not path.exists():
            raise InvalidModelError(f"external data of {tensor!r} is missing: {location!r}")
        return path


def _own_copy(data: bytes) -> bytearray | mmap.mmap:
    """A writable copy; a large one in pages of its own.

    In the heap it would lie among the pieces of the parsed file, and keep their memory from going
    back to the system once they are freed.
    """
    if len(data) < PAGES_OF_ITS_OWN:
        return bytearray(data)
    pages = mmap.mmap(-1, len(data))
    pages.write(data)
    return pages


def _from_buffer(data: bytearray | mmap.mmap, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    count = int(np.prod(shape, dtype=object))
    if min(shape, default=0) < 0 or len(data) != count * dtype.itemsize:
        raise InvalidModelError(f"{len(data)} bytes for {list(shape)} elements of {dtype}")
    if not count:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(data, dtype=dtype).reshape(shape)


def from_array(array: np.ndarray[Any, Any], kind: int) -> Tensor:
    """A numpy array of the ONNX type `kind` as a tensor of the same shape and of its carrier.

    Arrays of numpy's own types pass as they are; the others as bytes of their carrier.
    """
    carrier, flat = CARRIER[kind], array.reshape(-1)
    if kind not in NATIVE:
        wide = np.float32 if carrier is torch.float32 else np.int16
        tensor = torch.from_numpy(flat.astype(wide)).to(carrier)
    elif array.dtype.isbuiltin == 1:
        tensor = torch.from_numpy(flat).to(carrier)
    else:
        tensor = torch.from_numpy(flat.view(f"u{carrier.itemsize}")).view(carrier)
    return tensor.reshape(array.shape)

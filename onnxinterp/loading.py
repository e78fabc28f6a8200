"""From a source (path, bytes, file, ModelProto) to a parsed model, and from its bytes to tensors.

External data is opened beside the model only, as a regular file below the model's folder, and
mapped privately with copy-on-write: pages are read when touched, a trained tensor never writes to
the file, and each tensor saves at its own size.
"""

from __future__ import annotations

import copy
import mmap
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError, EncodeError
from onnx import TensorProto, numpy_helper
from torch import Tensor

from onnxinterp.dtypes import CARRIER, NATIVE, onnx_name
from onnxinterp.errors import InvalidModelError, UnsafeModelError
from onnxinterp.mapped import MappedFiles

PAGES_OF_ITS_OWN = 2**16  # bytes from which a tensor gets them
Source: TypeAlias = "str | os.PathLike[str] | bytes | BinaryIO | onnx.ModelProto"
Content: TypeAlias = "bytes | mmap.mmap | None"
"""The bytes of a model; None where it came parsed."""


def read(source: Source) -> tuple[onnx.ModelProto, TensorReader]:
    """Parse a model without reading its external data.

    Returns:
        The model and the reader of its tensors, which knows the folder of external data.

    Raises:
        InvalidModelError: the bytes are no ONNX model.
        FileNotFoundError: the path does not exist.
    """
    return read_all(source)[:2]


def read_all(source: Source) -> tuple[onnx.ModelProto, TensorReader, Content]:
    """As `read`, and the bytes of the model; those of a file are mapped, not held."""
    if isinstance(source, onnx.ModelProto):
        return source, TensorReader(None), None
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        with path.open("rb") as file:
            mapped = _mapped(file)
            if mapped is not None:  # parsed from a copy: pages of the map would stay in memory
                return _parse(file.read(), str(path)), TensorReader(path.parent), mapped
            data = file.read()
            return _parse(data, str(path)), TensorReader(path.parent), data
    data = source if isinstance(source, bytes) else _read(source)
    return _parse(data, "what was given"), TensorReader(None), data


def complete(source: Source) -> onnx.ModelProto:
    """A copy of a model that has its external data inside.

    Raises:
        InvalidModelError: it is no ONNX model.
        FileNotFoundError: the path, or external data, do not exist.
    """
    proto = read(source)[0]
    model = copy.deepcopy(proto) if proto is source else proto
    if isinstance(source, (str, os.PathLike)):
        onnx.load_external_data_for_model(model, str(Path(source).parent))
    return model


def content_of(source: Source) -> bytes | mmap.mmap:
    """The bytes of a model, unparsed; those of a file are mapped."""
    if isinstance(source, onnx.ModelProto):
        return serialized(source)
    if isinstance(source, (str, os.PathLike)):
        with Path(source).open("rb") as file:
            mapped = _mapped(file)
            return file.read() if mapped is None else mapped
    return source if isinstance(source, bytes) else _read(source)


def serialized(model: onnx.ModelProto) -> bytes:
    """The bytes of a parsed model.

    Raises:
        InvalidModelError: they would be more than 2 GB.
    """
    try:
        data: bytes = model.SerializeToString()
    except (ValueError, EncodeError) as error:
        raise InvalidModelError(f"the ModelProto cannot be serialized: {error}") from error
    return data


def _mapped(file: BinaryIO) -> mmap.mmap | None:
    """A file's bytes, mapped; None where it is a pipe or empty."""
    info = os.fstat(file.fileno())
    if not stat.S_ISREG(info.st_mode) or not info.st_size:
        return None
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _read(source: BinaryIO) -> bytes:
    if not hasattr(source, "read"):
        kind = type(source)
        raise TypeError(f"a model is a path, bytes, a binary file or a ModelProto, not {kind}")
    return source.read()


def reusable(source: Source) -> Source:
    """A source that can be read more than once: a file becomes its bytes."""
    if isinstance(source, (str, os.PathLike, bytes, onnx.ModelProto)):
        return source
    return source.read()


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
        sizes: location -> bytes, of the files of external data that were opened.
        mapped: those files, and how they were.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.sizes: dict[str, int] = {}
        self.mapped = MappedFiles()
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
        if not isinstance(values, Tensor) or not isinstance(indices, Tensor):
            raise InvalidModelError(f"sparse tensor {proto.values.name!r} holds strings")
        shape = tuple(proto.dims)
        positions = flat_positions(indices, shape)
        dense = torch.zeros(int(np.prod(shape, dtype=object)), dtype=values.dtype)
        if positions.numel() and not 0 <= positions.min() <= positions.max() < dense.numel():
            raise InvalidModelError(f"sparse tensor {proto.values.name!r} has an index outside")
        dense[positions] = values
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
            if self.folder is None:
                message = f"{tensor!r} lies in the file {location!r}: load the model from its path"
                raise InvalidModelError(message)
            with open_external(self.folder, location) as file:
                self.sizes[location] = os.fstat(file.fileno()).st_size
                if not self.sizes[location]:
                    raise InvalidModelError(f"the external data {location!r} is an empty file")
                self._maps[location] = self.mapped.map(file, self.folder / location)
        return self._maps[location]


def flat_positions(indices: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Where the values of a sparse tensor stand in the flat dense one; int64 of shape [values].

    Args:
        indices: linear ones [values], or one row per value [values, rank].
        shape: that of the dense tensor.
    """
    if indices.ndim < 2:
        return indices
    strides = [int(np.prod(shape[i + 1 :], dtype=object)) for i in range(len(shape))]
    return (indices * torch.tensor(strides)).sum(1)


def open_external(folder: Path, location: str) -> BinaryIO:
    """Open external data: a regular file of its own below the folder, behind no link.

    Raises:
        InvalidModelError: there is none.
        UnsafeModelError: it is none of this kind.
    """
    path = external_path(folder, location)
    if not path.exists():
        raise InvalidModelError(f"the external data {location!r} is missing in {folder}")
    file = path.open("rb")
    info = os.fstat(file.fileno())
    if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1:
        file.close()
        raise UnsafeModelError(f"the external data {location!r} is no plain file")
    return file


def external_path(folder: Path, location: str) -> Path:
    """Where external data lies, as the model says.

    Raises:
        UnsafeModelError: outside the folder, or behind a link.
    """
    relative = Path(location)
    if not location or relative.is_absolute() or ".." in relative.parts:
        raise UnsafeModelError(f"the external data {location!r} points outside of {folder}")
    path = folder / relative
    if any(p.is_symlink() for p in (path, *path.parents) if folder in p.parents):
        raise UnsafeModelError(f"the external data {location!r} is behind a link")
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

"""From a source (path, bytes, file, ModelProto) to a parsed model, and from its bytes to tensors.

External data is opened beside the model only, as a regular file below the model's folder (see
`files`), and mapped privately with copy-on-write: pages are read when touched, a trained tensor
never writes to the file, and each tensor saves at its own size. A tensor is made only after its
numbers are found to fit (see `tensors`).
"""

from __future__ import annotations

import copy
import math
import mmap
import os
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError, EncodeError
from onnx import TensorProto, numpy_helper
from torch import Tensor

from onnxinterp.dtypes import CARRIER, NATIVE, STRING
from onnxinterp.errors import InvalidModelError, UnsafeModelError
from onnxinterp.files import Folder, open_model
from onnxinterp.limits import Limits
from onnxinterp.mapped import MappedFiles
from onnxinterp.tensors import (
    External,
    check_numbers,
    check_sparse,
    check_spread,
    check_tensor,
    check_weights,
    external_of,
)
from onnxinterp.texts import check_texts
from onnxinterp.wire import LARGEST, Buffer, messages

PAGES_OF_ITS_OWN = 2**16  # bytes from which a tensor gets them
BLOCK = 2**24  # bytes read at once from a file object
MAPS = 256  # files of external data that are mapped; each map keeps a descriptor open
Source: TypeAlias = "str | os.PathLike[str] | bytes | BinaryIO | onnx.ModelProto"
Content: TypeAlias = "bytes | mmap.mmap | None"
"""The bytes of a model; None where it came parsed."""


def read(source: Source) -> tuple[onnx.ModelProto, TensorReader]:
    """Parse a model without reading its external data.

    Returns:
        The model and the reader of its tensors, which knows the folder of external data.

    Raises:
        InvalidModelError: the bytes are no ONNX model.
        UnsafeModelError: the path is a pipe or a device, or the model has more than 2 GiB.
        FileNotFoundError: the path does not exist.
    """
    return read_all(source)[:2]


def read_all(
    source: Source,
    limits: Limits = Limits(),
    data_root: str | os.PathLike[str] | None = None,
) -> tuple[onnx.ModelProto, TensorReader, Content]:
    """As `read`, and the bytes of the model; those of a file are mapped, not held.

    Args:
        source: a path, bytes, a binary file or a ModelProto.
        limits: `model_bytes` is looked at before anything is read.
        data_root: a folder within which external data may be behind links.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        file, folder = open_model(path, data_root)
        with file:
            size = _size(file, limits, str(path))
            if not size:  # as files of a process claim, too
                raise InvalidModelError(f"{path} is empty")
            data = file.read(size + 1)  # parsed from a copy: pages of a map would stay in memory
            if len(data) != size:
                raise InvalidModelError(f"{path} has changed while it was read")
            model = _parse(data, str(path))
            del data
            return model, TensorReader(folder, limits), _mapped(file)
    if isinstance(source, onnx.ModelProto):
        return _with_graph(source, "the ModelProto"), TensorReader(None, limits), None
    data = _read(source, limits)
    return _parse(data, "what was given"), TensorReader(None, limits), data


def complete(source: Source, data_root: str | os.PathLike[str] | None = None) -> onnx.ModelProto:
    """A copy of a model that has its external data inside, all of whose tensors are checked.

    Raises:
        InvalidModelError: it is no ONNX model, or external data are missing or do not fit.
        UnsafeModelError: external data lie where they must not.
        FileNotFoundError: the path does not exist.
    """
    proto, reader, _ = read_all(source, data_root=data_root)
    model = copy.deepcopy(proto) if proto is source else proto
    check_weights(model, reader.limits)
    for _, message in messages(model):
        if isinstance(message, TensorProto):
            message.CopyFrom(reader.inline(message))
            check_tensor(message)
    return model


def content_of(source: Source) -> bytes | mmap.mmap:
    """The bytes of a model, unparsed; those of a file are mapped."""
    if isinstance(source, onnx.ModelProto):
        return serialized(source)
    if isinstance(source, (str, os.PathLike)):
        with open_model(Path(source))[0] as file:
            return _mapped(file) if _size(file, Limits(), str(source)) else b""
    return _read(source, Limits())


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


def reusable(source: Source) -> Source:
    """A source that can be read more than once: a file becomes its bytes."""
    if isinstance(source, (str, os.PathLike, bytes, onnx.ModelProto)):
        return source
    return _read(source, Limits())


def _size(file: BinaryIO, limits: Limits, what: str) -> int:
    return _allowed(os.fstat(file.fileno()).st_size, limits, what)


def _allowed(size: int, limits: Limits, what: str) -> int:
    """The bytes of a model, where they are not too many."""
    if limits.model_bytes is not None and size > limits.model_bytes:
        raise UnsafeModelError(
            f"{what} has more than {limits.model_bytes} bytes, which limits.model_bytes allows"
        )
    if size > LARGEST:
        raise InvalidModelError(f"{what} has {size} bytes; protobuf ends at 2 GiB")
    return size


def _mapped(file: BinaryIO) -> mmap.mmap:
    """The bytes of a file that is not empty."""
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # a file system without maps; cut to nothing by now
        raise InvalidModelError(f"{file.name!r} cannot be mapped: {error}") from error


def _read(source: bytes | BinaryIO, limits: Limits) -> bytes:
    """The bytes given, or those of a file; of one that is too large not many more than allowed."""
    if isinstance(source, bytes):
        _allowed(len(source), limits, "what was given")
        return source
    if not hasattr(source, "read"):
        kind = type(source)
        raise TypeError(f"a model is a path, bytes, a binary file or a ModelProto, not {kind}")
    parts, size = [], 0
    while part := source.read(BLOCK):
        if not isinstance(part, bytes):
            raise TypeError(f"a model is read from a binary file, not from one of {type(part)}")
        size = _allowed(size + len(part), limits, "the file")
        parts.append(part)
    return b"".join(parts)


def _parse(data: bytes, what: str) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise InvalidModelError(f"{what} cannot be parsed as an ONNX model: {error}") from error
    return _with_graph(model, what)


def _with_graph(model: onnx.ModelProto, what: str) -> onnx.ModelProto:
    if not model.HasField("graph"):
        raise InvalidModelError(f"{what} holds no ONNX graph")
    check_texts(model)
    return model


class TensorReader:
    """Turns a TensorProto into a tensor: shape from `dims`, dtype by `dtypes.CARRIER`.

    Attributes:
        folder: where external data lies; None where the model came without a path.
        limits: `weight_bytes` bounds what a sparse tensor may become.
        sizes: location -> bytes, of the files of external data that were opened.
        mapped: those files, and how they were.
    """

    def __init__(self, folder: Folder | None, limits: Limits = Limits()) -> None:
        self.folder = folder
        self.limits = limits
        self.sizes: dict[str, int] = {}
        self.mapped = MappedFiles()
        self._maps: dict[str, mmap.mmap] = {}

    def __call__(self, proto: TensorProto) -> Tensor | np.ndarray[Any, Any]:
        """The tensor; strings come as a numpy object array.

        Raises:
            InvalidModelError: the data does not fit shape and type.
            UnsafeModelError: external data lies where it must not.
        """
        kind, shape = proto.data_type, tuple(proto.dims)
        if proto.data_location == TensorProto.EXTERNAL:
            return self._external(proto, kind, shape)
        raw = proto.raw_data if proto.HasField("raw_data") else None
        check_tensor(proto, raw)
        if kind == STRING:
            return self._strings(proto, shape)
        if kind in NATIVE and raw is not None:
            return _from_buffer(_own_copy(raw), CARRIER[kind], shape)
        return _decoded(proto)

    def sparse(self, proto: onnx.SparseTensorProto) -> Tensor:
        """A sparse tensor as the dense tensor it means; indices are linear or one row per value.

        Raises:
            InvalidModelError: indices lie outside the shape, or are not in ascending order.
            UnsafeModelError: the dense tensor would be too large.
        """
        check_sparse(proto)
        check_spread(proto, self.limits)
        values, indices = self(proto.values), self(proto.indices)
        assert isinstance(values, Tensor), "check_sparse refuses strings"
        assert isinstance(indices, Tensor), "check_sparse wants int64"
        shape, name = tuple(proto.dims), proto.values.name
        sizes = torch.tensor(shape if indices.ndim > 1 else [math.prod(shape)])
        if ((indices < 0) | (indices >= sizes)).any():
            raise InvalidModelError(f"sparse tensor {name!r} has an index outside")
        positions = flat_positions(indices, shape)
        if (positions[1:] <= positions[:-1]).any():
            raise InvalidModelError(f"sparse tensor {name!r} has indices that do not ascend")
        try:
            dense = torch.zeros(math.prod(shape), dtype=values.dtype)
        except RuntimeError as error:
            raise UnsafeModelError(f"sparse tensor {name!r} finds no memory: {error}") from error
        dense[positions] = values
        return dense.reshape(shape)

    def inline(self, proto: TensorProto) -> TensorProto:
        """A tensor with its data in it; itself where it has them already.

        Raises:
            InvalidModelError: external data is missing or does not fit.
            UnsafeModelError: external data lies where it must not.
        """
        if proto.data_location != TensorProto.EXTERNAL:
            return proto
        data, where = self._data(proto)
        inside = TensorProto()
        inside.CopyFrom(proto)
        inside.ClearField("external_data")
        inside.ClearField("data_location")
        inside.raw_data = bytes(data[where.offset : where.offset + where.length])
        return inside

    @staticmethod
    def _strings(proto: TensorProto, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        strings = [s.decode("utf-8", "surrogateescape") for s in proto.string_data]
        return np.array(strings, dtype=object).reshape(shape)

    def _external(self, proto: TensorProto, kind: int, shape: tuple[int, ...]) -> Tensor:
        data, where = self._data(proto)
        if kind not in NATIVE:
            return _decoded(self.inline(proto))
        dtype = CARRIER[kind]
        if where.offset % dtype.itemsize:  # torch wants aligned elements
            part = bytes(data[where.offset : where.offset + where.length])
            return _from_buffer(_own_copy(part), dtype, shape)
        return _from_buffer(data, dtype, shape, where.offset)

    def _data(self, proto: TensorProto) -> tuple[Buffer, External]:
        """The file that has the data of a tensor, and where in it they are."""
        where = external_of(proto)
        data = self._map(where.location, proto.name)
        if where.offset + where.length > len(data):
            raise InvalidModelError(f"external data of {proto.name!r} ends after its file")
        return data, where

    def _map(self, location: str, tensor: str) -> mmap.mmap | bytes:
        if location not in self._maps:
            if self.folder is None:
                message = f"{tensor!r} lies in the file {location!r}: load the model from its path"
                raise InvalidModelError(message)
            with self.folder.open(location) as file:
                size = os.fstat(file.fileno()).st_size
                self.sizes[location] = size
                if not size:
                    return b""
                try:
                    self._maps[location] = self._pages(file, size, location)
                except (OSError, ValueError) as error:
                    message = f"the external data {location!r} cannot be mapped: {error}"
                    raise InvalidModelError(message) from error
        return self._maps[location]

    def _pages(self, file: BinaryIO, size: int, location: str) -> mmap.mmap:
        if len(self._maps) < MAPS and self.folder is not None:
            return self.mapped.map(file, self.folder.path / location)
        pages = mmap.mmap(-1, size)
        if pages.write(file.read(size)) != size:
            raise OSError("it has changed while it was read")
        return pages


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


def _from_buffer(
    data: Buffer, dtype: torch.dtype, shape: tuple[int, ...], offset: int = 0
) -> Tensor:
    """The elements that start at an offset, without a copy."""
    count = math.prod(shape)
    if not count:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(data, dtype=dtype, count=count, offset=offset).reshape(shape)


def _decoded(proto: TensorProto) -> Tensor:
    """What has to be unpacked, or stands in a typed field."""
    check_numbers(proto)
    array = np.array(numpy_helper.to_array(proto))
    return from_array(array.reshape(-1), proto.data_type).reshape(tuple(proto.dims))


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

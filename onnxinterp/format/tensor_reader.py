"""From a TensorProto to a tensor: `TensorReader`.

External data are opened only as a regular file below the model's folder (`files`). They are mapped
privately with copy-on-write: pages are read when they are touched, training never writes to the
file, and each tensor is saved at its own size. Sizes are checked before a tensor is allocated
(`tensor_checks`).
"""

from __future__ import annotations

import math
import mmap
import os
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor

from onnxinterp.dtypes import CARRIER, NATIVE, STRING
from onnxinterp.errors import InvalidModelError, UnsafeModelError
from onnxinterp.format.files import Folder
from onnxinterp.format.mapped_files import MappedFiles
from onnxinterp.format.memory import Pages, own_memory
from onnxinterp.format.payloads import NO_PAYLOADS, Payloads
from onnxinterp.format.signatures import HEAD_BYTES, describe
from onnxinterp.format.tensor_checks import (
    External,
    check_numbers,
    check_sparse,
    check_sparse_size,
    check_tensor,
    external_of,
)
from onnxinterp.format.wire import Buffer
from onnxinterp.limits import Limits

MAX_MAPS = 256  # files of external data that are mapped; each map keeps a descriptor open


class TensorReader:
    """Turns a TensorProto into a tensor: shape from `dims`, dtype by `dtypes.CARRIER`.

    Attributes:
        folder: the folder of external data; None where the model has no path.
        limits: `weight_bytes` bounds the size of sparse tensors.
        sizes: location -> bytes, of the files of external data that were opened.
        mapped: these files, to detect changes.
        payloads: the data that were cut out of the model.
        adopted: names of tensors that are known to be weights of a torch module.
        shared: names of tensors that are known to be one parameter with others; None if unknown.
    """

    def __init__(
        self,
        folder: Folder | None,
        limits: Limits = Limits(),
        payloads: Payloads = NO_PAYLOADS,
    ) -> None:
        self.folder = folder
        self.limits = limits
        self.payloads = payloads
        self.sizes: dict[str, int] = {}
        self.mapped = MappedFiles()
        self.adopted: frozenset[str] = frozenset()
        self.shared: frozenset[str] | None = None
        self._maps: dict[str, mmap.mmap] = {}

    def __call__(self, proto: TensorProto) -> Tensor | np.ndarray[Any, Any]:
        """The tensor; a numpy object array for strings.

        Raises:
            InvalidModelError: the data do not fit shape and type.
            UnsafeModelError: the location of external data is not allowed.
        """
        kind, shape = proto.data_type, tuple(proto.dims)
        if proto.data_location == TensorProto.EXTERNAL:
            return self._external(proto, kind, shape)
        if (size := self.payloads.size(proto)) is not None:
            check_tensor(proto, size)
            return self._payload(proto, kind, shape)
        raw = proto.raw_data if proto.HasField("raw_data") else None
        check_tensor(proto, None if raw is None else len(raw))
        if kind == STRING:
            return self._strings(proto, shape)
        if kind in NATIVE and raw is not None:
            return _from_buffer(_own_copy(raw), CARRIER[kind], shape)
        return _decoded(proto)

    def sparse(self, proto: onnx.SparseTensorProto) -> Tensor:
        """The dense tensor of a sparse one; indices are linear or one row per value.

        Raises:
            InvalidModelError: indices are outside the shape, or not in ascending order.
            UnsafeModelError: the dense tensor would be too large.
        """
        check_sparse(proto)
        check_sparse_size(proto, self.limits)
        values, indices = self(proto.values), self(proto.indices)
        assert isinstance(values, Tensor), "check_sparse raises for strings"
        assert isinstance(indices, Tensor), "check_sparse requires int64"
        shape, name = tuple(proto.dims), proto.values.name
        sizes = torch.tensor(shape if indices.ndim > 1 else [math.prod(shape)])
        if ((indices < 0) | (indices >= sizes)).any():
            raise InvalidModelError(f"sparse tensor {name!r} has an index outside its shape")
        positions = flat_positions(indices, shape)
        if (positions[1:] <= positions[:-1]).any():
            raise InvalidModelError(f"sparse tensor {name!r} has indices that are not ascending")
        try:
            dense = torch.zeros(math.prod(shape), dtype=values.dtype)
        except RuntimeError as error:
            raise UnsafeModelError(f"no memory for sparse tensor {name!r}: {error}") from error
        dense[positions] = values
        return dense.reshape(shape)

    def inline(self, proto: TensorProto) -> TensorProto:
        """A copy of a tensor with all its data inside; the tensor itself if they are.

        Raises:
            InvalidModelError: external data are missing or do not fit.
            UnsafeModelError: the location of external data is not allowed.
        """
        if proto.data_location != TensorProto.EXTERNAL:
            return self.payloads.inline(proto)
        data, where = self._data(proto)
        inside = TensorProto()
        inside.CopyFrom(proto)
        inside.ClearField("external_data")
        inside.ClearField("data_location")
        inside.raw_data = bytes(data[where.offset : where.offset + where.length])
        return inside

    def is_own(self, proto: TensorProto) -> bool:
        """Whether a tensor is read to memory of its own, because its data were cut out."""
        found = self.payloads.size(proto) is not None
        return found and self.payloads.mapped(proto, _alignment(proto.data_type)) is None

    def _payload(self, proto: TensorProto, kind: int, shape: tuple[int, ...]) -> Tensor:
        """A tensor whose data were cut out of the model."""
        if kind not in NATIVE:
            return _decoded(self.payloads.inline(proto))
        found = self.payloads.mapped(proto, _alignment(kind))
        if found is None:
            return _from_buffer(self.payloads.read(proto), CARRIER[kind], shape)
        return _from_buffer(found[0], CARRIER[kind], shape, found[1])

    @staticmethod
    def _strings(proto: TensorProto, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        strings = [s.decode("utf-8", "surrogateescape") for s in proto.string_data]
        return np.array(strings, dtype=object).reshape(shape)

    def _external(self, proto: TensorProto, kind: int, shape: tuple[int, ...]) -> Tensor:
        data, where = self._data(proto)
        if kind not in NATIVE:
            return _decoded(self.inline(proto))
        dtype = CARRIER[kind]
        if where.offset % dtype.itemsize:  # torch requires aligned elements
            part = bytes(data[where.offset : where.offset + where.length])
            return _from_buffer(_own_copy(part), dtype, shape)
        return _from_buffer(data, dtype, shape, where.offset)

    def _data(self, proto: TensorProto) -> tuple[Buffer, External]:
        """The file that has the data of a tensor, and their position in it."""
        where = external_of(proto)
        data: Buffer | None = self._maps.get(where.location)
        if data is None:
            data, where = self._opened(where, proto.name)
        if where.offset + where.length > len(data):
            found = describe(bytes(data[:HEAD_BYTES]))
            raise InvalidModelError(
                f"the external data {where.location!r} end before those of {proto.name!r}"
                + f"; the file is {found}" * bool(found)
            )
        return data, where

    def _opened(self, where: External, tensor: str) -> tuple[Buffer, External]:
        """The mapped file; or the tensor's own bytes, if enough files are mapped already."""
        location = where.location
        if self.folder is None:
            message = f"{tensor!r} is in the file {location!r}: load the model from its path"
            raise InvalidModelError(message)
        with self.folder.open(location) as file:
            self.sizes[location] = size = os.fstat(file.fileno()).st_size
            if not size:
                return b"", where
            try:
                if len(self._maps) < MAX_MAPS:
                    data = self._maps[location] = self.mapped.map(file, self.folder.path / location)
                    return data, where
                file.seek(where.offset)
                return _own_copy(file.read(where.length)), where._replace(offset=0)
            except (OSError, ValueError) as error:
                message = f"the external data {location!r} cannot be mapped: {error}"
                raise InvalidModelError(message) from error


def flat_positions(indices: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The positions of a sparse tensor's values in the flat dense tensor; int64 of shape [values].

    Args:
        indices: linear ones [values], or one row per value [values, rank].
        shape: of the dense tensor.
    """
    if indices.ndim < 2:
        return indices
    strides = [int(np.prod(shape[i + 1 :], dtype=object)) for i in range(len(shape))]
    return (indices * torch.tensor(strides)).sum(1)


def _alignment(kind: int) -> int:
    """What the address of an element must be a multiple of; types that are decoded have none."""
    return CARRIER[kind].itemsize if kind in NATIVE else 1


def _own_copy(data: bytes) -> Pages:
    """A writable copy."""
    copy = own_memory(len(data))
    copy[:] = data
    return copy


def _from_buffer(
    data: Buffer, dtype: torch.dtype, shape: tuple[int, ...], offset: int = 0
) -> Tensor:
    """The elements from an offset, without a copy."""
    count = math.prod(shape)
    if not count:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(data, dtype=dtype, count=count, offset=offset).reshape(shape)


def _decoded(proto: TensorProto) -> Tensor:
    """A tensor whose data are packed, or in a typed field."""
    check_numbers(proto)
    array = np.array(numpy_helper.to_array(proto))
    return from_array(array.reshape(-1), proto.data_type).reshape(tuple(proto.dims))


def from_array(array: np.ndarray[Any, Any], kind: int) -> Tensor:
    """A numpy array of the ONNX type `kind` as a tensor of its carrier, of the same shape.

    Arrays of numpy's own types are used directly, the others through the bytes of their carrier.
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

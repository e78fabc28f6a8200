"""From a source (path, bytes, file, ModelProto) to a parsed model that has passed every check.

    read        the one way in: parsed, its texts, tensors and nodes checked, no weight read
    complete    a copy with its external data inside, for those who change models
    content_of  the bytes alone, unparsed

Commands, edits and `OnnxModule` come through here, so that none of them meets what only a stranger
would write. What a tensor holds is checked when it is read, see `reader`.
"""

from __future__ import annotations

import copy
import mmap
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, NamedTuple, TypeAlias

import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import TensorProto

from onnxinterp.errors import InvalidModelError, UnsafeModelError
from onnxinterp.format.files import open_model
from onnxinterp.format.signatures import describe
from onnxinterp.format.tensor_checks import check_tensor, check_weights
from onnxinterp.format.tensor_reader import TensorReader
from onnxinterp.format.utf8 import check_utf8
from onnxinterp.format.wire import MAX_PROTOBUF_BYTES, Wire, messages
from onnxinterp.limits import Limits
from onnxinterp.reading.toposort import toposort
from onnxinterp.reading.validation import validate
from onnxinterp.registry import Kernel

BLOCK = 2**24  # bytes read at once from a file object
NONE: Mapping[str, Kernel] = MappingProxyType({})
Source: TypeAlias = "str | os.PathLike[str] | bytes | BinaryIO | onnx.ModelProto"
Content: TypeAlias = "bytes | mmap.mmap | Wire | None"
"""The bytes of a model; None where it came parsed."""


class Read(NamedTuple):
    """A model that was read.

    Attributes:
        proto: the model, parsed and checked.
        reader: of its tensors; it knows the folder of external data.
        content: the bytes of the model; those of a file are mapped, not held.
    """

    proto: onnx.ModelProto
    reader: TensorReader
    content: Content


def read(
    source: Source | Read,
    limits: Limits = Limits(),
    data_root: str | os.PathLike[str] | None = None,
    *,
    kernels: Mapping[str, Kernel] = NONE,
    allowed_ops: Collection[str] | None = None,
) -> Read:
    """Parse and check a model without reading its external data.

    Args:
        source: a path, bytes, a binary file, a ModelProto, or what `parse` has returned.
        limits: `model_bytes` is looked at before anything is read.
        data_root: a folder within which external data may be behind links.
        kernels: "domain::Op" (or "Op") -> kernel that takes precedence in this model.
        allowed_ops: the only operators that may be called; None allows all.

    Raises:
        InvalidModelError: the bytes are no ONNX model, or no valid one.
        UnsafeModelError: the path is a pipe or a device, or the model asks for more than `limits`,
            or for an operator that is not allowed.
        FileNotFoundError: the path does not exist.
    """
    found = source if isinstance(source, Read) else parse(source, limits, data_root)
    check_utf8(found.proto, limits)
    check_weights(found.proto, limits)
    validate(found.proto, kernels, limits, allowed_ops)
    return found


def parse(source: Source, limits: Limits, data_root: str | os.PathLike[str] | None = None) -> Read:
    """Parse a model without any further check."""
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        file, folder = open_model(path, data_root)
        with file:
            size = _size(file, limits, str(path))
            if not size:  # as files of a process claim, too
                raise InvalidModelError(f"{path} is {describe(b'')}")
            data = file.read(size + 1)  # parsed from a copy: pages of a map would stay in memory
            if len(data) != size:
                raise InvalidModelError(f"{path} has changed while it was read")
            model = _parse_bytes(data, str(path))
            del data
            return Read(model, TensorReader(folder, limits), _mapped(file))
    reader = TensorReader(None, limits)
    if isinstance(source, onnx.ModelProto):
        if not source.HasField("graph"):
            raise InvalidModelError("the ModelProto has no graph")
        return Read(source, reader, None)
    data = _read(source, limits)
    return Read(_parse_bytes(data, "the source"), reader, data)


def complete(
    source: Source,
    limits: Limits = Limits(),
    data_root: str | os.PathLike[str] | None = None,
) -> onnx.ModelProto:
    """A copy of a model that has its external data inside, all of whose tensors are checked.

    Raises:
        InvalidModelError: external data are missing or do not fit, or what `read` raises.
        UnsafeModelError: external data lie where they must not.
        FileNotFoundError: the path does not exist.
    """
    proto, reader, _ = read(source, limits, data_root)
    toposort(proto.graph.node)  # those who change models go from node to node
    model = copy.deepcopy(proto) if proto is source else proto
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
    if size > MAX_PROTOBUF_BYTES:
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
        _allowed(len(source), limits, "the source")
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


def _parse_bytes(data: bytes, what: str) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        found = describe(data)
        message = f"is {found}" if found else f"cannot be parsed as an ONNX model: {error}"
        raise InvalidModelError(f"{what} {message}") from error
    if not model.HasField("graph"):
        raise InvalidModelError(f"{what} is {describe(data) or 'a model without a graph'}")
    return model

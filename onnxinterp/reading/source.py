"""From a source (path, bytes, file, ModelProto) to a parsed and checked model.

    read         parses and checks strings, tensors and nodes; reads no weight
    parse        parses only
    complete     a copy with its external data inside, for tools that change models
    content_of   the bytes, not parsed
    serialized   the bytes of a ModelProto
    reusable     a source that can be read several times

Commands, tools and `OnnxModule` read models here, so that all of them only see checked models. The
data of a tensor are checked when they are read (`TensorReader`).
"""

from __future__ import annotations

import copy
import io
import mmap
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import TensorProto

from onnxinterp.errors import InvalidModelError, UnsafeModelError
from onnxinterp.format.available_memory import available_bytes
from onnxinterp.format.files import open_model
from onnxinterp.format.payloads import Outline, Payloads, SourceFile, is_as_written, outline
from onnxinterp.format.signatures import describe
from onnxinterp.format.tensor_checks import check_tensor, check_weights
from onnxinterp.format.tensor_reader import TensorReader
from onnxinterp.format.utf8 import check_utf8
from onnxinterp.format.wire import MAX_PROTOBUF_BYTES, Buffer, Wire, messages
from onnxinterp.limits import Limits
from onnxinterp.reading.toposort import toposort
from onnxinterp.reading.validation import validate
from onnxinterp.registry import Kernel

BLOCK_BYTES = 2**24  # read at once from a file object
MIN_MAPPED_BYTES = 2**26  # of a file that is mapped where memory is short
NO_KERNELS: Mapping[str, Kernel] = MappingProxyType({})
Source: TypeAlias = "str | os.PathLike[str] | bytes | BinaryIO | onnx.ModelProto"
Content: TypeAlias = "bytes | mmap.mmap | Wire | Outline | None"
"""The bytes of a model: of a checkpoint with holes, of a lean one outlined; None if it came parsed.
"""


class Read(NamedTuple):
    """A model that was read.

    Attributes:
        proto: the parsed model; if it is lean, without the data of large tensors.
        reader: reads its tensors; has the folder of external data, and the data of large tensors.
        content: the bytes of the model; those of a file are mapped.
    """

    proto: onnx.ModelProto
    reader: TensorReader
    content: Content


REWRITES: dict[str, Callable[..., onnx.ModelProto]] = {}
"""Argument of `OnnxModule` -> what makes another model of a source; packages above set it."""


def rewritten(how: str, source: Source | Read, argument: Any, **options: Any) -> Source | Read:
    """Another model in place of a source, where the argument is given."""
    return source if argument is None else REWRITES[how](source, argument, **options)


def read(
    source: Source | Read,
    limits: Limits = Limits(),
    data_root: str | os.PathLike[str] | None = None,
    *,
    kernels: Mapping[str, Kernel] = NO_KERNELS,
    allowed_ops: Collection[str] | None = None,
    lean: bool = False,
) -> Read:
    """Parse and check a model without reading its external data.

    Args:
        source: a path, bytes, a binary file, a ModelProto, or what `parse` has returned.
        limits: `model_bytes` is checked before the file is read.
        data_root: a folder within which external data may be links.
        kernels: "domain::Op" (or "Op") -> kernel that takes precedence in this model.
        allowed_ops: the only operators that may be called; None allows all.
        lean: as for `parse`.

    Raises:
        InvalidModelError: the bytes are not an ONNX model, or not a valid one.
        UnsafeModelError: the path is a pipe or a device, or the model exceeds `limits`, or uses an
            operator that is not allowed.
        FileNotFoundError: the path does not exist.
    """
    found = source if isinstance(source, Read) else parse(source, limits, data_root, lean)
    check_utf8(found.proto, limits)
    check_weights(found.proto, limits)
    validate(found.proto, kernels, limits, allowed_ops)
    return found


def parse(
    source: Source,
    limits: Limits,
    data_root: str | os.PathLike[str] | None = None,
    lean: bool = False,
) -> Read:
    """Parse a model without any further check.

    Args:
        source: a path, bytes, a binary file or a ModelProto.
        limits: `model_bytes` is checked before the file is read.
        data_root: a folder within which external data may be links.
        lean: whether large tensors are parsed without their data, where these are bytes: then only
            the reader has them, until `reader.payloads` are closed.
    """
    if isinstance(source, (str, os.PathLike)):
        return _parse_file(Path(source), limits, data_root, lean)
    reader = TensorReader(None, limits)
    if isinstance(source, onnx.ModelProto):
        if not source.HasField("graph"):
            raise InvalidModelError("the ModelProto has no graph")
        return Read(source, reader, None)
    data = _read(source, limits)
    if lean and (found := _parse_lean(data, reader, data)) is not None:
        return found
    return Read(_parse_bytes(data, "the source"), reader, data)


def _parse_file(
    path: Path, limits: Limits, data_root: str | os.PathLike[str] | None, lean: bool
) -> Read:
    file, folder = open_model(path, data_root)
    with file:
        size = _size(file, limits, str(path))
        if not size:  # files in /proc, too
            raise InvalidModelError(f"{path} is {describe(b'')}")
        reader, pages = TensorReader(folder, limits), _mapped(file)
        if lean:
            own = reader.mapped.map(file, path) if is_large(size) else None
            found = _parse_lean(pages, reader, SourceFile(file, str(path)), own)
            if found is not None:
                return found
        data = file.read(size + 1)  # a copy: parsed pages of a map would stay in memory
        if len(data) != size:
            raise InvalidModelError(f"{path} was changed while it was read")
        return Read(_parse_bytes(data, str(path)), reader, pages)


def is_large(size: int) -> bool:
    """Whether a file is mapped, because a copy of it would take more than half of the memory."""
    if size < MIN_MAPPED_BYTES:
        return False
    available = available_bytes()
    return available is not None and size > available // 2


def _parse_lean(
    data: Buffer,
    reader: TensorReader,
    source: SourceFile | bytes,
    pages: mmap.mmap | None = None,
) -> Read | None:
    """Parse a model without the data of its large tensors; None if that is not possible.

    Args:
        data: its bytes.
        reader: for its tensors.
        source: where their data are read from.
        pages: the file, mapped, if they are to stay in it.
    """
    found = outline(data)
    if found is None:
        return None
    model, marked = onnx.ModelProto(), found.marked()
    try:
        model.ParseFromString(marked)
    except DecodeError:
        return None
    if not model.HasField("graph") or not is_as_written(model, marked, found.wire):
        return None
    tensors = found.find(model)
    if tensors is None:
        return None
    reader.payloads = Payloads(tensors, source, pages)
    return Read(model, reader, found)


def complete(
    source: Source,
    limits: Limits = Limits(),
    data_root: str | os.PathLike[str] | None = None,
) -> onnx.ModelProto:
    """A copy of a model with its external data inside; the data of all tensors are checked.

    Raises:
        InvalidModelError: external data are missing or do not fit; or the model is invalid.
        UnsafeModelError: the location of external data is not allowed.
        FileNotFoundError: the path does not exist.
    """
    proto, reader, _ = read(source, limits, data_root)
    toposort(proto.graph.node)  # raises for a cycle
    model = copy.deepcopy(proto) if proto is source else proto
    for _, message in messages(model):
        if isinstance(message, TensorProto):
            message.CopyFrom(reader.inline(message))
            check_tensor(message)
    return model


def content_of(source: Source) -> bytes | mmap.mmap:
    """The bytes of a model, not parsed; those of a file are mapped."""
    if isinstance(source, onnx.ModelProto):
        return serialized(source)
    if isinstance(source, (str, os.PathLike)):
        with open_model(Path(source))[0] as file:
            return _mapped(file) if _size(file, Limits(), str(source)) else b""
    return _read(source, Limits())


def serialized(model: onnx.ModelProto) -> bytes:
    """The bytes of a parsed model.

    Raises:
        InvalidModelError: they would be more than 2 GiB.
    """
    try:
        data: bytes = model.SerializeToString()
    except (ValueError, EncodeError) as error:
        raise InvalidModelError(f"the ModelProto cannot be serialized: {error}") from error
    return data


def reusable(source: Source) -> Source:
    """A source that can be read several times: a file object becomes its bytes."""
    if isinstance(source, (str, os.PathLike, bytes, onnx.ModelProto)):
        return source
    return _read(source, Limits())


def _size(file: BinaryIO, limits: Limits, what: str) -> int:
    return _check_size(os.fstat(file.fileno()).st_size, limits, what)


def _check_size(size: int, limits: Limits, what: str) -> int:
    """The size of a model in bytes, after a check."""
    if limits.model_bytes is not None and size > limits.model_bytes:
        raise UnsafeModelError(
            f"{what} has more than {limits.model_bytes} bytes, which limits.model_bytes allows"
        )
    if size > MAX_PROTOBUF_BYTES:
        raise InvalidModelError(f"{what} has {size} bytes; the limit of protobuf is 2 GiB")
    return size


def _mapped(file: BinaryIO) -> mmap.mmap:
    """The mapped bytes of a file, which must not be empty."""
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # the file system has no maps; the file is empty by now
        raise InvalidModelError(f"{file.name!r} cannot be mapped: {error}") from error


def _read(source: bytes | BinaryIO, limits: Limits) -> bytes:
    """The bytes of a source; reading stops soon after the allowed size."""
    if isinstance(source, bytes):
        _check_size(len(source), limits, "the source")
        return source
    if not hasattr(source, "read"):
        kind = type(source)
        raise TypeError(f"a model must be a path, bytes, binary file or ModelProto, got {kind}")
    data = io.BytesIO()  # it grows in place, and returns its bytes without a copy
    while part := source.read(BLOCK_BYTES):
        if not isinstance(part, bytes):
            raise TypeError(f"a model file must be binary, got one of {type(part)}")
        _check_size(data.tell() + len(part), limits, "the file")
        data.write(part)
    return data.getvalue()


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

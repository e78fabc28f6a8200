"""Checks of the tensors that a file declares, before any memory is allocated for them.

    check_tensor        a TensorProto: type, shape, the field of its data and their number
    check_numbers       the elements in a typed field
    check_sparse        a SparseTensorProto, except the values of its indices
    check_sparse_size   how large a sparse tensor becomes
    check_weights       all tensors of a model together, against the limits
    external_of         where external data are: location, offset, length

Sizes are Python integers, which do not overflow. A size of 0 makes a tensor empty; torch must still
be able to compute with the other sizes. The `checksum` of external data is ignored: it covers the
whole file, which is only mapped, not read.
"""

from __future__ import annotations

import math
import re
from operator import attrgetter
from typing import NamedTuple

import onnx
from onnx import SparseTensorProto, TensorProto, helper

from onnxinterp.dtypes import CARRIER, NATIVE, STRING, onnx_name
from onnxinterp.errors import InvalidModelError, UnsafeModelError
from onnxinterp.format.fields import TYPED_FIELDS
from onnxinterp.format.files import parts_of
from onnxinterp.format.wire import messages
from onnxinterp.limits import GIB, Limits

MAX_RANK = 64  # dimensions that torch's kernels take
MAX_TENSOR_BYTES = 2**63 - 1
MAX_SPARSE_BYTES = 4 * GIB  # of a sparse tensor made dense, where no limit on weights is set
_read_typed = attrgetter(*TYPED_FIELDS)
IS_DECIMAL = re.compile("[0-9]{1,19}").fullmatch
BITS: dict[int, int] = {kind: 8 * CARRIER[kind].itemsize for kind in NATIVE} | {
    kind: int(name.lstrip("FLOATUIN")[0])
    for name, kind in TensorProto.DataType.items()
    if kind in CARRIER and kind not in NATIVE
}
"""Type -> bits of an element in raw data."""
RANGE: dict[int, tuple[int, int]] = {
    kind: (-(2 ** (max(bits, 8) - 1)), 2 ** max(bits, 8) - 1)  # some writers use signed bytes
    for kind, bits in BITS.items()
    if bits < 32
} | {
    TensorProto.INT8: (-(2**7), 2**7 - 1),
    TensorProto.UINT8: (0, 2**8 - 1),
    TensorProto.INT16: (-(2**15), 2**15 - 1),
    TensorProto.UINT16: (0, 2**16 - 1),
    TensorProto.UINT32: (0, 2**32 - 1),
}
"""Type -> least and largest number in a typed field, where the field can store more."""
RANGE |= {kind: (0, 2**6 - 1) for kind, bits in BITS.items() if bits == 6}
COMPLEX = (TensorProto.COMPLEX64, TensorProto.COMPLEX128)


class External(NamedTuple):
    """Where external data are.

    Attributes:
        location: the file, in one spelling.
        offset: the first byte in the file.
        length: the number of bytes.
    """

    location: str
    offset: int
    length: int


def check_tensor(proto: TensorProto, raw_size: int | None = None) -> None:
    """Check that the data of a tensor are what its type and shape need.

    Args:
        proto: the tensor.
        raw_size: the bytes of its raw data, if the caller knows: protobuf copies them at each
            access, or does not have them (`payloads`).

    Raises:
        InvalidModelError: they are not; the message says which number is wrong.
        UnsafeModelError: the location of external data is not allowed.
    """
    if proto.data_location == TensorProto.EXTERNAL:
        external_of(proto)
        return
    dense_bytes(proto)
    kind, count = proto.data_type, math.prod(proto.dims)
    field, needed = helper.tensor_dtype_to_field(kind), _entry_count(kind, count)
    if proto.HasField("raw_data"):
        if kind == STRING:
            raise _invalid(proto, "strings cannot be raw data")
        field, needed = "raw_data", raw_bytes(kind, count)
    counts = _data_counts(proto, raw_size)
    found = counts.pop(field, 0)
    if counts:
        raise _invalid(proto, f"its data must be in {field}, got {', '.join(sorted(counts))}")
    if found != needed:
        raise _invalid(proto, f"{field} must have {needed} entries, got {found}")


def check_numbers(proto: TensorProto) -> None:
    """Check that the numbers in a typed field fit the type; for floats they are the bits.

    Raises:
        InvalidModelError: one does not.
    """
    kind = proto.data_type
    if proto.HasField("raw_data") or kind not in RANGE:
        return
    numbers = getattr(proto, helper.tensor_dtype_to_field(kind))
    low, high = RANGE[kind]
    if len(numbers) and (min(numbers) < low or max(numbers) > high):
        raise _invalid(proto, f"its numbers must be from {low} to {high}")


def check_sparse(proto: SparseTensorProto) -> None:
    """Check that the parts of a sparse tensor fit each other.

    The values of the indices are checked when they are read (`TensorReader.sparse`).

    Raises:
        InvalidModelError: they do not; the message says which number is wrong.
    """
    values, indices, name = proto.values, proto.indices, proto.values.name
    for part in (values, indices):
        check_tensor(part)
    if values.data_type == STRING:
        raise InvalidModelError(f"sparse tensor {name!r} must have numbers, got strings")
    if indices.data_type != TensorProto.INT64:
        raise InvalidModelError(f"the indices of sparse tensor {name!r} must be int64")
    dense_bytes(proto)
    stored, rank = list(values.dims), len(proto.dims)
    if len(stored) != 1 or list(indices.dims) not in (stored, [*stored, rank]):
        sizes = f"values {stored} and indices {list(indices.dims)}"
        raise InvalidModelError(f"sparse tensor {name!r} of rank {rank} has {sizes}")


def check_weights(model: onnx.ModelProto, limits: Limits) -> None:
    """Check what all tensors of a model declare, and their bytes in total.

    Raises:
        InvalidModelError: a type, a shape or a location of external data is invalid.
        UnsafeModelError: all tensors together, dense, have more than `limits.weight_bytes`.
    """
    total = 0
    for _, message in messages(model):
        if isinstance(message, SparseTensorProto):
            check_sparse_size(message, limits)
            total += dense_bytes(message)
        elif isinstance(message, TensorProto):
            if message.data_location == TensorProto.EXTERNAL:
                external_of(message)
            total += dense_bytes(message)
    if limits.weight_bytes is not None and total > limits.weight_bytes:
        raise UnsafeModelError(
            f"the tensors have {total} bytes; limits.weight_bytes allows {limits.weight_bytes}"
        )


def check_sparse_size(proto: SparseTensorProto, limits: Limits) -> None:
    """Check how large a sparse tensor becomes.

    Raises:
        UnsafeModelError: larger than `limits.weight_bytes`, or than 4 GiB where that is None.
    """
    size = dense_bytes(proto)
    most = MAX_SPARSE_BYTES if limits.weight_bytes is None else limits.weight_bytes
    if size > most:
        raise UnsafeModelError(
            f"sparse tensor {proto.values.name!r} becomes {size} bytes; limits.weight_bytes allows "
            f"{most}"
        )


def dense_bytes(proto: TensorProto | SparseTensorProto) -> int:
    """The bytes that a tensor needs in torch; for strings, those of the references to them.

    Raises:
        InvalidModelError: its type is unknown, or its shape is impossible.
    """
    header = proto if isinstance(proto, TensorProto) else proto.values
    kind = header.data_type
    shape: tuple[int, ...] = tuple(proto.dims)
    if kind not in CARRIER and kind != STRING:
        raise InvalidModelError(f"tensor {header.name!r} has the unknown type {onnx_name(kind)}")
    size = 8 if kind == STRING else CARRIER[kind].itemsize
    if len(shape) > MAX_RANK:
        what = f"tensor {header.name!r} has {len(shape)} dimensions"
        raise InvalidModelError(f"{what}, over {MAX_RANK}")
    least, count = min(shape, default=1), math.prod(shape)
    spread = count if least else math.prod(max(n, 1) for n in shape)  # torch multiplies these, too
    if least < 0 or spread * size > MAX_TENSOR_BYTES:
        raise InvalidModelError(f"tensor {header.name!r} has the shape {list(shape)}")
    if header.HasField("segment"):
        raise InvalidModelError(f"tensor {header.name!r} is a segment, which is not allowed")
    return count * size


def raw_bytes(kind: int, count: int) -> int:
    """The number of bytes of raw and external data; 0 for strings."""
    return (count * BITS.get(kind, 0) + 7) // 8


def _entry_count(kind: int, count: int) -> int:
    """The number of entries of a typed field for a number of elements."""
    if kind in COMPLEX:
        return 2 * count
    packed = 8 // BITS.get(kind, 8) or 1  # 4- and 2-bit elements share a number, 6-bit ones do not
    return (count + packed - 1) // packed


def external_of(proto: TensorProto) -> External:
    """Where the external data of a tensor are.

    Unknown keys are ignored. A key must not come twice: readers disagree which one counts.

    Raises:
        InvalidModelError: an offset or length is not a number, or does not fit type and shape.
        UnsafeModelError: the location is not within the folder.
    """
    dense_bytes(proto)
    entries: dict[object, object] = {}
    for entry in proto.external_data:
        if entry.key in entries:
            raise _invalid(proto, f"its external data have two entries {entry.key!r}")
        entries[entry.key] = entry.value
    needed = raw_bytes(proto.data_type, math.prod(proto.dims))
    offset = _decimal(proto, entries, "offset", 0)
    length = _decimal(proto, entries, "length", needed)
    if proto.data_type == STRING:
        raise _invalid(proto, "strings cannot be external data")
    if length != needed:
        raise _invalid(proto, f"its external data must have {needed} bytes, got {length}")
    if counts := _data_counts(proto):
        raise _invalid(proto, f"it has external data and {', '.join(sorted(counts))}")
    return External("/".join(parts_of(entries.get("location", ""))), offset, length)


def _data_counts(proto: TensorProto, raw_size: int | None = None) -> dict[str, int]:
    """The fields that have data -> number of entries."""
    typed = zip(TYPED_FIELDS, _read_typed(proto), strict=True)
    counts = {field: len(entries) for field, entries in typed if entries}
    if proto.HasField("raw_data"):
        size = len(proto.raw_data) if raw_size is None else raw_size
        if size:
            counts["raw_data"] = size
    return counts


def _decimal(proto: TensorProto, entries: dict[object, object], key: str, default: int) -> int:
    value = entries.get(key)
    if value is None:
        return default
    if not isinstance(value, str) or not IS_DECIMAL(value) or int(value) > MAX_TENSOR_BYTES:
        what = f"{key} of its external data must be a number of bytes"
        raise _invalid(proto, f"{what}, got {value!r}")
    return int(value)


def _invalid(proto: TensorProto, what: str) -> InvalidModelError:
    shape, kind = list(proto.dims), onnx_name(proto.data_type)
    return InvalidModelError(f"tensor {proto.name!r} of type {kind} and shape {shape}: {what}")

"""What a file says of its tensors, checked by its numbers before any memory is asked for.

    check_tensor     a TensorProto: type, shape, and as many data as they need, in the right field
    check_sparse     a SparseTensorProto but for the values of its indices
    check_weights    all tensors of a model together, against the limits
    external_of      where external data lie: location, offset, length

Numbers are Python's, which do not overflow. A size of 0 makes a tensor empty; the other sizes still
have to be such that torch can count with them. `checksum` of external data is not looked at: it is
of the whole file, which would have to be read where now it is only mapped.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import onnx
from onnx import SparseTensorProto, TensorProto

from onnxinterp.dtypes import CARRIER, NATIVE, STRING, onnx_name
from onnxinterp.errors import InvalidModelError, UnsafeModelError
from onnxinterp.format.files import parts_of
from onnxinterp.format.wire import messages
from onnxinterp.limits import GIB, Limits

RANK = 64  # dimensions that torch's kernels take
MAX_TENSOR_BYTES = 2**63 - 1  # bytes of a tensor
DECIMAL = re.compile("[0-9]{1,19}").fullmatch
SPREAD = 4 * GIB  # bytes that a sparse tensor may become where no limit on weights is set
DATA = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
FIELD: dict[int, str] = {
    STRING: "string_data",
    TensorProto.FLOAT: "float_data",
    TensorProto.COMPLEX64: "float_data",
    TensorProto.INT64: "int64_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.COMPLEX128: "double_data",
    TensorProto.UINT32: "uint64_data",
    TensorProto.UINT64: "uint64_data",
}
"""Type -> its field, where that is another than `int32_data`."""
BITS: dict[int, int] = {kind: 8 * CARRIER[kind].itemsize for kind in NATIVE} | {
    kind: int(name.lstrip("FLOATUIN")[0])
    for name, kind in TensorProto.DataType.items()
    if kind in CARRIER and kind not in NATIVE
}
"""Type -> bits of an element in raw data."""
RANGE: dict[int, tuple[int, int]] = {
    kind: (-(2 ** (max(bits, 8) - 1)), 2 ** max(bits, 8) - 1)  # writers sign bits, or do not
    for kind, bits in BITS.items()
    if bits < 32
} | {
    TensorProto.INT8: (-(2**7), 2**7 - 1),
    TensorProto.UINT8: (0, 2**8 - 1),
    TensorProto.INT16: (-(2**15), 2**15 - 1),
    TensorProto.UINT16: (0, 2**16 - 1),
    TensorProto.UINT32: (0, 2**32 - 1),
}
"""Type -> what numbers of a typed field may be, where the field holds more than the type."""
RANGE |= {kind: (0, 2**6 - 1) for kind, bits in BITS.items() if bits == 6}
COMPLEX = (TensorProto.COMPLEX64, TensorProto.COMPLEX128)


class External(NamedTuple):
    """Where external data lie.

    Attributes:
        location: the file, in one spelling.
        offset: where in it they start.
        length: how many bytes they are.
    """

    location: str
    offset: int
    length: int


def check_tensor(proto: TensorProto, raw: bytes | None = None) -> None:
    """Refuse a tensor whose data are not what its type and shape need.

    Args:
        proto: the tensor.
        raw: its `raw_data`, from a caller that has them: protobuf copies them at each access.

    Raises:
        InvalidModelError: the message says which number is wrong.
        UnsafeModelError: external data lie where they must not.
    """
    if proto.data_location == TensorProto.EXTERNAL:
        external_of(proto)
        return
    dense_bytes(proto)
    kind, count = proto.data_type, math.prod(proto.dims)
    field, needed = FIELD.get(kind, "int32_data"), _entries(kind, count)
    if proto.HasField("raw_data"):
        if kind == STRING:
            raise _wrong(proto, "strings cannot be raw data")
        field, needed = "raw_data", raw_bytes(kind, count)
    given = _given(proto, raw)
    found = given.pop(field, 0)
    if given:
        raise _wrong(proto, f"it has {', '.join(sorted(given))} where {field} is expected")
    if found != needed:
        raise _wrong(proto, f"{field} has {found} entries where {needed} are needed")


def check_numbers(proto: TensorProto) -> None:
    """Refuse numbers in a typed field that are beyond the type; of floats they are the bits.

    Raises:
        InvalidModelError: there is one.
    """
    kind = proto.data_type
    if proto.HasField("raw_data") or kind not in RANGE:
        return
    numbers = getattr(proto, FIELD.get(kind, "int32_data"))
    low, high = RANGE[kind]
    if len(numbers) and (min(numbers) < low or max(numbers) > high):
        raise _wrong(proto, f"it has numbers beyond {low} to {high}")


def check_sparse(proto: SparseTensorProto) -> None:
    """Refuse a sparse tensor whose parts do not fit each other.

    That indices are in range, ascending and without duplicates is seen when they are read.

    Raises:
        InvalidModelError: the message says which number is wrong.
    """
    values, indices, name = proto.values, proto.indices, proto.values.name
    for part in (values, indices):
        check_tensor(part)
    if values.data_type == STRING:
        raise InvalidModelError(f"sparse tensor {name!r} holds strings")
    if indices.data_type != TensorProto.INT64:
        raise InvalidModelError(f"sparse tensor {name!r} has indices that are no int64")
    dense_bytes(proto)
    stored, rank = list(values.dims), len(proto.dims)
    if len(stored) != 1 or list(indices.dims) not in (stored, [*stored, rank]):
        sizes = f"values {stored} and indices {list(indices.dims)}"
        raise InvalidModelError(f"sparse tensor {name!r} of rank {rank} has {sizes}")


def check_weights(model: onnx.ModelProto, limits: Limits) -> None:
    """Refuse what no tensor may declare, wherever in the model it is, and too many bytes in all.

    Raises:
        InvalidModelError: a type or a shape is none; external data are named wrongly.
        UnsafeModelError: all tensors together, dense, are more than `limits.weight_bytes`.
    """
    total = 0
    for _, message in messages(model):
        if isinstance(message, SparseTensorProto):
            check_spread(message, limits)
            total += dense_bytes(message)
        elif isinstance(message, TensorProto):
            if message.data_location == TensorProto.EXTERNAL:
                external_of(message)
            total += dense_bytes(message)
    if limits.weight_bytes is not None and total > limits.weight_bytes:
        raise UnsafeModelError(
            f"the tensors have {total} bytes; limits.weight_bytes allows {limits.weight_bytes}"
        )


def check_spread(proto: SparseTensorProto, limits: Limits) -> None:
    """Refuse a sparse tensor that means too large a dense one.

    Raises:
        UnsafeModelError: it is more than `limits.weight_bytes`, or than 4 GiB where that is None.
    """
    size = dense_bytes(proto)
    most = SPREAD if limits.weight_bytes is None else limits.weight_bytes
    if size > most:
        raise UnsafeModelError(
            f"sparse tensor {proto.values.name!r} means {size} bytes; {most} are allowed, which "
            "limits.weight_bytes sets"
        )


def dense_bytes(proto: TensorProto | SparseTensorProto) -> int:
    """The bytes a tensor has in torch; of strings, those of the references to them.

    Raises:
        InvalidModelError: its type is unknown, or a shape no tensor can have.
    """
    header = proto if isinstance(proto, TensorProto) else proto.values
    kind = header.data_type
    shape: tuple[int, ...] = tuple(proto.dims)
    if kind not in CARRIER and kind != STRING:
        raise InvalidModelError(f"tensor {header.name!r} has the unknown type {onnx_name(kind)}")
    size = 8 if kind == STRING else CARRIER[kind].itemsize
    if len(shape) > RANK:
        raise InvalidModelError(f"tensor {header.name!r} has {len(shape)} dimensions, over {RANK}")
    least, count = min(shape, default=1), math.prod(shape)
    spread = count if least else math.prod(max(n, 1) for n in shape)  # torch counts with these, too
    if least < 0 or spread * size > MAX_TENSOR_BYTES:
        raise InvalidModelError(f"tensor {header.name!r} has the shape {list(shape)}")
    if header.HasField("segment"):
        raise InvalidModelError(f"tensor {header.name!r} is a segment of one, which none may be")
    return count * size


def raw_bytes(kind: int, count: int) -> int:
    """How many bytes raw and external data of so many elements have; 0 for strings."""
    return (count * BITS.get(kind, 0) + 7) // 8


def _entries(kind: int, count: int) -> int:
    """How many numbers the field of a type has for so many elements."""
    if kind in COMPLEX:
        return 2 * count
    packed = 8 // BITS.get(kind, 8) or 1  # 4- and 2-bit elements share a number, 6-bit ones do not
    return (count + packed - 1) // packed


def external_of(proto: TensorProto) -> External:
    """Where the external data of a tensor lie.

    Unknown keys are for others to know. A key given twice is refused: readers disagree which holds.

    Raises:
        InvalidModelError: an offset or length is no decimal number, or does not fit type and shape.
        UnsafeModelError: the location is none within the folder.
    """
    dense_bytes(proto)
    entries: dict[object, object] = {}
    for entry in proto.external_data:
        if entry.key in entries:
            raise _wrong(proto, f"its external data have two entries {entry.key!r}")
        entries[entry.key] = entry.value
    needed = raw_bytes(proto.data_type, math.prod(proto.dims))
    offset = _decimal(proto, entries, "offset", 0)
    length = _decimal(proto, entries, "length", needed)
    if proto.data_type == STRING:
        raise _wrong(proto, "strings cannot be external data")
    if length != needed:
        raise _wrong(proto, f"its external data have {length} bytes where {needed} are needed")
    if given := _given(proto):
        raise _wrong(proto, f"it has external data and {', '.join(sorted(given))}")
    return External("/".join(parts_of(entries.get("location", ""))), offset, length)


def _given(proto: TensorProto, raw: bytes | None = None) -> dict[str, int]:
    """The fields that hold data -> how many entries."""
    given = {field: size for field in DATA if (size := len(getattr(proto, field)))}
    if proto.HasField("raw_data") and (size := len(proto.raw_data if raw is None else raw)):
        given["raw_data"] = size
    return given


def _decimal(proto: TensorProto, entries: dict[object, object], key: str, default: int) -> int:
    text = entries.get(key)
    if text is None:
        return default
    if not isinstance(text, str) or not DECIMAL(text) or int(text) > MAX_TENSOR_BYTES:
        raise _wrong(proto, f"{key} of its external data is {text!r}, no number of bytes")
    return int(text)


def _wrong(proto: TensorProto, what: str) -> InvalidModelError:
    shape = list(proto.dims)
    kind = onnx_name(proto.data_type)
    return InvalidModelError(f"tensor {proto.name!r} of type {kind} and shape {shape}: {what}")

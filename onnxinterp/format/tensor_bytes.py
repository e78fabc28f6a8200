"""From a tensor to its bytes in an ONNX file, in the type of the file.

    check_weight   whether a tensor fits an ONNX type and a shape
    same_class     whether two dtypes differ in nothing but precision
    raw_parts      the bytes of `raw_data` and of external data
    typed_parts    the bytes of a packed `float_data`, `int32_data`, ...
    same_bits      whether two tensors have the same bits in an ONNX type

Bytes come in parts: views of the tensor where the types agree, otherwise some megabytes each.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from onnxinterp.dtypes import CARRIER, NARROW, NATIVE, onnx_name
from onnxinterp.errors import SaveError
from onnxinterp.format.wire import Buffer

PART_ELEMENTS = 2**18
PACKED_AS_RAW = frozenset(
    {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.COMPLEX64, TensorProto.COMPLEX128}
)
"""Types whose packed fields have the same bytes as raw data."""
INTEGERS = {TensorProto.BOOL}.union(
    TensorProto.DataType.Value(f"{sign}INT{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)
)
"""Types whose packed fields contain the numbers; the fields of other types contain their bits."""
SIX_BITS = {n for name, n in TensorProto.DataType.items() if name.startswith("FLOAT6")}
"""Types that are packed in raw data only; 4- and 2-bit types are packed in the field, too."""


def check_weight(value: Tensor, kind: int, shape: tuple[int, ...], name: str) -> None:
    """Check that a value fits a tensor of an ONNX type and a shape.

    Raises:
        SaveError: another shape, another class of type, or no data at all.
    """
    if tuple(value.shape) != shape:
        sizes = f"{list(shape)}, got {list(value.shape)}"
        raise SaveError(f"the weight {name!r} must have the shape {sizes}")
    if not same_class(value.dtype, CARRIER[kind]):
        raise SaveError(f"the weight {name!r} must be {onnx_name(kind)}, got {value.dtype}")
    if value.is_meta:
        raise SaveError(f"the weight {name!r} is on the meta device: it has no data")


def same_class(a: torch.dtype, b: torch.dtype) -> bool:
    """Whether both types are floating, or both complex, or the same."""
    floating = a.is_floating_point and b.is_floating_point
    return floating or (a.is_complex and b.is_complex) or a == b


def convert(part: Tensor, kind: int, name: str) -> Tensor:
    """A tensor on the CPU, contiguous, in the carrier of an ONNX type.

    Raises:
        SaveError: a finite number is too large for the type.
    """
    part = part.cpu()
    if part.dtype is CARRIER[kind]:
        return part.contiguous()
    cast = part.to(CARRIER[kind])
    wide = torch.complex128 if part.is_complex() else torch.float64
    lost = part.to(wide).isfinite() & ~cast.to(wide).isfinite()
    if lost.any():
        number = part[lost][0].item()
        raise SaveError(f"the weight {name!r} has {number}, too large for {onnx_name(kind)}")
    return cast.contiguous()


def raw_parts(value: Tensor, kind: int, name: str) -> Iterator[Buffer]:
    """The bytes of a tensor as `raw_data` of an ONNX type.

    Args:
        value: a tensor of any shape and device.
        kind: the number of the ONNX type.
        name: of the weight, for messages.

    Raises:
        SaveError: a number is beyond the range of the type.
    """
    for flat in _parts(value, kind, name):
        if kind in NARROW:
            packed: bytes = numpy_helper.from_array(_narrow(flat, kind, name)).raw_data
            yield packed
        else:
            yield memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]  # is one


def raw_size(value: Tensor, kind: int, name: str) -> int:
    """The number of bytes of `raw_parts`."""
    if kind in NATIVE:
        return value.numel() * CARRIER[kind].itemsize
    return sum(len(part) for part in raw_parts(value, kind, name))


def _parts(value: Tensor, kind: int, name: str) -> Iterator[Tensor]:
    flat = value.detach().reshape(-1)
    for start in range(0, flat.numel(), PART_ELEMENTS):
        yield convert(flat[start : start + PART_ELEMENTS], kind, name)


def _narrow(flat: Tensor, kind: int, name: str) -> np.ndarray[Any, Any]:
    """A carrier as an array of the narrower type, a byte for each element."""
    array: np.ndarray[Any, Any] = flat.numpy()
    narrow: np.ndarray[Any, Any] = array.astype(helper.tensor_dtype_to_np_dtype(kind))
    if array.dtype.kind != "f" and (narrow.astype(array.dtype) != array).any():
        raise SaveError(f"the weight {name!r} has numbers beyond the range of {onnx_name(kind)}")
    return narrow


def typed_parts(value: Tensor, kind: int, name: str) -> Iterator[Buffer]:
    """The bytes of a tensor in the packed field of an ONNX type; the arguments are as above.

    Integers are varints, negative ones of 64 bits; so are the bits of float16, bfloat16 and smaller
    types.
    """
    if kind in PACKED_AS_RAW:
        yield from raw_parts(value, kind, name)
    elif kind in INTEGERS:
        for flat in _parts(value, kind, name):
            array = flat.numpy()
            yield varints(array.astype(np.uint64 if array.dtype == np.uint64 else np.int64))
    elif kind in SIX_BITS:
        for flat in _parts(value, kind, name):
            yield varints(_narrow(flat, kind, name).view(np.uint8).astype(np.int64))
    else:
        bits = np.dtype(f"<u{CARRIER[kind].itemsize}") if kind in NATIVE else np.dtype("u1")
        for part in raw_parts(value, kind, name):
            yield varints(np.frombuffer(part, bits).astype(np.int64))


def varints(numbers: np.ndarray[Any, Any]) -> bytes:
    """Varints, one after the other.

    Args:
        numbers: int64 or uint64 of shape [n].
    """
    shifts = np.arange(10, dtype=np.uint64) * np.uint64(7)
    rest = numbers.view(np.uint64)[:, None] >> shifts  # [n, 10]: the rest of each after n bytes
    used = rest > 0
    used[:, 0] = True
    out = (rest & np.uint64(127)).astype(np.uint8)
    out[:, :-1] |= used[:, 1:].astype(np.uint8) << 7  # bit 7: another byte follows
    data: bytes = out[used].tobytes()
    return data


def same_bits(value: Tensor, before: Tensor, kind: int, name: str) -> bool:
    """Whether two tensors have the same bits in an ONNX type; raises as `raw_parts` does."""
    parts = (raw_parts(tensor, kind, name) for tensor in (value, before))
    return all(x == y for x, y in zip_longest(*parts))

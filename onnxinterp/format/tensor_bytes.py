"""From a tensor to the bytes that an ONNX file has of it, in the file's own type.

    raw      the bytes of `raw_data` and of external data
    typed    the bytes of a packed `float_data`, `int32_data`, ...
    same     whether two tensors have the same bits in a type of the file

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

ELEMENTS = 2**18  # of one part
PACKED_AS_RAW = frozenset(
    {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.COMPLEX64, TensorProto.COMPLEX128}
)
"""Types whose packed fields have the bytes of raw data."""
INTEGERS = {TensorProto.BOOL}.union(
    TensorProto.DataType.Value(f"{sign}INT{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)
)
"""Types whose packed fields hold the numbers themselves; those of the others hold their bits."""
SIX_BITS = {n for name, n in TensorProto.DataType.items() if name.startswith("FLOAT6")}
"""Types that raw data pack, and the field does not; 4- and 2-bit types are packed in both."""


def check_weight(value: Tensor, kind: int, shape: tuple[int, ...], name: str) -> None:
    """Refuse a value that has no place in a tensor of an ONNX type and a shape.

    Raises:
        SaveError: another shape, another class of type, or no data at all.
    """
    if tuple(value.shape) != shape:
        sizes = f"{list(value.shape)}, in the file {list(shape)}"
        raise SaveError(f"the weight {name!r} has the shape {sizes}")
    carrier = CARRIER[kind]
    ours, files = [(d.is_floating_point, d.is_complex) for d in (value.dtype, carrier)]
    if ours != files or (not any(ours) and value.dtype is not carrier):
        raise SaveError(f"the weight {name!r} is {value.dtype}, in the file {onnx_name(kind)}")
    if value.is_meta:
        raise SaveError(f"the weight {name!r} is on the meta device: it has no data")


def converted(part: Tensor, kind: int, name: str) -> Tensor:
    """A tensor on the CPU, contiguous, in the carrier of an ONNX type.

    Raises:
        SaveError: a finite number is beyond what the type holds.
    """
    part = part.cpu()
    if part.dtype is CARRIER[kind]:
        return part.contiguous()
    cast = part.to(CARRIER[kind])
    wide = torch.complex128 if part.is_complex() else torch.float64
    lost = part.to(wide).isfinite() & ~cast.to(wide).isfinite()
    if lost.any():
        number = part[lost][0].item()
        raise SaveError(f"the weight {name!r} holds {number}, too large for {onnx_name(kind)}")
    return cast.contiguous()


def raw(value: Tensor, kind: int, name: str) -> Iterator[Buffer]:
    """The bytes of a tensor as `raw_data` of an ONNX type has them.

    Args:
        value: a tensor of any shape and device.
        kind: the number of the ONNX type.
        name: of the weight, for messages.

    Raises:
        SaveError: a number is beyond what the type holds.
    """
    for flat in _parts(value, kind, name):
        if kind in NARROW:
            packed: bytes = numpy_helper.from_array(_narrow(flat, kind, name)).raw_data
            yield packed
        else:
            yield memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]  # is one


def raw_size(value: Tensor, kind: int, name: str) -> int:
    """How many bytes `raw` gives."""
    if kind in NATIVE:
        return value.numel() * CARRIER[kind].itemsize
    return sum(len(part) for part in raw(value, kind, name))


def _parts(value: Tensor, kind: int, name: str) -> Iterator[Tensor]:
    flat = value.detach().reshape(-1)
    for start in range(0, flat.numel(), ELEMENTS):
        yield converted(flat[start : start + ELEMENTS], kind, name)


def _narrow(flat: Tensor, kind: int, name: str) -> np.ndarray[Any, Any]:
    """A carrier as an array of the type that is narrower, a byte for each element."""
    array: np.ndarray[Any, Any] = flat.numpy()
    narrow: np.ndarray[Any, Any] = array.astype(helper.tensor_dtype_to_np_dtype(kind))
    if array.dtype.kind != "f" and (narrow.astype(array.dtype) != array).any():
        raise SaveError(f"the weight {name!r} holds numbers that {onnx_name(kind)} cannot hold")
    return narrow


def typed(value: Tensor, kind: int, name: str) -> Iterator[Buffer]:
    """The bytes of a tensor as the packed field of an ONNX type has them; takes what `raw` takes.

    Integers are varints, negative ones those of 64 bits. Of float16, bfloat16 and what is smaller,
    the bits are.
    """
    if kind in PACKED_AS_RAW:
        yield from raw(value, kind, name)
    elif kind in INTEGERS:
        for flat in _parts(value, kind, name):
            array = flat.numpy()
            yield varints(array.astype(np.uint64 if array.dtype == np.uint64 else np.int64))
    elif kind in SIX_BITS:
        for flat in _parts(value, kind, name):
            yield varints(_narrow(flat, kind, name).view(np.uint8).astype(np.int64))
    else:
        bits = np.dtype(f"<u{CARRIER[kind].itemsize}") if kind in NATIVE else np.dtype("u1")
        for part in raw(value, kind, name):
            yield varints(np.frombuffer(part, bits).astype(np.int64))


def varints(numbers: np.ndarray[Any, Any]) -> bytes:
    """Varints, one behind the other.

    Args:
        numbers: int64 or uint64 of shape [n].
    """
    shifts = np.arange(10, dtype=np.uint64) * np.uint64(7)
    rest = numbers.view(np.uint64)[:, None] >> shifts  # [n, 10]: what is left of each, by bytes
    used = rest > 0
    used[:, 0] = True
    out = (rest & np.uint64(127)).astype(np.uint8)
    out[:, :-1] |= used[:, 1:].astype(np.uint8) << 7  # bit 7: another byte follows
    data: bytes = out[used].tobytes()
    return data


def same(value: Tensor, before: Tensor, kind: int, name: str) -> bool:
    """Whether a value has, in an ONNX type, the bits of another; raises as `raw` does."""
    return all(x == y for x, y in zip_longest(raw(value, kind, name), raw(before, kind, name)))

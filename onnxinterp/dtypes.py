"""The element types of ONNX and their carriers: the torch dtypes that represent them.

Where torch has the type, it is its own carrier. The carrier of 4- and 2-bit integers is an 8-bit
integer, that of float4 and float6 is float32. Strings have none: they are in numpy object arrays.
"""

from __future__ import annotations

import torch
from onnx import TensorProto

STRING = int(TensorProto.STRING)
FLOAT8E8M0 = 24  # TensorProto.FLOAT8E8M0, from onnx 1.19 on

PACKED: dict[str, torch.dtype] = {
    "UINT4": torch.uint8,
    "INT4": torch.int8,
    "FLOAT4E2M1": torch.float32,
    "UINT2": torch.uint8,
    "INT2": torch.int8,
    "FLOAT6E2M3": torch.float32,
    "FLOAT6E3M2": torch.float32,
}
"""Name of an ONNX type that torch does not have -> carrier."""

CARRIER: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT8: torch.int8,
    TensorProto.UINT16: torch.uint16,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.BOOL: torch.bool,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.UINT32: torch.uint32,
    TensorProto.UINT64: torch.uint64,
    TensorProto.COMPLEX64: torch.complex64,
    TensorProto.COMPLEX128: torch.complex128,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.FLOAT8E4M3FN: torch.float8_e4m3fn,
    TensorProto.FLOAT8E4M3FNUZ: torch.float8_e4m3fnuz,
    TensorProto.FLOAT8E5M2: torch.float8_e5m2,
    TensorProto.FLOAT8E5M2FNUZ: torch.float8_e5m2fnuz,
    FLOAT8E8M0: torch.float8_e8m0fnu,
}
FLOAT8 = frozenset(d for d in CARRIER.values() if d.is_floating_point and d.itemsize == 1)
REAL = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
"""The dtypes in which torch computes."""
NATIVE = frozenset(CARRIER)
"""ONNX types with the same bytes in a file and in a torch tensor."""
ONNX_TYPE: dict[torch.dtype, int] = {dtype: elem_type for elem_type, dtype in CARRIER.items()}
"""torch dtype -> ONNX type, for types that torch has."""

# newer releases of the onnx package have more of these types
CARRIER |= {n: PACKED[name] for name, n in TensorProto.DataType.items() if name in PACKED}
NARROW = frozenset(CARRIER) - NATIVE
"""ONNX types whose carrier has more values than they have."""


def onnx_name(elem_type: int) -> str:
    """The name in messages: 1 -> "float", 7 -> "int64", 16 -> "bfloat16"."""
    known = elem_type in TensorProto.DataType.values()
    return TensorProto.DataType.Name(elem_type).lower() if known else f"type {elem_type}"


def check_real(dtype: torch.dtype | None) -> None:
    """Check that a module can compute in a dtype.

    Raises:
        ValueError: it cannot.
    """
    if dtype is not None and dtype not in REAL:
        names = ", ".join(map(str, REAL))
        raise ValueError(f"dtype must be one of {names}, got {dtype!r}")

"""Rounding to types that torch lacks: 4- and 2-bit integers, float4, float6.

Their carriers, 8-bit integers and float32, have more values than the types. An operator that makes
such a type (Cast, QuantizeLinear) leaves only values of the type in the carrier. torch has 8-bit
floats; these saturate or not.
"""

from __future__ import annotations

import math

import torch
from onnx import TensorProto
from torch import Tensor

NUMBER = dict(TensorProto.DataType.items())  # of each type; onnx may lack the newest ones
SIGNED_BITS = {NUMBER[n]: b for n, b in (("INT4", 4), ("INT2", 2)) if n in NUMBER}
UNSIGNED_BITS = {NUMBER[n]: b for n, b in (("UINT4", 4), ("UINT2", 2)) if n in NUMBER}
FLOAT4 = NUMBER.get("FLOAT4E2M1", -1)
FLOAT4_NUMBERS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # index: the three low bits
BITS = {**SIGNED_BITS, **UNSIGNED_BITS, FLOAT4: 4}
"""The types with several elements per byte in a file -> bits of an element."""
MINIFLOATS = {  # bits of the mantissa, exponent of the lowest normal number, largest number
    NUMBER[name]: layout
    for name, layout in (
        ("FLOAT4E2M1", (1, 0, 6.0)),
        ("FLOAT6E2M3", (3, 0, 7.5)),
        ("FLOAT6E3M2", (2, -2, 28.0)),
    )
    if name in NUMBER
}
LIMITS = {t: (-(2 ** (b - 1)), 2 ** (b - 1) - 1) for t, b in SIGNED_BITS.items()}
LIMITS |= {t: (0, 2**b - 1) for t, b in UNSIGNED_BITS.items()}


def limits(elem_type: int) -> tuple[int, int] | None:
    """The lowest and the highest number of a 4- or 2-bit integer type; None for other types."""
    return LIMITS.get(elem_type)


def round_to_type(x: Tensor, elem_type: int) -> Tensor:
    """X rounded to the values of `elem_type`: the low bits of integers, the nearest float.

    x does not change for types that are not narrow. Floats saturate.
    """
    if elem_type in LIMITS:
        low, high = LIMITS[elem_type]
        bits: Tensor = (x.to(torch.int64) - low) % (high - low + 1) + low
        return bits.to(torch.int8 if low else torch.uint8)
    if elem_type not in MINIFLOATS:
        return x
    mantissa, lowest, largest = MINIFLOATS[elem_type]
    x = x.to(torch.float32)
    _, exponent = torch.frexp(x)
    step = torch.ldexp(torch.ones_like(x), (exponent - 1).clamp(min=lowest) - mantissa)
    return (torch.round(x / step) * step).clamp(-largest, largest)


def to_float8(x: Tensor, to: torch.dtype, saturate: bool | int) -> Tensor:
    """Numbers out of range saturate, or become NaN (infinity in e5m2)."""
    x = x if x.is_floating_point() and x.dtype.itemsize > 1 else x.to(torch.float32)
    if saturate:
        limit = torch.finfo(to).max
        return x.clamp(-limit, limit).to(to)
    if to is torch.float8_e4m3fn:  # 464 is halfway from the largest to the next number;
        x = torch.where(x.abs() > 464, math.nan, x)  # torch saturates this type from 2.12 on
    return x.to(to)


def bit_cast_narrow(x: Tensor, elem_type: int) -> Tensor:
    """The bits of a type of 4 or 2 bits, read as another type of the same width."""
    table = x.new_tensor(FLOAT4_NUMBERS, dtype=torch.float32)
    if x.is_floating_point():
        x = torch.searchsorted(table, x.abs()) + 8 * x.signbit()
    if elem_type != FLOAT4:
        return round_to_type(x, elem_type)
    bits = x.to(torch.int64) % 16
    return torch.where(bits < 8, 1.0, -1.0) * table[bits % 8]

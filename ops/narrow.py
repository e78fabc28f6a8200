"""Numbers brought to types narrower than torch has: 4- and 2-bit integers, float4, float6.

Their carriers, 8-bit integers and float32, hold more than the types do; what makes such a type
(Cast, QuantizeLinear) leaves in the carrier only what the type can hold.
"""

from __future__ import annotations

import torch
from onnx import TensorProto
from torch import Tensor

BITS = {"INT4": 4, "UINT4": 4, "INT2": 2, "UINT2": 2}
MINIFLOATS = {  # bits of the mantissa, exponent of the lowest normal number, largest number
    "FLOAT4E2M1": (1, 0, 6.0),
    "FLOAT6E2M3": (3, 0, 7.5),
    "FLOAT6E3M2": (2, -2, 28.0),
}
LIMITS = {
    name: (0, 2**b - 1) if name[0] == "U" else (-(2 ** (b - 1)), 2 ** (b - 1) - 1)
    for name, b in BITS.items()
}


def limits(elem_type: int) -> tuple[int, int] | None:
    """The lowest and the highest number of a 4- or 2-bit integer type; None of other types."""
    return LIMITS.get(TensorProto.DataType.Name(elem_type))


def fitted(x: Tensor, elem_type: int) -> Tensor:
    """What the type `elem_type` holds of x: the low bits of an integer, the nearest of its floats.

    Types that are not narrow hold x as it is. Floats beyond the largest become that one.
    """
    name = TensorProto.DataType.Name(elem_type)
    if name in BITS:
        low, carrier = LIMITS[name][0], torch.uint8 if name[0] == "U" else torch.int8
        bits: Tensor = (x.to(torch.int64) - low) % 2 ** BITS[name] + low
        return bits.to(carrier)
    if name not in MINIFLOATS:
        return x
    mantissa, lowest, largest = MINIFLOATS[name]
    x = x.to(torch.float32)
    _, exponent = torch.frexp(x)
    step = torch.ldexp(torch.ones_like(x), (exponent - 1).clamp(min=lowest) - mantissa)
    return (torch.round(x / step) * step).clamp(-largest, largest)

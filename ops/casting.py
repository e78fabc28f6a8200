"""Change of the element type: Cast, CastLike, BitCast.

History: Cast 1 (`to` is the name of a type), 6 (its number), 9 (strings), 13 (bfloat16), 19
(float8, `saturate`), 21, 23, 25, 28 (4-, 2- and 6-bit types), 24 (float8e8m0, `round_mode`).
CastLike 15, with the same later versions. BitCast 26.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from onnxinterp.dtypes import CARRIER, FLOAT8, FLOAT8E8M0, NARROW, onnx_name
from onnxinterp.ops import numerals
from onnxinterp.ops.narrow import (
    BITS,
    MINIFLOATS,
    bit_cast_narrow,
    limits,
    round_to_type,
    to_float8,
)
from onnxinterp.registry import host, op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import (
    HOST_DTYPES,
    Flag,
    Host,
    Strings,
    is_known,
    round_to,
    sym_float,
    sym_int,
)
from onnxinterp.versions import older

EXACT = 2**53  # up to it every integer is a float64
RoundMode: TypeAlias = Literal["up", "down", "nearest"]

NAMED = {
    onnx_name(t).upper(): CARRIER[t]
    for t in (*range(TensorProto.FLOAT, TensorProto.INT64 + 1), *range(9, TensorProto.UINT64 + 1))
}
"""The type names of Cast-1: float to int64 and bool to uint64; not string, not complex."""


@op("Cast", since=24, any_type=True)
def cast(
    input: Tensor | Strings,
    *,
    to: torch.dtype | type[str],
    saturate: Flag = 1,
    round_mode: RoundMode = "up",
    output_type: int = 0,
) -> Tensor | Strings:
    """Floats are truncated to integers; every number except 0 is true.

    onnxruntime rounds floats to the nearest 4-bit integer; the backend suite truncates these too.
    """
    if not isinstance(to, torch.dtype):
        return numerals.write(input)
    if isinstance(input, np.ndarray):
        input = numerals.read(input, to, output_type)
    if to is torch.float8_e8m0fnu:
        return _to_power_of_two(input, saturate, round_mode).to(to)
    if to in FLOAT8:
        return to_float8(input, to, saturate)
    return round_to_type(input, output_type).to(to)


cast_19 = older(cast, since=19, without=["round_mode"])
cast_6 = older(cast_19, since=6, without=["saturate", "output_type"])


@op("Cast", since=1, any_type=True)
def cast_1(input: Tensor, *, to: str) -> Tensor | Strings:
    return cast(input, to=NAMED[to.upper()])


@op("CastLike", since=24, any_type=True, frozen=("target_type",))
def cast_like(
    input: Tensor | Strings,
    target_type: Tensor | Strings,
    *,
    saturate: Flag = 1,
    round_mode: RoundMode = "up",
    output_type: int = 0,
) -> Tensor | Strings:
    to = numerals.type_of(target_type)
    return cast(input, to=to, saturate=saturate, round_mode=round_mode, output_type=output_type)


cast_like_19 = older(cast_like, since=19, without=["round_mode"])
cast_like_15 = older(cast_like_19, since=15, without=["saturate", "output_type"])


@op("BitCast", since=26, any_type=True)
def bit_cast(
    input: Tensor, *, to: torch.dtype, input_type: int = 0, output_type: int = 0
) -> Tensor:
    bits, wanted = _bits(input_type, input.dtype), _bits(output_type, to)
    if bits != wanted:
        raise ValueError(f"`to` must be a type of {bits} bits, got one of {wanted}")
    return bit_cast_narrow(input, output_type) if output_type in BITS else input.view(to)


def _bits(elem_type: int, carrier: torch.dtype) -> int:
    """The width of a type in bits: that of its carrier unless it is narrow."""
    return _width(elem_type) if elem_type in NARROW else 8 * carrier.itemsize


def _to_power_of_two(x: Tensor, saturate: Flag, round_mode: RoundMode) -> Tensor:
    """Round to the values of float8e8m0: the powers 2**-127 to 2**127, and NaN."""
    x = x.to(torch.float32)
    mantissa, exponent = torch.frexp(x)  # 0.5 <= mantissa < 1
    threshold = {"up": 0.5, "nearest": 0.75, "down": 1.0}[round_mode]
    above = mantissa > threshold if round_mode == "up" else mantissa >= threshold
    power = torch.where(x == 0, -128, exponent - 1 + above.int())  # zero is below the range
    if saturate:
        power = power.clamp(-127, 127)
    outside = (power < -127) | (power > 127) | ~torch.isfinite(x)
    return torch.where(outside, math.nan, torch.ldexp(torch.ones_like(mantissa), power))


def cast_host(input: Host, to: Any, output_type: int = 0) -> Any:
    """Cast plain numbers; NotImplemented for types that host values do not have."""
    if to not in HOST_DTYPES or output_type in NARROW:
        return NotImplemented
    try:
        numbers = [_number(x, to) for x in input.numbers]
    except (ArithmeticError, ValueError):
        return NotImplemented  # the tensor kernel casts infinity and NaN
    return Host(numbers, to, input.shape)


def _number(x: Any, to: torch.dtype) -> Any:
    if to is torch.bool:
        return x != 0
    if to.is_floating_point:
        if is_known(x) and abs(x) > EXACT:
            raise ValueError(f"an integer must be at most {EXACT} to be rounded only once, got {x}")
        return round_to(to, sym_float(x))
    if x.__class__ is float and not -(2.0**63) <= x < 2.0**63:
        raise ValueError(f"a float must fit into int64, got {x}")
    return round_to(to, sym_int(x))


@host(cast)
def _(input: Host, *, to: torch.dtype, output_type: int = 0, **_float8_options: Any) -> Any:
    return cast_host(input, to, output_type)


@host(cast_1)
def _(input: Host, *, to: str) -> Any:
    return cast_host(input, NAMED[to.upper()])


@host(cast_like)
def _(input: Host, target_type: Host, *, output_type: int = 0, **_float8_options: Any) -> Any:
    return cast_host(input, target_type.dtype, output_type)


def _draw_source(d: Draw, to: int) -> Any:
    """Numbers in the range of the target: the cast of other floats is undefined."""
    carrier = CARRIER.get(to, torch.float64)
    whole = not (carrier.is_floating_point or carrier.is_complex)
    least, most = limits(to) or (-10 if carrier.is_signed else 0, 10)
    if to in MINIFLOATS:
        least, most = -6, 6
    shape = d.shape()
    if carrier is torch.float8_e8m0fnu:
        least = 1  # the cast of negative numbers is undefined
        shape = d.shape(min_dims=1)  # no oracle casts a scalar to it
    if d.elem_type("T1") == TensorProto.STRING:
        numbers = d.ints(shape, least, most)
        scale = (
            1
            if whole
            else d.choice([1, 0.5, 0.001, 1e30 if carrier is torch.float32 and to == 1 else 1])
        )
        texts = [str(n if scale == 1 else n * scale) for n in numbers.flatten().tolist()]
        return np.array(texts, dtype=object).reshape(numbers.shape)
    x = d.tensor(shape, "T1", lo=least, hi=most)
    narrow = limits(to) is not None and x.is_floating_point()
    return x.float().round().to(x.dtype) if narrow else x  # onnxruntime rounds, see `cast`


def _draw_details(d: Draw, to: int) -> dict[str, Any]:
    only_e8m0 = to == FLOAT8E8M0
    saturate = d.maybe(d.integer(0, 1) if CARRIER.get(to) in FLOAT8 else 1)
    modes: list[RoundMode] = ["up", "down", "nearest"] if only_e8m0 else ["up"]
    round_mode = d.maybe(d.choice(modes)) if d.opset >= 24 else None
    return {"saturate": saturate if d.opset >= 19 else None, "round_mode": round_mode}


@sample(cast)
def _(d: Draw) -> Call:
    to = d.elem_type("T2")
    return call(_draw_source(d, to), to=to, **_draw_details(d, to))


@sample(cast_1)
def _(d: Draw) -> Call:
    to = d.elem_type("T2")
    return call(_draw_source(d, to), to=onnx_name(to).upper())


@sample(cast_like)
def _(d: Draw) -> Call:
    like, to = d.tensor(d.shape(), "T2"), d.elem_type("T2")
    return call(_draw_source(d, to), like, **_draw_details(d, to))


@sample(bit_cast)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(), "T1")
    bits = _bits(d.elem_type("T1"), x.dtype)
    targets = [t for t in CARRIER if _width(t) == bits and CARRIER[t] is not torch.bool]
    return call(x, to=d.choice(targets))


def _width(elem_type: int) -> int:
    """Bits of a type; 6 for the types that BitCast does not support."""
    return BITS.get(elem_type) or (
        6 if elem_type in MINIFLOATS else 8 * CARRIER[elem_type].itemsize
    )

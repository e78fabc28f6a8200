"""Change of the element type: Cast, CastLike, BitCast.

History: Cast 1 (`to` is the name of a type), 6 (its number), 9 (strings), 13 (bfloat16), 19
(float8, `saturate`), 21, 23, 25, 28 (4-, 2- and 6-bit types), 24 (float8e8m0, `round_mode`).
CastLike 15, with the same steps. BitCast 26.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from onnxinterp.ops.narrow import fitted
from onnxinterp.registry import host, op, sample
from onnxinterp.sampling import Call, Draw, call
from onnxinterp.values import HOST_DTYPES, Host, round_to

RoundMode: TypeAlias = Literal["up", "down", "nearest"]

FLOAT8 = frozenset(
    {torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz}
)

NAMED = {
    "FLOAT": torch.float32,
    "UINT8": torch.uint8,
    "INT8": torch.int8,
    "UINT16": torch.uint16,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "BOOL": torch.bool,
    "FLOAT16": torch.float16,
    "DOUBLE": torch.float64,
    "UINT32": torch.uint32,
    "UINT64": torch.uint64,
}


@op("Cast", since=24, any_type=True)
def cast(
    input: Tensor,
    *,
    to: torch.dtype,
    saturate: int = 1,
    round_mode: RoundMode = "up",
    output_type: int = 0,
) -> Tensor:
    """Floats lose their fraction on the way to integers; all but zero is true."""
    if to in FLOAT8:
        return _to_float8(input, to, saturate)
    if to is torch.float8_e8m0fnu:
        return _to_power_of_two(input, saturate, round_mode).to(to)
    return fitted(input, output_type).to(to)


@op("Cast", since=19, any_type=True)
def cast_19(input: Tensor, *, to: torch.dtype, saturate: int = 1, output_type: int = 0) -> Tensor:
    return cast(input, to=to, saturate=saturate, output_type=output_type)


@op("Cast", since=6, any_type=True)
def cast_6(input: Tensor, *, to: torch.dtype) -> Tensor:
    return cast(input, to=to)


@op("Cast", since=1, any_type=True)
def cast_1(input: Tensor, *, to: str) -> Tensor:
    return cast(input, to=NAMED[to.upper()])


@op("CastLike", since=24, any_type=True, frozen=("target_type",))
def cast_like(
    input: Tensor,
    target_type: Tensor,
    *,
    saturate: int = 1,
    round_mode: RoundMode = "up",
    output_type: int = 0,
) -> Tensor:
    to = target_type.dtype
    return cast(input, to=to, saturate=saturate, round_mode=round_mode, output_type=output_type)


@op("CastLike", since=19, any_type=True, frozen=("target_type",))
def cast_like_19(
    input: Tensor, target_type: Tensor, *, saturate: int = 1, output_type: int = 0
) -> Tensor:
    return cast(input, to=target_type.dtype, saturate=saturate, output_type=output_type)


@op("CastLike", since=15, any_type=True, frozen=("target_type",))
def cast_like_15(input: Tensor, target_type: Tensor) -> Tensor:
    return cast(input, to=target_type.dtype)


@op("BitCast", since=26, any_type=True)
def bit_cast(input: Tensor, *, to: torch.dtype) -> Tensor:
    return input.view(to)


def _to_float8(x: Tensor, to: torch.dtype, saturate: int) -> Tensor:
    """Beyond the largest number: that number when saturating, else NaN (infinity in e5m2)."""
    x = x if x.is_floating_point() and x.dtype.itemsize > 1 else x.to(torch.float32)
    if saturate:
        limit = torch.finfo(to).max
        return x.clamp(-limit, limit).to(to)
    if to is torch.float8_e4m3fn:  # 464 is halfway from the largest to what would be the next;
        x = torch.where(x.abs() > 464, math.nan, x)  # torch saturates this type from 2.12 on
    return x.to(to)


def _to_power_of_two(x: Tensor, saturate: int, round_mode: RoundMode) -> Tensor:
    """Round to what float8e8m0 can hold: the powers 2**-127 to 2**127, and NaN."""
    mantissa, exponent = torch.frexp(x.to(torch.float32))  # 0.5 <= mantissa < 1
    threshold = {"up": 0.5, "nearest": 0.75, "down": 1.0}[round_mode]
    above = mantissa > threshold if round_mode == "up" else mantissa >= threshold
    power = torch.where(x == 0, -128, exponent - 1 + above.int())  # zero is below the range
    if saturate:
        power = power.clamp(-127, 127)
    outside = (power < -127) | (power > 127) | ~torch.isfinite(x)
    return torch.where(outside, math.nan, torch.ldexp(torch.ones_like(mantissa), power))


def cast_host(input: Host, to: torch.dtype) -> Any:
    """Cast of plain numbers; NotImplemented for types that no host value has."""
    if to not in HOST_DTYPES:
        return NotImplemented
    try:
        numbers = [_number(x, to) for x in input.numbers]
    except (ArithmeticError, ValueError):
        return NotImplemented  # what infinity and NaN become is the tensor's affair
    return Host(numbers if input.rank else numbers[0], to)


def _number(x: Any, to: torch.dtype) -> Any:
    if to is torch.bool:
        return x != 0
    if to.is_floating_point:
        return round_to(to, torch.sym_float(x))
    if x.__class__ is float and not -(2.0**63) <= x < 2.0**63:
        raise ValueError("beyond the integers")
    return torch.sym_int(x)


@host(cast, cast_19, cast_6)
def _(input: Host, *, to: torch.dtype, **_about_float8: Any) -> Any:
    return cast_host(input, to)


@host(cast_1)
def _(input: Host, *, to: str) -> Any:
    return cast_host(input, NAMED[to.upper()])


@host(cast_like, cast_like_19, cast_like_15)
def _(input: Host, target_type: Host, **_about_float8: Any) -> Any:
    return cast_host(input, target_type.dtype)


def _draw_source(d: Draw, to: torch.dtype) -> Tensor:
    """Numbers in the range of the target: what is beyond is undefined for floats."""
    return d.tensor(d.shape(), "T1", lo=0 if to is torch.uint8 else -10)


def _draw_details(d: Draw) -> dict[str, Any]:
    saturate = d.maybe(1) if d.opset >= 19 else None  # 0 is for float8 only
    round_mode = d.maybe("up") if d.opset >= 24 else None  # others are for float8e8m0 only
    return {"saturate": saturate, "round_mode": round_mode}


@sample(cast, cast_19, cast_6)
def _(d: Draw) -> Call:
    to = d.dtype("T2")
    return call(_draw_source(d, to), to=to, **_draw_details(d))


@sample(cast_1)
def _(d: Draw) -> Call:
    to = d.dtype("T2")
    return call(_draw_source(d, to), to=next(name for name, t in NAMED.items() if t is to))


@sample(cast_like, cast_like_19, cast_like_15)
def _(d: Draw) -> Call:
    like = d.tensor(d.shape(), "T2")
    return call(_draw_source(d, like.dtype), like, **_draw_details(d))


@sample(bit_cast)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(), "T1")
    width = x.dtype.itemsize
    same_width = [t for t in NAMED.values() if t.itemsize == width and t is not torch.bool]
    return call(x, to=d.choice(same_width))

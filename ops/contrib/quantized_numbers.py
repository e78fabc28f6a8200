"""Numbers behind integers: the arithmetic that all quantized operators of onnxruntime share.

onnxruntime has two rules for the zero point of a result: most kernels round the quotient half to
even and then add the zero point, some add it first, so that ties depend on its parity. Each kernel
says which one it has. Scales are numbers of float32, and so is all that is computed from them; in a
module of float64, of float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from onnxinterp.ops.quantization import round_to_dtype
from onnxinterp.testing.samples import Draw


def settings(*tensors: str) -> tuple[str, ...]:
    """The names of the scales and zero points of some tensors."""
    return tuple(f"{x}_{setting}" for x in tensors for setting in ("scale", "zero_point"))


def wide(scale: Tensor) -> torch.dtype:
    """The dtype to compute in."""
    return torch.float64 if scale.dtype is torch.float64 else torch.float32


def one(setting: Tensor, dtype: torch.dtype) -> Tensor:
    """A scale or zero point, which must be one number, as a number of `dtype`."""
    if setting.numel() != 1:
        raise ValueError(f"scale and zero point must be one number, got {list(setting.shape)}")
    return setting.reshape(()).to(dtype)


def centred(x: Tensor, zero_point: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The difference from the zero point."""
    y = x.to(dtype)
    return y if zero_point is None else y - one(zero_point, dtype)


def dequantize(x: Tensor, scale: Tensor, zero_point: Tensor | None) -> Tensor:
    """The numbers that integers stand for."""
    dtype = wide(scale)
    return centred(x, zero_point, dtype) * one(scale, dtype)


def quantize(y: Tensor, scale: Tensor, zero_point: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The integers for numbers: the zero point is added after rounding."""
    shift = None if zero_point is None else one(zero_point, y.dtype)
    return round_to_dtype(y / one(scale, y.dtype), shift, dtype)


def quantize_shifted(quotient: Tensor, zero_point: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The integers for quotients: the zero point is added before rounding."""
    if zero_point is not None:
        quotient = quotient + one(zero_point, quotient.dtype)
    return round_to_dtype(quotient, None, dtype)


def draw_quantized(
    d: Draw, shape: tuple[int, ...], type: str = "T", *, scalars: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Integers of the whole range, their scale and zero point."""
    x: Tensor = d.tensor(shape, type, -128, 255)
    return x, *draw_settings(d, type, scalars=scalars)


def draw_settings(
    d: Draw, type: str = "T", *, scalars: bool = False, unit: float = 1 / 64
) -> tuple[Tensor, Tensor]:
    """A scale and a zero point, scalars or lists of one.

    Scales are multiples of `unit`: if that is a power of 2, many quotients are halfway between two
    integers.
    """
    shape = () if scalars else d.choice([(), (1,)])
    zero: Tensor = d.tensor(shape, type, -128, 255)
    return torch.full(shape, d.integer(1, 65) * unit), zero

"""Conversion of numbers to strings and back: Cast from and to strings."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from onnxinterp.ops.narrow import MINIFLOATS
from onnxinterp.runtime.guard import chunks, reserve
from onnxinterp.runtime.strings import map_strings
from onnxinterp.values import Strings, host_of

NUMERAL = 100  # bytes of a number and its string, and of both in arrays
DIGITS = 8  # significant digits in a string, as in onnxruntime, also for float64


def type_of(x: Tensor | Strings) -> torch.dtype | type[str]:
    """The dtype of a tensor; `str` of an array of strings."""
    return str if isinstance(x, np.ndarray) else x.dtype


def read(strings: Strings, to: torch.dtype, elem_type: int = 0) -> Tensor:
    """Parse numbers, in a type from which they can be cast to `to`.

    Args:
        strings: strings of any shape, with the decimal digits, signs and exponents of C.
        to: the carrier of the target type.
        elem_type: the target type, if several types have this carrier.

    Raises:
        ValueError: a string is not a number, or not one of the target type.
    """
    whole = not (to.is_floating_point or to is torch.bool or elem_type in MINIFLOATS)
    wide = np.float64 if not whole else np.uint64 if to is torch.uint64 else np.int64
    parse: Callable[[str], int | float] = int if whole else float
    return torch.from_numpy(map_strings(strings, lambda s: parse(_check_number(s)), wide))


def _check_number(string: str) -> str:
    """The string; Python's number syntax that C lacks raises: 1_000, digits of other scripts."""
    if not string.isascii() or "_" in string:
        raise ValueError(f"a string must be a number, got {string!r}")
    return string


def write(x: Tensor | Strings) -> Strings:
    """Format numbers as an array of strings of the same shape; strings do not change."""
    if isinstance(x, np.ndarray):
        return x
    reserve(NUMERAL * x.numel())
    numbers = host_of(x.flatten()).numbers
    strings = np.empty(len(numbers), dtype=object)
    for part in chunks(len(numbers)):
        strings[part] = [_float(n) if x.is_floating_point() else str(int(n)) for n in numbers[part]]
    return strings.reshape(x.shape)


def _float(number: float) -> str:
    if math.isnan(number):
        return "NaN"
    return f"{number:.{DIGITS}g}" if math.isfinite(number) else "INF" if number > 0 else "-INF"

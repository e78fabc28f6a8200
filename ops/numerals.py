"""Numbers written as text, and text read as numbers: Cast from and to strings."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from onnxinterp.ops.narrow import MINIFLOATS
from onnxinterp.runtime.guard import chunks, reserve
from onnxinterp.runtime.strings import map_strings
from onnxinterp.values import Strings, host_of

NUMERAL = 100  # bytes of a number, its text and their places in arrays, as Python objects
DIGITS = 8  # significant ones, as onnxruntime writes them, those of a double too


def type_of(x: Tensor | Strings) -> torch.dtype | type[str]:
    """The dtype of a tensor; `str` of an array of strings."""
    return str if isinstance(x, np.ndarray) else x.dtype


def read(texts: Strings, to: torch.dtype, elem_type: int = 0) -> Tensor:
    """The numbers that texts stand for, in a type from which to cast to `to`.

    Args:
        texts: strings of any shape, with the decimal digits, signs and exponents of C.
        to: the carrier of the type that is wanted.
        elem_type: that type, where its carrier does not tell.

    Raises:
        ValueError: a text is no number, or none of the kind that is wanted.
    """
    whole = not (to.is_floating_point or to is torch.bool or elem_type in MINIFLOATS)
    wide = np.float64 if not whole else np.uint64 if to is torch.uint64 else np.int64
    return torch.from_numpy(map_strings(texts, _integer if whole else _real, wide))


def _integer(text: str) -> int:
    return int(_plain(text))


def _real(text: str) -> float:
    return float(_plain(text))


def _plain(text: str) -> str:
    """The text, where it is none of the numbers that Python alone reads: 1_000, other digits."""
    if not text.isascii() or "_" in text:
        raise ValueError(f"{text!r} is no number")
    return text


def write(x: Tensor | Strings) -> Strings:
    """Numbers as strings in an array of the same shape; strings as they are."""
    if isinstance(x, np.ndarray):
        return x
    reserve(NUMERAL * x.numel())
    numbers = host_of(x.flatten()).numbers
    texts = np.empty(len(numbers), dtype=object)
    for part in chunks(len(numbers)):
        texts[part] = [_float(n) if x.is_floating_point() else str(int(n)) for n in numbers[part]]
    return texts.reshape(x.shape)


def _float(number: float) -> str:
    if math.isnan(number):
        return "NaN"
    return f"{number:.{DIGITS}g}" if math.isfinite(number) else "INF" if number > 0 else "-INF"

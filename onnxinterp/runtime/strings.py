"""Arrays of strings: a kernel works on their different strings, each of them once.

    distinct      the different strings of an array, and which of them stands where
    each          what a function makes of every string
    numbers_of    the number that a table gives to every string
    watched       strings one by one, for what else is made of them

One string can stand at a hundred million places and take no memory there. Torch sees nothing of
what Python does with it: here is where a call's clock and memory are looked at meanwhile.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, repeat
from typing import Any, TypeAlias

import numpy as np

from onnxinterp.runtime.guard import chunks, is_watched, reserve
from onnxinterp.values import Strings

SMALL_ARRAY = 1024

Places: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"


def numbers_of(values: Strings | Sequence[Any], number: Callable[..., int], *more: Any) -> Places:
    """What `number(value, *more)`, which takes no time, gives for each value: int64 of shape [n].

    Args:
        values: an array of shape [n], or a list.
        number: as a rule how a dict looks things up.
        more: its other arguments.
    """
    reserve(8 * len(values))
    if len(values) <= SMALL_ARRAY:
        return np.fromiter(map(number, values, *map(repeat, more)), np.int64, len(values))
    numbers = np.empty(len(values), np.int64)
    for part in chunks(len(values)):
        some = values[part]
        numbers[part] = np.fromiter(map(number, some, *map(repeat, more)), np.int64, len(some))
    return numbers


def distinct(values: Strings | Sequence[Any]) -> tuple[list[Any], Places]:
    """The different values in the order they come, and the place among them of each: int64 [n]."""
    places: defaultdict[Any, int] = defaultdict(count().__next__)
    numbers = numbers_of(values, places.__getitem__)
    return list(places), numbers


def watched(texts: Iterable[str], size: Callable[[str], int] = sys.getsizeof) -> Iterable[str]:
    """The same texts; before each of them the clock is looked at, where a call is bounded.

    Args:
        texts: different ones, or few.
        size: bytes of what is made of a text and kept.
    """
    return _reserved(texts, size) if is_watched() else texts


def _reserved(texts: Iterable[str], size: Callable[[str], int]) -> Iterator[str]:
    kept = 0
    for text in texts:
        kept += size(text)
        reserve(kept)
        yield text


def each(X: Strings, function: Callable[[str], Any], dtype: Any = object) -> np.ndarray[Any, Any]:
    """What a function gives for each string, called once for each different one.

    Of few strings, or where the first of many hardly repeat, as often as there are strings: to find
    the different ones takes longer than most functions do.

    Args:
        X: strings of any shape.
        function: with the same answer for the same string.
        dtype: of what it gives; objects are taken for as large as the string.

    Returns:
        An array of the shape of X.
    """
    texts: Any = X.reshape(-1)
    size = sys.getsizeof if dtype is object else _nothing
    reserve(np.dtype(dtype).itemsize * X.size)
    if len(texts) <= SMALL_ARRAY or 2 * len(set(texts[:SMALL_ARRAY])) > SMALL_ARRAY:
        made = np.fromiter(map(function, watched(texts, size)), dtype, X.size)
        return np.asarray(made.reshape(X.shape))
    texts, places = distinct(texts)
    made = np.fromiter(map(function, watched(texts, size)), dtype, len(texts))
    return np.asarray(made[places].reshape(X.shape))


def _nothing(_text: str) -> int:
    return 0

"""Arrays of strings: kernels compute once for each different string, within the limits of a call.

    unique_values   the different values of an array, and the index of each element among them
    map_strings     the results of a function for all strings
    map_to_int64    the results of a function from strings to integers, such as a table look-up
    iter_watched    strings one by one, for what else a kernel makes of them

One string can be the element of a hundred million places and take no memory there. Torch does not
see what Python does with them, so the time and the memory of the call are checked here.
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

SMALL_ARRAY = 1024  # elements: up to here, to look for different strings does not pay

Integers: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"


def map_to_int64(
    values: Strings | Sequence[Any], function: Callable[..., int], *more: Any
) -> Integers:
    """`function(value, *more)` for each value, as int64 of shape [n].

    Args:
        values: an array of shape [n], or a list.
        function: a fast one, as a rule a look-up in a dict.
        more: its other arguments.
    """
    reserve(8 * len(values))
    if len(values) <= SMALL_ARRAY:
        return np.fromiter(map(function, values, *map(repeat, more)), np.int64, len(values))
    results = np.empty(len(values), np.int64)
    for part in chunks(len(values)):
        some = values[part]
        results[part] = np.fromiter(map(function, some, *map(repeat, more)), np.int64, len(some))
    return results


def unique_values(values: Strings | Sequence[Any]) -> tuple[list[Any], Integers]:
    """The different values in order of appearance, and for each element its index among them."""
    indices: defaultdict[Any, int] = defaultdict(count().__next__)
    numbers = map_to_int64(values, indices.__getitem__)
    return list(indices), numbers


def iter_watched(
    strings: Iterable[str], size: Callable[[str], int] = sys.getsizeof
) -> Iterable[str]:
    """The same strings; where a call has limits, they are checked before each string.

    Args:
        strings: different ones, or few.
        size: the bytes that a kernel makes of a string and keeps.
    """
    return _reserving(strings, size) if is_watched() else strings


def _reserving(strings: Iterable[str], size: Callable[[str], int]) -> Iterator[str]:
    kept = 0
    for string in strings:
        kept += size(string)
        reserve(kept)
        yield string


def map_strings(
    X: Strings, function: Callable[[str], Any], dtype: Any = object
) -> np.ndarray[Any, Any]:
    """The results of a function for all strings, called once for each different string.

    In a small array, or where the first strings of a large one hardly repeat, it is called for each
    element: to find the different strings takes longer than most functions do.

    Args:
        X: strings of any shape.
        function: with the same result for the same string.
        dtype: of the results; objects are counted as if they were as large as the string.

    Returns:
        An array of the shape of X.
    """
    strings: Any = X.reshape(-1)
    size = sys.getsizeof if dtype is object else _no_bytes
    reserve(np.dtype(dtype).itemsize * X.size)
    if len(strings) <= SMALL_ARRAY or 2 * len(set(strings[:SMALL_ARRAY])) > SMALL_ARRAY:
        results = np.fromiter(map(function, iter_watched(strings, size)), dtype, X.size)
        return np.asarray(results.reshape(X.shape))
    strings, indices = unique_values(strings)
    results = np.fromiter(map(function, iter_watched(strings, size)), dtype, len(strings))
    return np.asarray(results[indices].reshape(X.shape))


def _no_bytes(_string: str) -> int:
    return 0

"""Names chosen by a pattern, by several, or by a predicate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any, TypeAlias

Names: TypeAlias = "str | Iterable[str] | Callable[..., bool]"
"""A pattern of `fnmatch`, several patterns, or a predicate of the name."""

MAX_COMPARED_NAMES = 1000  # names that are searched for ones like a pattern
MAX_UNKNOWN_NAMES = 20  # for which similar ones are searched
MAX_COMPARED_CHARS = 200  # characters of such a name


def similar_names(given: Iterable[str], wanted: Iterable[str]) -> str:
    """For the end of a message: which of the names that are wanted the unknown ones resemble."""
    given, wanted = set(given), set(wanted)
    missing = [n for n in sorted(wanted - given) if len(n) <= MAX_COMPARED_CHARS]
    unknown = [n for n in sorted(given - wanted) if len(n) <= MAX_COMPARED_CHARS]
    pairs = (
        (name, near[0])
        for name in unknown[:MAX_UNKNOWN_NAMES]
        if (near := get_close_matches(name, missing[:MAX_COMPARED_NAMES], 1, cutoff=0.7))
    )
    lines = [f"\n\t{name!r} resembles the missing {near!r}." for name, near in pairs]
    return "".join(lines)


def select(
    wanted: Names, among: Iterable[str], what: str, tensors: Mapping[str, Any] | None = None
) -> tuple[str, ...]:
    """The names that are wanted, in their order.

    Args:
        wanted: a pattern, several patterns, or a predicate.
        among: the names to choose from.
        what: the argument and what its patterns must match, for the error message.
        tensors: what a predicate takes as its second argument, by name.

    Raises:
        ValueError: a pattern matches none of the names.
    """
    names = tuple(among)
    if callable(wanted):
        return tuple(n for n in names if (wanted(n) if tensors is None else wanted(n, tensors[n])))
    patterns = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            short = (name for name in names if len(name) <= MAX_COMPARED_CHARS)
            compared = islice(short, MAX_COMPARED_NAMES)
            near = ", ".join(map(repr, get_close_matches(pattern, compared, cutoff=0.4)))
            raise ValueError(f"{what}, got {pattern!r}" + (f"; similar: {near}" if near else ""))
    return tuple(n for n in names if any(fnmatchcase(n, p) for p in patterns))

"""All cases, by class."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

from tests.untrusted.files.case import Case
from tests.untrusted.files.families import (
    arithmetic,
    attributes,
    bombs,
    damaged,
    depth,
    external,
    graphs,
    indices,
    legal,
    loops,
    names,
    tensors,
)

FAMILIES: dict[str, Callable[[], Iterable[Case]]] = {
    "damaged": damaged.cases,
    "tensors": tensors.cases,
    "external": external.cases,
    "graphs": graphs.cases,
    "attributes": attributes.cases,
    "names": names.cases,
    "depth": depth.cases,
    "indices": indices.cases,
    "arithmetic": arithmetic.cases,
    "bombs": bombs.cases,
    "loops": loops.cases,
    "legal": legal.cases,
}


@cache
def cases(group: str) -> list[Case]:
    """The cases of a class; names are unique."""
    found = list(FAMILIES[group]())
    names = [case.name for case in found]
    if twice := {n for n in names if names.count(n) > 1}:
        raise ValueError(f"two cases of one name: {sorted(twice)}")
    return found

"""All cases, by class."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tests.hostile.case import Case
from tests.hostile.families import arithmetic, attributes, external, indices, tensors

FAMILIES: dict[str, Callable[[], Iterable[Case]]] = {
    "arithmetic": arithmetic.cases,
    "indices": indices.cases,
    "tensors": tensors.cases,
    "attributes": attributes.cases,
    "external": external.cases,
}


def cases(group: str) -> list[Case]:
    """The cases of a class; names are unique."""
    found = list(FAMILIES[group]())
    names = [case.name for case in found]
    if twice := {n for n in names if names.count(n) > 1}:
        raise ValueError(f"two cases of one name: {sorted(twice)}")
    return found

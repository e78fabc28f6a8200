"""Which dimensions of a model are free when it is captured by torch.export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.export import Dim

if TYPE_CHECKING:
    from tests.zoo.conftest import Subject

Free = list[tuple[str, int]]  # input and dimension


def free_dimensions(subject: Subject) -> Free:
    """The dimensions the file declares symbolic, where some case is larger than 1.

    torch.export takes a size of 1 for a constant, so a dimension never tried with another size
    cannot be exported as free.
    """
    return [
        (info.name, axis)
        for info in subject.module.inputs
        for axis, size in enumerate(info.shape or ())
        if (not isinstance(size, int) or size < 0)  # some exporters write -1 for a free size
        and any(arrays[info.name].shape[axis] > 1 for arrays in subject.inputs)
    ]


def example_case(subject: Subject) -> int:
    """A case in which no free dimension has size 1: the last, where each has some."""
    free = free_dimensions(subject)
    fitting = [
        case
        for case, arrays in enumerate(subject.inputs)
        if all(arrays[name].shape[axis] > 1 for name, axis in free)
    ]
    return fitting[-1] if fitting else len(subject.inputs) - 1


def dynamic_shapes(subject: Subject) -> tuple[dict[int, Any], ...]:
    """The argument of torch.export.export: what is free must stay free, or it raises."""
    free = free_dimensions(subject)
    return tuple(
        {axis: Dim.DYNAMIC for name, axis in free if name == info.name}
        for info in subject.module.inputs
    )

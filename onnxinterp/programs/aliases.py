"""Which values of a program may share memory, and which calls write to their arguments."""

from __future__ import annotations

from collections.abc import Iterable

from onnxinterp.programs.calls import Call, Program, Value, values_in
from onnxinterp.programs.functions import draws_numbers, is_in_place, name_of, names

MAY_SHARE = names(
    "reshape view flatten contiguous to type type_as expand expand_as broadcast_to permute",
    "transpose squeeze unsqueeze select narrow split chunk unbind t T mT H mH movedim",
    "swapaxes detach alias view_as unflatten diagonal unfold real imag as_strided",
    "tensor_split moveaxis float double half bfloat16 ravel atleast_1d atleast_2d __getitem__",
    "split_with_sizes broadcast_tensors expand_copy resolve_conj resolve_neg positive",
    "swapdims reshape_as squeeze_copy data meshgrid hsplit pixel_shuffle pixel_unshuffle",
    "channel_shuffle native_channel_shuffle adjoint unsafe_split unsafe_chunk vsplit dsplit",
)
"""Functions of torch whose result may be a view of an argument, depending on strides or not."""


def is_torch(call: Call) -> bool:
    """Whether a call is one of torch, not a whole step."""
    return not hasattr(call.function, "step")


def writes(call: Call) -> list[Value]:
    """The values that a call writes to."""
    name = name_of(call.function)
    if not is_torch(call) or not is_in_place(name, call.kwargs):
        return []
    return list(values_in(call.kwargs.get("out"))) or list(values_in(call.args[:1]))


class Families:
    """Values in families: those that may share memory.

    Args:
        program: its calls.
    """

    def __init__(self, program: Program) -> None:
        self._parent: dict[Value, Value] = {}
        for call in program.calls:
            name = name_of(call.function)
            read = list(call.reads())
            for value in filter(None, call.results):
                if value.base is not None:
                    self._join(value, value.base)
                if read and (name in MAY_SHARE or not is_torch(call)):
                    for source in read:
                        self._join(value, source)

    def of(self, value: Value) -> Value:
        """The value that stands for a family."""
        parents = self._parent
        while (parent := parents.get(value)) is not None:
            parents[value] = parents.get(parent, parent)  # halves the way of the next time
            value = parent
        return value

    def _join(self, first: Value, second: Value) -> None:
        first, second = self.of(first), self.of(second)
        if first is not second:
            self._parent[first] = second

    def of_all(self, values: Iterable[Value]) -> set[Value]:
        """The families of several values."""
        return {self.of(value) for value in values}


def written_families(program: Program, families: Families) -> set[Value]:
    """Families that some call writes to: their values are not the same all the time."""
    return families.of_all(value for call in program.calls for value in writes(call))


def is_random(name: str) -> bool:
    """Whether torch's operators of a name draw random numbers, or return what is in memory."""
    return draws_numbers(name) or "empty" in name

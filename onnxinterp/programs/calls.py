"""What a program consists of: calls of torch functions between values.

A `Program` has inputs, weights, calls and outputs. A `Call` is one function with its arguments, in
which `Value`s stand for tensors, and its results. A `Check` is a call whose result must be what it
was when the program was recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from onnxinterp.runtime.plan import WeightPlace


@dataclass(eq=False, slots=True)
class Value:
    """A tensor of a call: what is known of it while the sizes of the inputs are the same.

    Attributes:
        shape: its sizes.
        dtype: its element type.
        strides: its strides when the program was recorded.
        requires_grad: whether it required a gradient then.
        base: a value that it shared memory with then.
    """

    shape: torch.Size
    dtype: torch.dtype
    strides: tuple[int, ...]
    requires_grad: bool = False
    base: Value | None = None

    @classmethod
    def dense(cls, shape: Sequence[int], dtype: torch.dtype) -> Value:
        """A value whose elements are side by side."""
        return cls(torch.Size(shape), dtype, dense_strides(shape))

    @classmethod
    def of(cls, tensor: Tensor) -> Value:
        """The value that stands for a tensor."""
        return cls(tensor.shape, tensor.dtype, tensor.stride(), tensor.requires_grad)


@dataclass(eq=False, slots=True)
class Call:
    """A call of one function.

    Attributes:
        function: of torch, or a `StepCall`.
        args: its positional arguments; lists, tuples and slices may contain values.
        kwargs: its keyword arguments, likewise.
        results: the tensors that it returns; `None` where it returns something else.
        is_many: whether it returns several.
        step: index of the step it belongs to.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: list[Value | None]
    is_many: bool
    step: int

    def reads(self) -> Iterator[Value]:
        """The values among its arguments."""
        return values_in((self.args, self.kwargs))

    def reading(self, others: Mapping[Value, Value]) -> Call:
        """The call that reads other values in the place of some."""
        if not any(value in others for value in self.reads()):
            return self
        args, kwargs = in_place_of((self.args, self.kwargs), others)
        return replace(self, args=args, kwargs=kwargs)


@dataclass(eq=False, slots=True)
class Check(Call):
    """A call whose result decided how a step went on.

    Attributes:
        expected: what it returned when the program was recorded.
    """

    expected: Any = None


@dataclass(eq=False)
class Program:
    """The calls that a plan makes for inputs of certain sizes.

    Attributes:
        inputs: the inputs of the graph, in the order of a call.
        weights: the weights that are read, with their places.
        constants: values that are the same in each call -> tensor.
        calls: in order.
        outputs: what it returns.
    """

    inputs: list[Value]
    weights: list[tuple[Value, WeightPlace]]
    constants: dict[Value, Tensor]
    calls: list[Call] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)

    def pruned(self) -> Program:
        """The program without constants and weights that nothing reads."""
        read = {value for call in self.calls for value in call.reads()}
        read.update(values_in(self.outputs))
        self.constants = {v: t for v, t in self.constants.items() if v in read}
        self.weights = [(value, place) for value, place in self.weights if value in read]
        return self

    def last_uses(self) -> list[list[Value]]:
        """For each call the values that nothing reads afterwards, its own unread results too."""
        kept = {*values_in(self.outputs), *self.inputs, *self.constants}
        kept.update(value for value, _ in self.weights)
        found = []
        for call in reversed(self.calls):
            read = dict.fromkeys([*call.reads(), *filter(None, call.results)])
            found.append([value for value in read if value not in kept])
            kept.update(read)
        return found[::-1]


def dense_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a contiguous tensor, those of axes of one included."""
    return tuple([torch.Size(shape[axis + 1 :]).numel() for axis in range(len(shape))])


def values_in(structure: Any) -> Iterator[Value]:
    """All values in nested lists, tuples, dicts and slices."""
    if isinstance(structure, Value):
        yield structure
    elif isinstance(structure, slice):
        yield from values_in((structure.start, structure.stop, structure.step))
    elif isinstance(structure, dict):
        yield from values_in(structure.values())
    elif isinstance(structure, Iterable) and not isinstance(structure, (str, Tensor)):
        for part in structure:
            yield from values_in(part)


def mapped(structure: Any, change: Callable[[Any], Any]) -> Any:
    """The same nested lists, tuples, dicts and slices, each leaf changed."""
    kind = type(structure)
    if kind in (list, tuple, torch.Size):
        parts = [mapped(part, change) for part in structure]
        return parts if kind is list else tuple(parts)
    if kind is dict:
        return {key: mapped(part, change) for key, part in structure.items()}
    if kind is slice:
        bounds = (structure.start, structure.stop, structure.step)
        return slice(*[mapped(bound, change) for bound in bounds])
    return change(structure)


def in_place_of(structure: Any, others: Mapping[Value, Value]) -> Any:
    """The same nested structure, with other values in the place of some."""
    return mapped(
        structure, lambda leaf: others.get(leaf, leaf) if isinstance(leaf, Value) else leaf
    )

"""Where the choices of a graph come from: hypothesis, whose examples shrink, or a seed."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Protocol, TypeVar

from hypothesis import strategies as st
from onnx import TensorProto
from onnx.defs import OpSchema

from tests.property.drawing import HypothesisDraw, SeededDraw, TypedDraw

T = TypeVar("T")

PLAIN = tuple(
    int(TensorProto.DataType.Value(name))
    for name in (
        *("FLOAT", "DOUBLE", "FLOAT16", "INT64", "INT32", "INT16", "INT8"),
        *("UINT8", "UINT16", "UINT32", "UINT64", "BOOL", "STRING"),
    )
)
"""Element types that numpy and onnxruntime's Python side have."""


class Choices(Protocol):
    """What a graph is made of."""

    def integer(self, lo: int, hi: int) -> int:
        """A number, bounds included."""
        ...

    def call_of(self, schema: OpSchema) -> TypedDraw:
        """What draws one call of an operator."""
        ...


class Drawn:
    """Hypothesis chooses."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def integer(self, lo: int, hi: int) -> int:
        return self._data.draw(st.integers(lo, hi))

    def call_of(self, schema: OpSchema) -> TypedDraw:
        return HypothesisDraw(self._data, schema, only=PLAIN)


class Seeded:
    """A seed chooses."""

    def __init__(self, seed: int | str) -> None:
        self._random = Random(seed)

    def integer(self, lo: int, hi: int) -> int:
        return self._random.randint(lo, hi)

    def call_of(self, schema: OpSchema) -> TypedDraw:
        return SeededDraw(self._random.getrandbits(64), schema, only=PLAIN)


def one_of(choices: Choices, options: Sequence[T]) -> T:
    return options[choices.integer(0, len(options) - 1)]


def chance(choices: Choices, percent: int) -> bool:
    """True in so many cases of a hundred; False is where examples shrink to."""
    return choices.integer(0, 99) >= 100 - percent

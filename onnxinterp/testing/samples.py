"""The vocabulary in which kernels describe their valid calls, free of any test library.

A sample draws one valid call of a kernel:

    @sample(softmax)
    def _(d: Draw) -> Call:
        x = d.tensor(d.shape(min_dims=1))
        return call(x, axis=d.maybe(d.axis(x.ndim)))

The tests stand behind `Draw` with hypothesis; so may any seeded generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


@dataclass
class Call:
    """One node: its inputs in order, its attributes, and how many outputs it names.

    Attributes:
        inputs: a tensor; None where absent; a number or a list of numbers for shapes, axes, sizes
            (they become int64 or float32 tensors of rank 0 or 1); a list of tensors for a sequence;
            a dict for a map; a numpy object array for strings.
        attrs: Python values; a torch dtype stands for its ONNX type number, a tensor for a
            TensorProto, an `onnx.GraphProto` for a subgraph.
        outputs: how many outputs the node names.
    """

    inputs: tuple[Any, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1


def call(*inputs: Any, outputs: Any = 1, **attrs: Any) -> Call:
    """A call; attributes that are None are absent.

    `outputs` is an int; it is declared as Any so that `**attributes` may be given beside it.
    """
    return Call(inputs, {k: v for k, v in attrs.items() if v is not None}, outputs)


class Draw(Protocol):
    """Source of arbitrary but valid values.

    A type is named as the schema names it: `d.tensor(shape)` has the one dtype drawn for "T" in
    this call, `d.tensor(shape, "T1")` that for "T1".
    """

    opset: int
    """The schema version that is being sampled."""

    def shape(
        self, min_dims: int = 0, max_dims: int = 4, min_side: int = 1, max_side: int = 4
    ) -> tuple[int, ...]:
        """A shape; in the test of empty tensors sides may be 0 where `min_side` is the default."""
        ...

    def broadcastable(self, shape: Sequence[int]) -> tuple[int, ...]:
        """A shape that broadcasts to `shape`: some leading dimensions gone, some sides 1."""
        ...

    def elem_type(self, type: str = "T") -> int:
        """The ONNX type of this call for one of the schema's type parameters."""
        ...

    def dtype(self, type: str = "T") -> torch.dtype:
        """The torch dtype that carries it; strings have none."""
        ...

    def tensor(self, shape: Sequence[int], type: str = "T", lo: float = -10, hi: float = 10) -> Any:
        """A tensor of the type of `type`, its elements between `lo` and `hi`.

        Strings come as a numpy object array.
        """
        ...

    def floats(self, shape: Sequence[int], lo: float = -10, hi: float = 10) -> Tensor:
        """A float32 tensor (float64 where gradients are checked)."""
        ...

    def ints(
        self, shape: Sequence[int], lo: int, hi: int, dtype: torch.dtype = torch.int64
    ) -> Tensor:
        """An integer tensor, bounds included."""
        ...

    def integer(self, lo: int, hi: int) -> int:
        """A number, bounds included."""
        ...

    def real(self, lo: float, hi: float) -> float:
        """A number that float32 holds exactly."""
        ...

    def axis(self, rank: int) -> int:
        """An axis of a tensor of that rank, negative ones too."""
        ...

    def axes(self, rank: int, min_size: int = 0) -> list[int]:
        """Different axes in any order, negative ones too."""
        ...

    def boolean(self) -> bool:
        """True or False."""
        ...

    def choice(self, options: Sequence[T]) -> T:
        """One of the options; the first is the simplest."""
        ...

    def permutation(self, n: int) -> list[int]:
        """The numbers 0 to n-1 in any order."""
        ...

    def maybe(self, value: T) -> T | None:
        """The value or None."""
        ...


def one_tensor(
    lo: float = -10,
    hi: float = 10,
    *,
    min_dims: int = 0,
    type: str = "T",
    **reals: tuple[float, float],
) -> Callable[[Draw], Call]:
    """A sample of one tensor, and of attributes that are absent or between two numbers."""

    def draw(d: Draw) -> Call:
        x = d.tensor(d.shape(min_dims), type, lo, hi)
        return call(x, **draw_reals(d, **reals))

    return draw


def draw_reals(d: Draw, **ends: tuple[float, float]) -> dict[str, float | None]:
    """Attributes that are absent or between two numbers."""
    return {name: d.maybe(d.real(lo, hi)) for name, (lo, hi) in ends.items()}


def draw_integers(d: Draw, count: int, lo: int, hi: int) -> list[int]:
    """So many numbers, bounds included."""
    return [d.integer(lo, hi) for _ in range(count)]


def draw_axis(d: Draw, rank: int) -> int:
    """An axis of an operator that has negative ones from opset 11 on."""
    return d.axis(rank) if d.opset >= 11 else d.integer(0, rank - 1)

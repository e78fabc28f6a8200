"""`Draw` behind which a test stands: structure out of drawn integers, elements out of a seed.

HypothesisDraw   hypothesis draws the integers: examples shrink; seed 0, where they end, is a ramp
SeededDraw       a random generator does: many cheap calls, each of the types it is told
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from random import Random
from typing import Any, TypeVar

import numpy as np
import torch
from hypothesis import strategies as st
from onnx import TensorProto
from onnx.defs import OpSchema
from torch import Tensor

from onnxinterp.dtypes import CARRIER, FLOAT8E8M0, NARROW, onnx_name
from onnxinterp.graph.types import ELEMENT
from onnxinterp.ops.narrow import limits, round_to_type
from tests.property.served import label
from tests.property.unjudged import UNJUDGED

T = TypeVar("T")

STRING = int(TensorProto.STRING)
FLOATING = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
COMMON = tuple(t for t in CARRIER if t not in NARROW)  # what a module takes and gives as it is
WORDS = ("a", "", "b", "Ab", "10", "zz", "straße", "日本")
SPECIAL = (float("nan"), float("inf"), -float("inf"), -0.0, 0.0, 1.0, -1.0, 0.5, 3e38, 1e-38)


def tensor_types(type_strings: Collection[str]) -> list[int]:
    """The element types in the type strings of a schema, those of sequences and optionals too."""
    found = (re.search(r"tensor\(\w+\)", t) for t in type_strings)
    numbers = {ELEMENT[m[0]] for m in found if m and m[0] in ELEMENT}
    return [t for t in (*CARRIER, STRING) if t in numbers]


class TypedDraw(ABC):
    """One call's worth of choices, all made of `integer`.

    Args:
        schema: the version that is sampled.
        types: type parameters of the schema whose element type is told.
        only: the element types to choose from, for parameters that admit some of them.
        floating: the torch type that floating tensors have, whatever was chosen.
        special: elements of floating tensors are nan, inf, -0.0 and the like.
        empty: sides may be 0.
    """

    def __init__(
        self,
        schema: OpSchema,
        *,
        types: Mapping[str, int] | None = None,
        only: Collection[int] = (),
        floating: torch.dtype | None = None,
        special: bool = False,
        empty: bool = False,
    ) -> None:
        self.opset = schema.since_version
        self.types = dict(types or {})
        self._only = FLOATING if floating is not None else only
        self._floating, self._special, self._empty = floating, special, empty
        self._admitted = {
            c.type_param_str: [
                t
                for t in tensor_types(c.allowed_type_strs)
                if (label(schema), f"{c.type_param_str}={onnx_name(t)}") not in UNJUDGED
            ]
            for c in schema.type_constraints
        }

    @abstractmethod
    def integer(self, lo: int, hi: int) -> int:
        """A number, bounds included."""

    def shape(
        self, min_dims: int = 0, max_dims: int = 4, min_side: int = 1, max_side: int = 4
    ) -> tuple[int, ...]:
        least = 0 if self._empty and min_side == 1 else min_side
        return tuple(self.integer(least, max_side) for _ in range(self.integer(min_dims, max_dims)))

    def broadcastable(self, shape: Sequence[int]) -> tuple[int, ...]:
        kept = shape[self.integer(0, len(shape)) :]
        return tuple(1 if self.boolean() else side for side in kept)

    def elem_type(self, type: str = "T") -> int:
        if type not in self.types:
            admitted = self._admitted.get(type) or [int(TensorProto.FLOAT)]
            self.types[type] = self.choice([t for t in admitted if t in self._only] or admitted)
        return self.types[type]

    def dtype(self, type: str = "T") -> torch.dtype:
        dtype = CARRIER[self.elem_type(type)]
        wide = self._floating is not None and dtype.is_floating_point
        return self._floating if wide and self._floating else dtype

    def tensor(self, shape: Sequence[int], type: str = "T", lo: float = -10, hi: float = 10) -> Any:
        elem_type = self.elem_type(type)
        if elem_type == STRING:
            picked = np.random.default_rng(self._seed()).choice(WORDS, int(np.prod(shape)))
            return picked.astype(object).reshape(shape)
        dtype = self.dtype(type)
        if elem_type == FLOAT8E8M0:
            return torch.ldexp(torch.ones(tuple(shape)), self.ints(shape, -3, 3)).to(dtype)
        if dtype.is_complex:
            parts = self._elements(shape, lo, hi), self._elements(shape, lo, hi)
            return torch.complex(*parts).to(dtype)
        if dtype.is_floating_point:
            return round_to_type(self._elements(shape, lo, hi), elem_type).to(dtype)
        if dtype is torch.bool:
            return self.ints(shape, 0, 1).bool()
        info = torch.iinfo(dtype)
        least, most = limits(elem_type) or (info.min, info.max)
        return self.ints(shape, max(int(lo), least), min(int(hi), most), dtype)

    def floats(self, shape: Sequence[int], lo: float = -10, hi: float = 10) -> Tensor:
        return self._elements(shape, lo, hi).to(self._floating or torch.float32)

    def _elements(self, shape: Sequence[int], lo: float, hi: float) -> Tensor:
        """Elements that float32 holds exactly, as float64."""
        seed, count = self._seed(), int(np.prod(shape))
        if self._special:
            picked = np.random.default_rng(seed).choice(SPECIAL, count)
            return torch.from_numpy(picked.astype(np.float32).reshape(shape)).double()
        if seed == 0 and self._floating is None:
            values = np.linspace(lo, hi, count) if count > 1 else np.full(count, (lo + hi) / 2)
        else:
            values = np.random.default_rng(seed).uniform(lo, hi, count)
        return torch.from_numpy(values.astype(np.float32).reshape(shape)).double()

    def ints(
        self, shape: Sequence[int], lo: int, hi: int, dtype: torch.dtype = torch.int64
    ) -> Tensor:
        drawn = np.random.default_rng(self._seed()).integers(lo, hi, shape, endpoint=True)
        return torch.from_numpy(np.asarray(drawn)).to(dtype)

    def _seed(self) -> int:
        return self.integer(0, 2**16)

    def real(self, lo: float, hi: float) -> float:
        return lo + (hi - lo) * self.integer(0, 64) / 64

    def axis(self, rank: int) -> int:
        return self.integer(-rank, rank - 1)

    def axes(self, rank: int, min_size: int = 0) -> list[int]:
        picked = self.permutation(rank)[: self.integer(min(min_size, rank), rank)]
        return [axis - rank if self.boolean() else axis for axis in picked]

    def boolean(self) -> bool:
        return bool(self.integer(0, 1))

    def choice(self, options: Sequence[T]) -> T:
        return options[self.integer(0, len(options) - 1)]

    def permutation(self, n: int) -> list[int]:
        left = list(range(n))
        return [left.pop(self.integer(0, len(left) - 1)) for _ in range(n)]

    def maybe(self, value: T) -> T | None:
        return value if self.boolean() else None


class HypothesisDraw(TypedDraw):
    """Hypothesis draws."""

    def __init__(self, data: st.DataObject, schema: OpSchema, **setting: Any) -> None:
        super().__init__(schema, **setting)
        self._data = data

    def integer(self, lo: int, hi: int) -> int:
        return self._data.draw(st.integers(lo, hi))


class SeededDraw(TypedDraw):
    """The same seed draws the same call."""

    def __init__(self, seed: int | str, schema: OpSchema, **setting: Any) -> None:
        super().__init__(schema, **setting)
        self._random = Random(seed)

    def integer(self, lo: int, hi: int) -> int:
        return self._random.randint(lo, hi)

"""`Draw` with hypothesis behind it: structure is drawn and shrinks, elements come from a seed.

A seed keeps large runs fast; seed 0, where shrinking ends, is a plain ramp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx.defs import OpSchema
from torch import Tensor

T = TypeVar("T")

DTYPES = {
    "tensor(float)": torch.float32,
    "tensor(double)": torch.float64,
    "tensor(float16)": torch.float16,
    "tensor(int64)": torch.int64,
    "tensor(int32)": torch.int32,
    "tensor(int8)": torch.int8,
    "tensor(uint8)": torch.uint8,
    "tensor(bool)": torch.bool,
}
SPECIAL = (float("nan"), float("inf"), -float("inf"), -0.0, 0.0, 1.0, -1.0, 0.5, 3e38, 1e-38)


class HypothesisDraw:
    """One call's worth of choices.

    Args:
        data: hypothesis' source.
        schema: the version that is sampled.
        floating: the only floating type to use, where a test needs one.
        special: elements of floating tensors are nan, inf, -0.0 and the like.
        empty: sides may be 0.
    """

    def __init__(
        self,
        data: st.DataObject,
        schema: OpSchema,
        *,
        floating: torch.dtype | None = None,
        special: bool = False,
        empty: bool = False,
    ) -> None:
        self._draw = data.draw
        self.opset = schema.since_version
        self._allowed = {
            c.type_param_str: [DTYPES[t] for t in DTYPES if t in c.allowed_type_strs]
            for c in schema.type_constraints
        }
        self._chosen: dict[str, torch.dtype] = {}
        self._floating = floating
        self._special = special
        self._empty = empty

    def shape(
        self, min_dims: int = 0, max_dims: int = 4, min_side: int = 1, max_side: int = 4
    ) -> tuple[int, ...]:
        least = 0 if self._empty and min_side == 1 else min_side
        sides = hnp.array_shapes(
            min_dims=min_dims, max_dims=max_dims, min_side=least, max_side=max_side
        )
        return self._draw(sides)

    def broadcastable(self, shape: Sequence[int]) -> tuple[int, ...]:
        kept = shape[self.integer(0, len(shape)) :]
        return tuple(1 if self.boolean() else side for side in kept)

    def dtype(self, type: str = "T") -> torch.dtype:
        if type not in self._chosen:
            allowed = self._allowed.get(type, [torch.float32])
            if self._floating is not None:
                allowed = [d for d in allowed if d.is_floating_point] or allowed
            chosen = self.choice(allowed or [torch.float32])
            wide = self._floating is not None and chosen.is_floating_point
            self._chosen[type] = self._floating if wide else chosen
        return self._chosen[type]

    def tensor(
        self, shape: Sequence[int], type: str = "T", lo: float = -10, hi: float = 10
    ) -> Tensor:
        dtype = self.dtype(type)
        if dtype.is_floating_point:
            return self._elements(shape, lo, hi).to(dtype)
        if dtype is torch.bool:
            return self.ints(shape, 0, 1).bool()
        info = torch.iinfo(dtype)
        return self.ints(shape, max(int(lo), info.min), min(int(hi), info.max), dtype)

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

    def integer(self, lo: int, hi: int) -> int:
        return self._draw(st.integers(lo, hi))

    def real(self, lo: float, hi: float) -> float:
        return lo + (hi - lo) * self.integer(0, 64) / 64

    def axis(self, rank: int) -> int:
        return self._draw(st.integers(-rank, rank - 1))

    def axes(self, rank: int, min_size: int = 0) -> list[int]:
        picked = self.permutation(rank)[: self.integer(min(min_size, rank), rank)]
        return [axis - rank if self.boolean() else axis for axis in picked]

    def boolean(self) -> bool:
        return self._draw(st.booleans())

    def choice(self, options: Sequence[T]) -> T:
        return self._draw(st.sampled_from(options))

    def permutation(self, n: int) -> list[int]:
        return self._draw(st.permutations(range(n)))

    def maybe(self, value: T) -> T | None:
        return value if self.boolean() else None

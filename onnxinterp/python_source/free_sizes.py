"""Sizes that a file leaves free: symbols, and tensors without data that have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sympy
import torch
from torch import Tensor
from torch._dispatch.python import enable_python_dispatcher
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    ShapeEnv,
    StatelessSymbolicContext,
    free_unbacked_symbols,
)

from onnxinterp.errors import InputError

SYMBOLS = (torch.SymInt, torch.SymFloat, torch.SymBool)


def free_axes(declared: Sequence[Any] | None, rank: int) -> list[int]:
    """The axes whose sizes a file does not fix."""
    sizes = [None] * rank if declared is None else declared
    return [axis for axis, n in enumerate(sizes) if not isinstance(n, int) or n < 0]


class FreeSizes:
    """Sizes that are symbols, and tensors without data that have them."""

    def __init__(self) -> None:
        self.env = ShapeEnv(duck_shape=False)
        self.mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=self.env)
        self.ignored = 0
        self.ones: list[tuple[str, int]] = []  # input and axis that the file leaves free
        self._made = 0
        self._of_data: dict[Any, Any] = {}  # size that follows from data -> its symbol
        self._conditions: list[Any] = []

    @contextmanager
    def active(self) -> Iterator[None]:
        """Tensors are made without data meanwhile."""
        with self.mode, enable_python_dispatcher():
            yield

    def fixed(self, tensor: Tensor) -> Tensor:
        """A tensor without data that has the sizes of another."""
        return self.mode.from_tensor(tensor.detach(), static_shapes=True)

    def of_inputs(self, infos: Any, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inputs without data."""
        return {name: self.free(name, x, infos[name].shape) for name, x in given.items()}

    def free(self, name: str, example: Tensor, declared: Sequence[Any] | None) -> Tensor:
        """A tensor without data, with a symbol for each size that is not declared."""
        dims = [DimDynamic.STATIC] * example.ndim
        for axis in free_axes(declared, example.ndim):
            if example.shape[axis] == 0:
                what = f"free sizes must not be 0 in the example, got {list(example.shape)}"
                raise InputError(f"{what} for input {name!r}")
            if example.shape[axis] == 1:  # the module cannot run with two
                self.ones.append((name, axis))
            else:
                dims[axis] = DimDynamic.DYNAMIC
        context: Any = StatelessSymbolicContext(dims)
        source = ConstantSource(name)
        return self.mode.from_tensor(example, source=source, symbolic_context=context)

    def of_data(self, name: str, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
        """A tensor without data whose sizes follow from data: each is a symbol."""
        return self._like(name, dtype, [None] * len(shape))

    def _like(self, name: str, dtype: torch.dtype, shape: Sequence[Any]) -> Tensor:
        """A tensor without data that has a new symbol for each size that is None."""
        known = [2 if size is None else size for size in shape]
        dims = [DimDynamic.STATIC if type(size) is int else DimDynamic.DYNAMIC for size in shape]
        with unset_fake_temporarily():
            example = torch.empty([n if type(n) is int else 2 for n in known], dtype=dtype)
        context: Any = StatelessSymbolicContext(dims)
        self._made += 1
        source = ConstantSource(f"{name}_{self._made}")
        made = self.mode.from_tensor(example, source=source, symbolic_context=context)
        sizes = [m if size is None else size for m, size in zip(made.shape, shape, strict=True)]
        return torch.empty(sizes, dtype=dtype)

    def with_symbols(self, result: Tensor) -> Tensor:
        """A result whose sizes follow from data, with symbols that have example values."""
        unknown = [
            isinstance(size, torch.SymInt) and bool(free_unbacked_symbols(size))
            for size in result.shape
        ]
        if not any(unknown):
            return result
        known = [
            self._of_data.get(self.expression(size)) if u else size
            for u, size in zip(unknown, result.shape, strict=True)
        ]
        made = self._like("data", result.dtype, known)
        for u, size, found in zip(unknown, result.shape, made.shape, strict=True):
            if u:
                self._of_data[self.expression(size)] = found
        return made

    def keep_conditions(self) -> None:
        """Keep what kernels have decided by sizes since; torch checks its own at each call."""
        self._conditions += self.env.guards[self.ignored :]
        self.ignored = len(self.env.guards)

    @property
    def n_conditions(self) -> int:
        """How many conditions are kept."""
        return len(self._conditions)

    def forget_conditions(self, n_kept: int) -> None:
        """Forget all conditions but so many: what decided by them is not written."""
        del self._conditions[n_kept:]
        self.ignore_conditions()

    def ignore_conditions(self) -> None:
        """Forget what was decided since, by functions of torch."""
        self.ignored = len(self.env.guards)

    def expression(self, number: Any) -> Any:
        """A number, or the expression of a symbol."""
        if isinstance(number, SYMBOLS):
            found = self.env.replace(number.node.expr)
            if found.is_Integer:
                return int(found)
            return float(found) if found.is_Float else found
        return number

    def replaced(self, expression: Any) -> Any:
        """An expression in which symbols that are equal are one."""
        return self.env.replace(expression) if isinstance(expression, sympy.Basic) else expression

    def conditions(self) -> list[sympy.Expr]:
        """What kernels decided by sizes, and is not known to hold for all."""
        found = [self.env.replace(guard.expr) for guard in self._conditions]
        return [c for c in dict.fromkeys(found) if c not in (sympy.true, sympy.false)]

    def names(self, infos: Any, inputs: Mapping[str, Tensor]) -> dict[sympy.Symbol, str]:
        """Symbol -> the name that the file has for the size."""
        found: dict[sympy.Symbol, str] = {}
        for name, tensor in inputs.items():
            for size, declared in zip(tensor.shape, infos[name].shape or (), strict=False):
                expression = self.expression(size)
                if isinstance(expression, sympy.Symbol):
                    found.setdefault(expression, declared if isinstance(declared, str) else "")
        return found

"""A tape for source: it notes functions as they are called, not what those in Python call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from onnxinterp.programs.functions import name_of
from onnxinterp.programs.tape import NotRecordableError, Tape, tensors_in
from onnxinterp.python_source.bodies import Seeded, Size
from onnxinterp.python_source.free_sizes import SYMBOLS, FreeSizes
from onnxinterp.python_source.functions import public_name


class SourceTape(Tape):
    """Notes functions of torch as they are called, not what those written in Python call."""

    def __init__(self, sizes: FreeSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self._generators: list[torch.Generator] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._is_paused:
            return func(*args, **kwargs)
        self.sizes.keep_conditions()
        result = func(*args, **kwargs)
        with self.paused():
            result = mapped_results(result, self.sizes.with_symbols)
        self.sizes.ignore_conditions()
        return self._noted(func, args, kwargs, result)

    def _note(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> Any:
        if isinstance(result, torch.dtype) or name_of(func) == "_set_grad_enabled":
            return self._note_setting(args, result)
        if isinstance(result, SYMBOLS) and not tensors_in(args):
            return result  # a number of numbers
        if not isinstance(result, (int, float)) and public_name(func) is None:
            raise NotRecordableError(f"a function that is not public: {func}")
        return super()._note(func, args, kwargs, result)

    @staticmethod
    def _note_setting(args: Any, result: Any) -> Any:
        """Note nothing: a type is fixed, and no gradient is recorded anyway."""
        if args and args[0] is True:
            raise NotRecordableError("a gradient inside the network")
        return result

    def _encode(self, leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and not isinstance(leaf, FakeTensor):
            self.constants[id(leaf)] = leaf  # it has data: it was there before
        if isinstance(leaf, torch.Generator):
            if leaf in self._generators:
                raise NotRecordableError("a generator of random numbers that is used twice")
            self._generators.append(leaf)
            return Seeded(leaf.initial_seed())
        if isinstance(leaf, SYMBOLS):
            found = self.sizes.expression(leaf)
            return Size(found) if isinstance(found, sympy.Basic) else found
        return super()._encode(leaf)

    def _add_check(self, function: Any, args: Any, kwargs: Any, expected: Any) -> None:
        del args, kwargs, expected
        raise NotRecordableError(f"a decision by data: {name_of(function)}")

    def _check_shapes(self, tensors: Any, values: Any) -> None:
        """Sizes that follow from data are symbols: there is nothing to check."""


def mapped_results(result: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """What a function returns, each tensor changed."""
    if isinstance(result, Tensor):
        return change(result)
    if type(result) in (list, tuple):
        return type(result)([mapped_results(part, change) for part in result])
    return result

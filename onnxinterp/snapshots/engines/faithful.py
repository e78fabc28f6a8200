"""The module itself, in `eval()` mode and without gradients: always right, and never stale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from onnxinterp.snapshots.engines import Options, Runner
from onnxinterp.snapshots.subject import Subject, evaluate


class Faithful:
    """Runs the plan of a module."""

    takes_any_sizes = True

    def __init__(self, module: Subject) -> None:
        self._module = module
        holders = (*module.modules(), module.weights.constants)
        self._buffers = [m._buffers for m in holders if m._buffers]

    def __call__(self, inputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
        """Run once; results may be no tensors, where the model has such outputs."""
        return self.run(dict(zip(self._module.input_names, inputs, strict=True)))

    def run(self, given: Mapping[str, Any]) -> tuple[Any, ...]:
        """Run once.

        Args:
            given: inputs by name, initializers among them.

        Returns:
            Results that share memory with no input, no weight, and not with each other.
        """
        results = evaluate(self._module, given)
        seen = {_address(x) for x in given.values() if isinstance(x, Tensor)}
        kept = {id(t) for table in self._buffers for t in table.values()}
        return tuple([_own(result, seen, kept) for result in results])


def prepare(module: Subject, inputs: tuple[Tensor, ...], options: Options) -> Runner:  # noqa: ARG001
    """The module as it is; there is nothing to prepare."""
    return Faithful(module)


def _own(value: Any, seen: set[int], kept: set[int]) -> Any:
    if isinstance(value, list):
        return [_own(element, seen, kept) for element in value]
    if isinstance(value, np.ndarray):
        return value.copy()
    if not isinstance(value, Tensor):
        return value
    # a view may be one of a weight
    if value._is_view() or isinstance(value, nn.Parameter) or id(value) in kept:
        return value.detach().clone()
    if (address := _address(value)) in seen:
        return value.detach().clone()
    seen.add(address)
    return value


def _address(value: Tensor) -> int:
    storage = value.untyped_storage()
    return storage._cdata if value.is_meta else storage.data_ptr() or id(value)

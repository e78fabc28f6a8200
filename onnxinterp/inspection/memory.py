"""Memory of every step of one run, with its shapes and floating point operations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from onnxinterp.inspection.measure import Measuring
from onnxinterp.runtime.interpreter import Frame, by_name
from onnxinterp.runtime.plan import Step


class MeasuringMemory(Measuring):
    """Records one run, its activations too: what steps allocate for their results.

    Attributes:
        allocated: step -> bytes of new storages of its results, in all calls. A view has none.
        alive: step -> most bytes of all activations that are alive after a call of it.
        result_shapes: step -> shapes of its results in the last call, those of tensors.
        peak: the most bytes of activations at any moment.
    """

    def __init__(self) -> None:
        super().__init__()
        self.allocated: dict[Step, int] = {}
        self.alive: dict[Step, int] = {}
        self.result_shapes: dict[Step, tuple[tuple[int, ...], ...]] = {}
        self.peak = 0
        self._storages: dict[StorageWeakRef, int] = {}  # of activations that were alive

    def run_step(self, step: Step, frame: Frame) -> Any:
        """Run the step, and record its memory."""
        values = [frame.values.get(key) for key in step.reads]
        known = {tensor.untyped_storage().data_ptr() for tensor in _tensors(values)}
        result = super().run_step(step, frame)
        self._storages = {ref: size for ref, size in self._storages.items() if _is_alive(ref)}
        before = sum(self._storages.values())
        for storage in [tensor.untyped_storage() for tensor in _tensors(result)]:
            if storage.data_ptr() not in known:  # it may be that of a step in a subgraph
                self._storages[_reference(storage)] = storage.nbytes()
        alive = sum(self._storages.values())
        self.allocated[step] = self.allocated.get(step, 0) + alive - before
        self.alive[step] = max(self.alive.get(step, 0), alive)
        self.peak = max(self.peak, alive)
        results = [value for _, value in by_name(step, result) if hasattr(value, "shape")]
        self.result_shapes[step] = tuple([tuple(value.shape) for value in results])
        return result


def _reference(storage: torch.UntypedStorage) -> StorageWeakRef:
    return StorageWeakRef(storage)  # type: ignore[no-untyped-call]  # untyped in torch


def _is_alive(storage: StorageWeakRef) -> bool:
    return not storage.expired()  # type: ignore[no-untyped-call]  # untyped in torch


def _tensors(value: Any) -> Iterator[Tensor]:
    """The dense tensors in a value: of a sequence, a map or a tuple of results, each."""
    if isinstance(value, Tensor) and value.layout is torch.strided:
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)

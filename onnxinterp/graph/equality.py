"""Large tensors of equal data, found without reading all data of all tensors."""

from __future__ import annotations

import torch
from torch import Tensor

MIN_ELEMENTS = 64  # smaller tensors may be equal by chance
MIN_DISTINCT = 16  # different elements among those that are looked at: a mask is no weight
SAMPLED, SAMPLED_ON_MATCH = 12, 4096  # elements
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class Equals:
    """Tensors by a few of their elements; if these agree, all elements are compared."""

    def __init__(self) -> None:
        self._found: dict[tuple[object, ...], tuple[str, Tensor]] = {}

    def find(self, tensor: Tensor) -> str | None:
        """The name of a tensor with the same shape, type and bits; None where there is none."""
        if not _is_large(tensor):
            return None
        name, other = self._found.get(_fingerprint(tensor), ("", None))
        if other is None or not torch.equal(_bits(tensor), _bits(other)):
            return None
        return (
            name if len(set(_sample(tensor, SAMPLED_ON_MATCH).tolist())) >= MIN_DISTINCT else None
        )

    def add(self, tensor: Tensor, name: str) -> None:
        """Remember a tensor; of several whose sampled elements agree, the first one."""
        if _is_large(tensor):
            self._found.setdefault(_fingerprint(tensor), (name, tensor))


def _is_large(tensor: Tensor) -> bool:
    return tensor.ndim > 1 and tensor.numel() >= MIN_ELEMENTS and tensor.itemsize in INTEGERS


def _bits(tensor: Tensor) -> Tensor:
    return tensor.view(INTEGERS[tensor.itemsize])


def _fingerprint(tensor: Tensor) -> tuple[object, ...]:
    return (tensor.dtype, tensor.shape, *_sample(tensor, SAMPLED).tolist())


def _sample(tensor: Tensor, count: int) -> Tensor:
    """Elements at evenly spaced places, in the order of the indices whatever the strides."""
    size = tensor.numel()
    places = torch.arange(min(count, size)) * (size // min(count, size))
    return _bits(tensor)[torch.unravel_index(places, tensor.shape)]

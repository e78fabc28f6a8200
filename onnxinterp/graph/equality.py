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

    def find(self, tensor: Tensor, name: str = "") -> str | None:
        """The name of a tensor with the same shape, type and bits; None where there is none.

        Args:
            tensor: on the CPU.
            name: remember the tensor by this name, if none resembles it.
        """
        if tensor.ndim < 2 or tensor.numel() < MIN_ELEMENTS or tensor.itemsize not in INTEGERS:
            return None
        bits = tensor.view(INTEGERS[tensor.itemsize])
        key = (tensor.dtype, tensor.shape, *_sample(bits, SAMPLED))
        if (found := self._found.get(key)) is None:
            if name:
                self._found[key] = name, bits
            return None
        other, its_bits = found
        if not torch.equal(bits, its_bits):
            return None
        return other if len(set(_sample(bits, SAMPLED_ON_MATCH))) >= MIN_DISTINCT else None


def _sample(bits: Tensor, count: int) -> list[int]:
    """Elements at evenly spaced places, in the order of the indices whatever the strides."""
    size = bits.numel()
    places = range(0, size, max(size // count, 1))
    sampled: list[int] = bits.numpy().flat[places].tolist()
    return sampled

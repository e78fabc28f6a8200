"""Memory for the elements of tensors.

    own_memory  for one tensor
    Reuse       the same memory for the tensors that one is split into

Each tensor is a storage of its own: torch saves the whole storage of a tensor.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

MIN_MAP_BYTES = 2**16  # tensors from this size get memory pages of their own
MAP_FLAGS: int | None = (
    mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    if hasattr(mmap, "MAP_POPULATE")  # Linux hands out all pages at once, which is quicker
    else None
)
Pages: TypeAlias = "bytearray | mmap.mmap"


def own_memory(size: int) -> Pages:
    """Memory for one tensor.

    In the heap, between the pieces of the parsed model, a large one would keep their memory from
    returning to the system when they are freed.
    """
    if size < MIN_MAP_BYTES:
        return bytearray(size)
    if MAP_FLAGS is None:
        return mmap.mmap(-1, size, access=mmap.ACCESS_COPY)  # of this process alone
    return mmap.mmap(-1, size, flags=MAP_FLAGS)


class Reuse:
    """Splits tensors into others, which are stored in the same memory.

    The system hands out new memory page by page, which takes longer than to fill it.

    Args:
        size: bytes of the largest tensor.
    """

    def __init__(self, size: int) -> None:
        self._spare = torch.frombuffer(own_memory(max(size, 1)), dtype=torch.uint8)

    def split(
        self, tensor: Tensor, split: Callable[[Tensor], Sequence[Tensor]]
    ) -> tuple[Tensor, ...]:
        """The parts of a tensor, contiguous and each a storage of its own.

        Args:
            tensor: contiguous; it must not be used any more.
            split: tensor -> its parts, which have all its elements, perhaps as views of it.
        """
        copy = self._spare[: tensor.nbytes].view(tensor.dtype).view(tensor.shape).copy_(tensor)
        data, stop, parts = tensor.reshape(-1).view(torch.uint8).numpy(), 0, []
        for part in split(copy):
            start, stop = stop, stop + part.nbytes
            memory = torch.from_numpy(data[start:stop]).view(part.dtype).view(part.shape)
            parts.append(memory.copy_(part))
        return tuple(parts)

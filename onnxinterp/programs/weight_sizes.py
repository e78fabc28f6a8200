"""Sizes and types of weights, on which the numbers in a program depend.

`.data = ...`, `load_state_dict(assign=True)` and `functional_call` may put others in their places.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch._C._dynamo.guards import TensorGuards


class WeightSizes:
    """What the sizes and types of some weights were.

    Args:
        weights: as they are now.
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        weights = list(weights)
        self._known = _outlines(weights)
        sizes: Any = [list(t.shape) for t in weights]
        free: Any = [[None] * t.ndim for t in weights]  # strides
        self._guards = TensorGuards(*weights, dynamic_dims_sizes=sizes, dynamic_dims_strides=free)

    def hold(self, weights: Iterable[Tensor]) -> bool:
        """Whether others have the same sizes and types."""
        if self._guards.check(*weights):  # fast, and stricter: it sees `requires_grad`, too
            return True
        return _outlines(weights) == self._known


def _outlines(weights: Iterable[Tensor]) -> list[tuple[torch.Size, torch.dtype, torch.device]]:
    return [(t.shape, t.dtype, t.device) for t in weights]

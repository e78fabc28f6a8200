"""Sizes and types of weights, on which the numbers in a program depend.

`.data = ...`, `load_state_dict(assign=True)` and `functional_call` may put others in their places;
tools put tensors of classes of their own there (DTensor, quantized weights), which only the loop
computes with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn
from torch._C._dynamo.guards import TensorGuards

PLAIN = (Tensor, nn.Parameter)


class WeightSizes:
    """What the sizes and types of some weights were.

    Args:
        weights: as they are now.
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        weights = list(weights)
        self._guards: TensorGuards | None = None
        self._known = _outlines(weights)
        if self._known is not None:
            sizes: Any = [list(t.shape) for t in weights]
            free: Any = [[None] * t.ndim for t in weights]  # strides
            self._guards = TensorGuards(
                *weights, dynamic_dims_sizes=sizes, dynamic_dims_strides=free
            )

    def hold(self, weights: Sequence[Tensor]) -> bool:
        """Whether weights, plain tensors, have the same sizes and types."""
        if self._guards is None:
            return False
        if self._guards.check(*weights):  # fast, and stricter: it sees `requires_grad`, too
            return True
        return _outlines(weights) == self._known


def _outlines(weights: Sequence[Tensor]) -> list[Any] | None:
    if not all(type(t) in PLAIN for t in weights):
        return None
    return [(t.shape, t.dtype, t.device) for t in weights]

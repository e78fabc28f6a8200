"""A classifier of sequences, for tests of ways out of an import."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class Recurrent(nn.Module):
    """A recurrent layer with the head of a classifier."""

    def __init__(self, layer: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.layer = layer(4, 5, bidirectional=True, batch_first=True)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])

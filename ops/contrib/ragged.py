"""Sequences of different lengths, one after another in one tensor.

`cumulative` has the place where each sequence starts, and the end of the last one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from onnxinterp.testing.samples import Draw


class Ragged(NamedTuple):
    """Where the tokens of a batch of sequences are.

    Attributes:
        rows: the place of token i of each sequence, [batch, tokens].
        valid: whether it has one.
        request: the sequence of each token.
        place: the number of the token in it.
        lengths: of the sequences.
    """

    rows: Tensor
    valid: Tensor
    request: Tensor
    place: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, cumulative: Tensor, tokens: int) -> Ragged:
        """The sequences of so many tokens in all. No size depends on elements of a tensor."""
        if cumulative.ndim != 1 or cumulative.shape[0] < 2 or tokens < 1:
            got = f"{list(cumulative.shape)} for {tokens} tokens"
            raise ValueError(f"there must be the ends of sequences, got {got}")
        every = torch.arange(tokens, device=cumulative.device)
        starts, ends = cumulative[:-1].long(), cumulative[1:].long()
        lengths = ends - starts
        rows = (starts.unsqueeze(1) + every).clamp(0, tokens - 1)
        request = torch.searchsorted(ends, every, right=True).clamp_max(ends.shape[0] - 1)
        place = (every - starts[request]).clamp(0, tokens - 1)
        return cls(rows, every < lengths.unsqueeze(1), request, place, lengths)

    def pad(self, x: Tensor) -> Tensor:
        """[tokens, ...] as [batch, tokens, ...], with 0 after the end of a sequence."""
        padded = x[self.rows]
        return padded.where(self.valid.reshape(*self.valid.shape, *[1] * (x.ndim - 1)), 0)

    def pack(self, y: Tensor) -> Tensor:
        """[batch, tokens, ...] as [tokens, ...]."""
        return y[self.request, self.place]


def draw_ends(d: Draw) -> tuple[int, int, Tensor]:
    """The number of sequences and of tokens, and where the sequences start and end."""
    lengths = [d.integer(1, 3) for _ in range(d.integer(1, 3))]
    ends = torch.tensor([0, *lengths]).cumsum(0).int()
    return len(lengths), sum(lengths), ends

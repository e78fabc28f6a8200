"""An encoder in the manner of BERT: learned positions, padding mask, attention written by hand.

Every size is read from a tensor at run time, so its graph carries the chains of Shape, Gather,
Unsqueeze, Concat and Reshape that a dynamic transformer is known for.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the name by which torch's users know it
from torch import Tensor, nn

from tests.exports.case import Case, Input, prefix_mask, tokens

VOCABULARY = 97
WIDTH = 32
HEADS = 4


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.output = nn.Linear(WIDTH, WIDTH)

    def _split(self, x: Tensor) -> Tensor:
        """[batch, length, width] -> [batch, heads, length, width of a head]."""
        return x.view(x.size(0), x.size(1), HEADS, x.size(2) // HEADS).transpose(1, 2)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = self._split(self.query(x)), self._split(self.key(x)), self._split(self.value(x))
        scores = q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS) + bias
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).contiguous()
        return self.output(mixed.view(x.size(0), x.size(1), x.size(2)))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = SelfAttention()
        self.attention_norm = nn.LayerNorm(WIDTH)
        self.intermediate = nn.Linear(WIDTH, 4 * WIDTH)
        self.output = nn.Linear(4 * WIDTH, WIDTH)
        self.output_norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = self.attention_norm(x + self.attention(x, bias))
        return self.output_norm(x + self.output(F.gelu(self.intermediate(x))))


class Encoder(nn.Module):
    """Token ids and a padding mask in, the hidden states and their pooled first state out."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(64, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.layers = nn.ModuleList([Layer(), Layer()])
        self.pooler = nn.Linear(WIDTH, WIDTH)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        places = torch.arange(ids.size(1), device=ids.device).unsqueeze(0).expand(ids.size())
        x = self.norm(self.words(ids) + self.positions(places))
        bias = (1.0 - mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        for layer in self.layers:
            x = layer(x, bias)
        return x, torch.tanh(self.pooler(x[:, 0]))


ENCODER = Case(
    name="encoder",
    network=Encoder,
    inputs=(
        Input("ids", ("batch", "length"), tokens(VOCABULARY)),
        Input("mask", ("batch", "length"), prefix_mask),
    ),
    outputs=("hidden", "pooled"),
    sizes=({"batch": 2, "length": 9}, {"batch": 3, "length": 5}, {"batch": 5, "length": 16}),
    edges=({"batch": 1, "length": 1}, {"batch": 1, "length": 12}),
    torchscript=(11, 13, 17, 20),
    dynamo=(18, 23),
)

"""A decoder in the manner of GPT-2, with its key and value cache as graph inputs and outputs.

The causal mask is a slice of a constant square, cut at bounds the graph computes from the cache.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the name by which torch's users know it
from torch import Tensor, nn

from tests.exports.case import Case, Input, floats, tokens

VOCABULARY = 101
WIDTH = 32
HEADS = 4
CONTEXT = 64


class CausalAttention(nn.Module):
    causal: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.joint = nn.Linear(WIDTH, 3 * WIDTH)
        self.output = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("causal", torch.ones(CONTEXT, CONTEXT).tril().bool(), persistent=False)

    def forward(self, x: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (
            part.view(x.size(0), x.size(1), HEADS, -1).permute(0, 2, 1, 3)
            for part in self.joint(x).split(WIDTH, dim=2)
        )
        k, v = torch.cat((key, k), dim=2), torch.cat((value, v), dim=2)
        seen = self.causal[k.size(2) - q.size(2) : k.size(2), : k.size(2)]
        scores = q @ k.transpose(-1, -2) * q.size(-1) ** -0.5
        scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
        mixed = (scores.softmax(-1) @ v).permute(0, 2, 1, 3)
        return self.output(mixed.reshape(x.shape)), k, v


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(WIDTH)
        self.attention = CausalAttention()
        self.expand_norm = nn.LayerNorm(WIDTH)
        self.expand = nn.Linear(WIDTH, 4 * WIDTH)
        self.contract = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mixed, key, value = self.attention(self.attention_norm(x), key, value)
        x = x + mixed
        hidden = F.gelu(self.expand(self.expand_norm(x)), approximate="tanh")
        return x + self.contract(hidden), key, value


class Decoder(nn.Module):
    """Token ids and each block's past keys and values in, logits and the grown cache out."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(CONTEXT, WIDTH)
        self.first = Block()
        self.second = Block()
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(
        self, ids: Tensor, key_0: Tensor, value_0: Tensor, key_1: Tensor, value_1: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        past = key_0.size(2)
        places = torch.arange(past, past + ids.size(1), device=ids.device)
        x = self.words(ids) + self.positions(places)
        x, key_0, value_0 = self.first(x, key_0, value_0)
        x, key_1, value_1 = self.second(x, key_1, value_1)
        return self.head(self.norm(x)), key_0, value_0, key_1, value_1


CACHE = ("batch", HEADS, "past", WIDTH // HEADS)

DECODER = Case(
    name="decoder",
    network=Decoder,
    inputs=(
        Input("ids", ("batch", "length"), tokens(VOCABULARY)),
        Input("past_key_0", CACHE, floats),
        Input("past_value_0", CACHE, floats),
        Input("past_key_1", CACHE, floats),
        Input("past_value_1", CACHE, floats),
    ),
    outputs=("logits", "key_0", "value_0", "key_1", "value_1"),
    sizes=(  # none is the number of heads: torch.compile takes equal sizes for one symbol at first
        {"batch": 2, "length": 5, "past": 7},
        {"batch": 3, "length": 6, "past": 2},
        {"batch": 5, "length": 3, "past": 20},
    ),
    edges=({"batch": 1, "length": 5, "past": 0}, {"batch": 1, "length": 1, "past": 9}),
    torchscript=(11, 14, 16, 20),
    dynamo=(18, 20),
)

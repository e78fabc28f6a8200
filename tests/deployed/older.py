"""GPT-2 in the layout of transformers 4: the graphs of the files that people have.

The optimizer fuses attention with a cache in this layout only. The network of today's transformers
builds its masks in another way.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the name by which torch's users know it
from torch import Tensor, nn

from tests.exports.case import Case, Input, floats, prefix_mask, tokens

VOCABULARY = 60
WIDTH, HEADS, LAYERS, POSITIONS = 32, 4, 2, 32
MASKED = -10000.0


class Projection(nn.Module):
    """A linear layer of GPT-2, which stores its weight transposed and exports to Gemm."""

    def __init__(self, given: int, wanted: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(given, wanted))
        self.bias = nn.Parameter(torch.empty(wanted))

    def forward(self, x: Tensor) -> Tensor:
        flat = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return flat.view(x.size(0), x.size(1), self.bias.numel())


class Attention(nn.Module):
    causal: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.enter = Projection(WIDTH, 3 * WIDTH)
        self.leave = Projection(WIDTH, WIDTH)
        ones = torch.ones(1, 1, POSITIONS, POSITIONS, dtype=torch.bool)
        self.register_buffer("causal", ones.tril(), persistent=False)

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), x.size(1), HEADS, WIDTH // HEADS).permute(0, 2, 1, 3)

    def forward(self, x: Tensor, past: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        query, key, value = (self._heads(part) for part in self.enter(x).split(WIDTH, dim=2))
        key, value = torch.cat((past[0], key), -2), torch.cat((past[1], value), -2)
        scores = query @ key.transpose(-1, -2) / math.sqrt(WIDTH // HEADS)
        rows, columns = scores.size(-2), scores.size(-1)
        kept = self.causal[:, :, columns - rows : columns, :columns]
        scores = torch.where(kept, scores, torch.tensor(MASKED)) + mask
        mixed = (scores.softmax(-1) @ value).permute(0, 2, 1, 3).contiguous()
        mixed = mixed.view(mixed.size(0), mixed.size(1), WIDTH)
        return self.leave(mixed), torch.stack((key, value))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.up, self.down = Projection(WIDTH, 2 * WIDTH), Projection(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor, past: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        mixed, present = self.attention(self.norm1(x), past, mask)
        x = x + mixed
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh")), present


class Gpt2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.places = nn.Embedding(POSITIONS, WIDTH)
        self.blocks = nn.ModuleList([Block() for _ in range(LAYERS)])
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(
        self, ids: Tensor, places: Tensor, mask: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        added = mask.view(ids.size(0), -1).unsqueeze(1).unsqueeze(2)
        bias = (1.0 - added.to(torch.float32)) * MASKED
        x, present = self.words(ids) + self.places(places), []
        for block, cache in zip(self.blocks, past, strict=True):
            x, new = block(x, cache, bias)
            present.append(new)
        return (self.head(self.norm(x)), *present)


def positions(shape: tuple[int, ...], sizes: dict[str, int], _: torch.Generator) -> Tensor:
    start = sizes.get("p", 0)
    return torch.arange(start, start + shape[1]).expand(shape).contiguous()


PAST = tuple(
    Input(f"past_{i}", (2, "n", HEADS, "p", WIDTH // HEADS), floats) for i in range(LAYERS)
)
GPT2_PAST = Case(
    "gpt2_past",
    Gpt2,
    (
        Input("ids", ("n", "t"), tokens(VOCABULARY)),
        Input("places", ("n", "t"), positions),
        Input("mask", ("n", "total"), prefix_mask),
        *PAST,
    ),
    ("logits", *(f"present_{i}" for i in range(LAYERS))),
    ({"n": 2, "t": 3, "p": 4, "total": 7}, {"n": 2, "t": 1, "p": 6, "total": 7}),
    (),
    (17,),
    (),
)

"""An encoder-decoder in the manner of T5: relative position buckets, RMS norms, tied embeddings.

Attention is torch's own scaled_dot_product_attention, with position bias and padding in its mask.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the name by which torch's users know it
from torch import Tensor, nn

from tests.exports.case import Case, Input, prefix_mask, tokens

VOCABULARY = 89
WIDTH = 32
HEADS = 4
BUCKETS = 16
FARTHEST = 20


def hidden_bias(keep: Tensor, dtype: torch.dtype) -> Tensor:
    """Zero where `keep` is true, the most negative number elsewhere."""
    return (~keep).to(dtype) * torch.finfo(dtype).min


class PositionBias(nn.Module):
    """A learned bias per head and distance; far distances share logarithmic buckets."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Embedding(BUCKETS, HEADS)

    def forward(self, length: int, device: torch.device) -> Tensor:
        places = torch.arange(length, device=device)
        offset = places[None, :] - places[:, None]
        side, exact = BUCKETS // 2, BUCKETS // 4
        distance = offset.abs()
        growth = torch.log(distance.clamp(min=1).float() / exact) / math.log(FARTHEST / exact)
        far = (exact + (growth * (side - exact)).long()).clamp(max=side - 1)
        bucket = torch.where(distance < exact, distance, far) + (offset > 0).long() * side
        return self.bias(bucket).permute(2, 0, 1).unsqueeze(0)


class RMSNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = RMSNorm()
        self.query = nn.Linear(WIDTH, WIDTH, bias=False)
        self.key = nn.Linear(WIDTH, WIDTH, bias=False)
        self.value = nn.Linear(WIDTH, WIDTH, bias=False)
        self.output = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor, memory: Tensor | None, mask: Tensor) -> Tensor:
        normed = self.norm(x)
        memory = normed if memory is None else memory
        q, k, v = (
            states.unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2)
            for states in (self.query(normed), self.key(memory), self.value(memory))
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return x + self.output(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = RMSNorm()
        self.gate = nn.Linear(WIDTH, 2 * WIDTH, bias=False)
        self.expand = nn.Linear(WIDTH, 2 * WIDTH, bias=False)
        self.contract = nn.Linear(2 * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        return x + self.contract(F.silu(self.gate(normed)) * self.expand(normed))


class SequenceToSequence(nn.Module):
    """Source ids with a padding mask and target ids in, logits over the target out."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.source_bias = PositionBias()
        self.source_attention = nn.ModuleList([Attention(), Attention()])
        self.source_feed = nn.ModuleList([FeedForward(), FeedForward()])
        self.source_norm = RMSNorm()
        self.target_bias = PositionBias()
        self.target_attention = nn.ModuleList([Attention(), Attention()])
        self.cross_attention = nn.ModuleList([Attention(), Attention()])
        self.target_feed = nn.ModuleList([FeedForward(), FeedForward()])
        self.target_norm = RMSNorm()

    def encode(self, source: Tensor, padding: Tensor) -> Tensor:
        x = self.words(source)
        mask = self.source_bias(source.size(1), source.device) + padding
        for attention, feed in zip(self.source_attention, self.source_feed, strict=True):
            x = feed(attention(x, None, mask))
        return self.source_norm(x)

    def forward(self, source: Tensor, source_mask: Tensor, target: Tensor) -> Tensor:
        dtype = self.words.weight.dtype
        padding = hidden_bias(source_mask[:, None, None, :] > 0, dtype)
        memory = self.encode(source, padding)
        places = torch.arange(target.size(1), device=target.device)
        causal = hidden_bias(places[None, :] <= places[:, None], dtype)
        mask = self.target_bias(target.size(1), target.device) + causal
        cross_mask = padding.expand(-1, HEADS, target.size(1), -1)
        x = self.words(target)
        for attention, cross, feed in zip(
            self.target_attention, self.cross_attention, self.target_feed, strict=True
        ):
            x = feed(cross(attention(x, None, mask), memory, cross_mask))
        return F.linear(self.target_norm(x) * WIDTH**-0.5, self.words.weight)


SEQUENCE_TO_SEQUENCE = Case(
    name="sequence_to_sequence",
    network=SequenceToSequence,
    inputs=(
        Input("source", ("batch", "source_length"), tokens(VOCABULARY)),
        Input("source_mask", ("batch", "source_length"), prefix_mask),
        Input("target", ("batch", "target_length"), tokens(VOCABULARY)),
    ),
    outputs=("logits",),
    sizes=(
        {"batch": 2, "source_length": 8, "target_length": 5},
        {"batch": 3, "source_length": 27, "target_length": 25},
        {"batch": 4, "source_length": 3, "target_length": 6},
    ),
    edges=(
        {"batch": 1, "source_length": 1, "target_length": 1},
        {"batch": 1, "source_length": 11, "target_length": 4},
    ),
    torchscript=(14, 15, 18, 19),  # scaled_dot_product_attention has a translation from 14 on
    dynamo=(18, 23),
)

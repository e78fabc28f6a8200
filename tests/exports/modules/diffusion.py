"""A block of a denoising U-Net: what the blocks of latent diffusion are made of.

The step becomes sines and cosines, the image goes through group normalization and convolutions,
attends to a context of words, and comes back to its size by nearest-neighbour upsampling.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the name by which torch's users know it
from torch import Tensor, nn

from tests.exports.case import Case, Input, floats, tokens

WIDTH = 16
WORDS = 12
HEADS = 2
STEPS = 1000


def step_embedding(step: Tensor) -> Tensor:
    """[batch] -> [batch, WIDTH]: sines and cosines of falling frequencies."""
    half = WIDTH // 2
    places = torch.arange(half, dtype=torch.float32, device=step.device)
    angles = step[:, None] * torch.exp(places * (-math.log(10_000) / half))
    return torch.cat((angles.sin(), angles.cos()), -1)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.GroupNorm(4, WIDTH), nn.GroupNorm(4, WIDTH)
        self.first = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.second = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.step = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        hidden = self.first(F.silu(self.norm_1(x))) + self.step(F.silu(step))[:, :, None, None]
        return x + self.second(F.silu(self.norm_2(hidden)))


class CrossAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.query = nn.Linear(WIDTH, WIDTH, bias=False)
        self.key = nn.Linear(WORDS, WIDTH, bias=False)
        self.value = nn.Linear(WORDS, WIDTH, bias=False)
        self.output = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        pixels = x.flatten(2).transpose(1, 2)
        q, k, v = (
            part.unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2)
            for part in (self.query(self.norm(pixels)), self.key(context), self.value(context))
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return (pixels + self.output(mixed)).transpose(1, 2).reshape(x.shape)


class Diffusion(nn.Module):
    """A noisy image, its step and the words in, the predicted noise out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, WIDTH, 3, padding=1)
        self.embed = nn.Linear(WIDTH, WIDTH)
        self.down = nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1)
        self.residual = Residual()
        self.attention = CrossAttention()
        self.up = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.head = nn.Conv2d(WIDTH, 4, 3, padding=1)

    def forward(self, image: Tensor, step: Tensor, context: Tensor) -> Tensor:
        embedded = self.embed(step_embedding(step))
        x = self.down(self.stem(image))
        x = self.attention(self.residual(x, embedded), context)
        return self.head(F.silu(self.up(F.interpolate(x, scale_factor=2.0, mode="nearest"))))


DIFFUSION = Case(
    name="diffusion",
    network=Diffusion,
    inputs=(
        Input("image", ("batch", 4, 16, 16), floats),
        Input("step", ("batch",), tokens(STEPS)),
        Input("context", ("batch", "words", WORDS), floats),
    ),
    outputs=("noise",),
    sizes=({"batch": 2, "words": 5}, {"batch": 3, "words": 7}, {"batch": 5, "words": 9}),
    edges=({"batch": 1, "words": 1},),
    torchscript=(14, 17),
    dynamo=(18, 20),
)

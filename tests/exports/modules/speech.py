"""A speech encoder in the manner of the Conformer: strided convolutions, then conformer blocks.

Attention is written with einsum; the lengths of the padded utterances shrink with the time axis.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the name by which torch's users know it
from torch import Tensor, nn

from tests.exports.case import Case, Input, floats, lengths

BANDS = 24
WIDTH = 32
HEADS = 4
SYMBOLS = 30


class FeedForward(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.SiLU(), nn.Linear(2 * WIDTH, WIDTH)
        )


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.joint = nn.Linear(WIDTH, 3 * WIDTH)
        self.output = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        joint = self.joint(self.norm(x)).view(x.size(0), x.size(1), 3, HEADS, WIDTH // HEADS)
        q, k, v = joint.unbind(2)
        scores = torch.einsum("bihd,bjhd->bhij", q, k) * (WIDTH // HEADS) ** -0.5
        weights = scores.masked_fill(~keep[:, None, None, :], float("-inf")).softmax(-1)
        return self.output(torch.einsum("bhij,bjhd->bihd", weights, v).flatten(2))


class ConvolutionModule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.expand = nn.Conv1d(WIDTH, 2 * WIDTH, 1)
        self.depthwise = nn.Conv1d(WIDTH, WIDTH, 7, padding=3, groups=WIDTH)
        self.batch_norm = nn.BatchNorm1d(WIDTH)
        self.contract = nn.Conv1d(WIDTH, WIDTH, 1)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        x = F.glu(self.expand(self.norm(x).transpose(1, 2)), dim=1) * keep.unsqueeze(1)
        x = F.silu(self.batch_norm(self.depthwise(x)))
        return self.contract(x).transpose(1, 2)


class ConformerBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.feed_in = FeedForward()
        self.attention = Attention()
        self.convolution = ConvolutionModule()
        self.feed_out = FeedForward()
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        x = x + 0.5 * self.feed_in(x)
        x = x + self.attention(x, keep)
        x = x + self.convolution(x, keep)
        return self.norm(x + 0.5 * self.feed_out(x))


class SpeechEncoder(nn.Module):
    """Log-mel frames and lengths in, log-probabilities at a quarter of the rate and lengths out."""

    def __init__(self) -> None:
        super().__init__()
        self.halve = nn.Conv1d(BANDS, WIDTH, 3, stride=2, padding=1)
        self.quarter = nn.Conv1d(WIDTH, WIDTH, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList([ConformerBlock(), ConformerBlock()])
        self.head = nn.Linear(WIDTH, SYMBOLS)

    def forward(self, frames: Tensor, frame_counts: Tensor) -> tuple[Tensor, Tensor]:
        x = F.gelu(self.quarter(F.gelu(self.halve(frames.transpose(1, 2))))).transpose(1, 2)
        counts = torch.div(frame_counts + 3, 4, rounding_mode="floor")
        keep = torch.arange(x.size(1), device=x.device)[None, :] < counts[:, None]
        for block in self.blocks:
            x = block(x, keep)
        return self.head(x).log_softmax(-1), counts


SPEECH = Case(
    name="speech",
    network=SpeechEncoder,
    inputs=(
        Input("frames", ("batch", "time", BANDS), floats),
        Input("frame_counts", ("batch",), lengths("time")),
    ),
    outputs=("log_probabilities", "counts"),
    sizes=({"batch": 2, "time": 33}, {"batch": 3, "time": 50}, {"batch": 4, "time": 20}),
    edges=({"batch": 1, "time": 4}, {"batch": 1, "time": 41}),
    torchscript=(12, 13, 16, 17),  # Einsum appears with opset 12
    dynamo=(18, 20),
    folded=("*.depthwise.*", "*.batch_norm.*"),
)

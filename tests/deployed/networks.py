"""Small networks of torch, the originals of the files: convolutions, recurrence, a decoder, a UNet.

They are small, so that few values are quantized: see `judging.py` on ties.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the name by which torch's users know it
from torch import Tensor, nn

from tests.exports.case import Case, Input, floats, tokens

VOCABULARY = 50
WIDTH = 64
LABELS = 7
CONTEXT = 24  # width of what a denoiser is told to draw


class Classifier(nn.Module):
    """Convolutions with the operators that onnxruntime has in a quantized form."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.pointwise = nn.Conv2d(8, 8, 1)
        self.gate = nn.Conv2d(8, 8, 1)
        self.side = nn.Conv2d(8, 8, 3, padding=1)
        self.average = nn.AvgPool2d(3, stride=1)  # of nine values: see judging.py on ties
        self.last = nn.Linear(16, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.norm(self.stem(x))))
        y = self.pointwise(F.leaky_relu(self.depthwise(x), 0.1)) + x
        y = y * self.gate(x).sigmoid()
        y = torch.cat([self.average(y), self.average(F.relu(self.side(x)))], 1)
        y = F.adaptive_avg_pool2d(y, 1).flatten(1)
        return self.last(y).softmax(-1)


class Detector(nn.Module):
    """Convolutions that onnxruntime lays out in blocks of channels: strides, pools, upsampling.

    24 channels are three blocks of 8, or two of 16 with a rest: the saved file tells which. Pools
    are laid out in blocks where these are whole.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, padding=1)
        self.widen = nn.Conv2d(24, 32, 3, stride=2, padding=1)
        self.body = nn.Conv2d(32, 32, 3, padding=1)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.out = nn.Conv2d(32, 32, 1)
        self.head = nn.Linear(32, LABELS)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.widen(F.relu(self.stem(x))))
        y = F.max_pool2d(F.relu(self.body(x) + x), 3, stride=2, padding=1)
        y = F.leaky_relu(self.depthwise(y), 0.1)
        y = F.interpolate(F.avg_pool2d(y, 3, stride=1, padding=1), scale_factor=2.0)
        y = torch.sigmoid(self.out(y)) * x
        pooled = F.adaptive_avg_pool2d(F.relu(self.out(y)), 1).flatten(1)
        return y, F.relu(self.head(pooled))


class Tagger(nn.Module):
    """Embedding, LSTM in both directions, a linear layer on every state."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, 16)
        self.lstm = nn.LSTM(16, 12, bidirectional=True)
        self.last = nn.Linear(24, LABELS)

    def forward(self, ids: Tensor) -> Tensor:
        states, _ = self.lstm(self.words(ids))
        return self.last(states)


class Decoder(nn.Module):
    """An embedding, a feed-forward block, logits: matrices without biases, as in llama."""

    inner = 80  # not a multiple of 32: the last block of a row is padded

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, self.inner, bias=False)
        self.gate = nn.Linear(WIDTH, self.inner, bias=False)
        self.down = nn.Linear(self.inner, WIDTH, bias=False)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        h = self.norm(x)
        x = x + self.down(F.silu(self.gate(h)) * self.up(h))
        return self.head(x)


class EvenDecoder(Decoder):
    """The same in whole blocks: k-quant and RTN refuse all others."""

    inner = 128


class Residual(nn.Module):
    """Two convolutions with a shift for the time step between them, as in diffusion networks."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.time = nn.Linear(8, channels)
        self.norm2 = nn.GroupNorm(groups, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time(F.silu(t))[:, :, None, None]
        return x + self.conv2(F.silu(self.norm2(h)))


class Geglu(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)
        self.out = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        h, gate = self.proj(x).chunk(2, dim=-1)
        return self.out(h * F.gelu(gate))


class Mixing(nn.Module):
    """Attention of diffusers: projections without biases; to the context, or to the rows."""

    def __init__(self, width: int, context: int, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(context, width, bias=False)
        self.value = nn.Linear(context, width, bias=False)
        self.out = nn.Linear(width, width)

    def _split(self, x: Tensor) -> Tensor:
        b, s, c = x.shape
        x = x.reshape(b, s, self.heads, c // self.heads).permute(0, 2, 1, 3)
        return x.reshape(b * self.heads, s, c // self.heads)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        b, s, c = x.shape
        q, k = self._split(self.query(x)), self._split(self.key(context))
        scores = (q @ k.transpose(-1, -2)) * (c // self.heads) ** -0.5
        mixed = scores.softmax(-1) @ self._split(self.value(context))
        mixed = mixed.reshape(b, self.heads, s, c // self.heads).permute(0, 2, 1, 3)
        return self.out(mixed.reshape(b, s, c))


class Denoiser(nn.Module):
    """A residual block and a transformer block, in the sizes that fusions for GPUs want."""

    def __init__(self, channels: int = 320, groups: int = 32) -> None:
        super().__init__()
        self.enter = nn.Conv2d(4, channels, 3, padding=1)
        self.block = Residual(channels, groups)
        self.norms = nn.ModuleList([nn.LayerNorm(channels) for _ in range(3)])
        self.self_mixing = Mixing(channels, channels)
        self.cross_mixing = Mixing(channels, CONTEXT)
        self.gated = Geglu(channels, 4 * channels)
        self.norm_out = nn.GroupNorm(groups, channels)
        self.leave = nn.Conv2d(channels, 4, 3, padding=1)

    def forward(self, sample: Tensor, time: Tensor, context: Tensor) -> Tensor:
        x = self.block(self.enter(sample), time)
        b, c, h, w = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(b, h * w, c)
        normed = self.norms[0](rows)
        rows = self.self_mixing(normed, normed) + rows
        rows = self.cross_mixing(self.norms[1](rows), context) + rows
        rows = self.gated(self.norms[2](rows)) + rows
        x = rows.reshape(b, h, w, c).permute(0, 3, 1, 2)
        return self.leave(F.silu(self.norm_out(x)))


class Algebra(nn.Module):
    """What torch's older exporter writes in operators of onnxruntime if it is asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.mixing = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.mixing(x)
        inverse = torch.linalg.inv(x @ x.transpose(-1, -2) + torch.eye(x.size(-2)))
        grid = torch.tanh(x).unsqueeze(-1).expand(-1, -1, -1, 2)
        sampled = F.grid_sample(x.unsqueeze(1), grid, align_corners=False)
        return F.gelu(inverse) + inverse.triu(1) + inverse.tril(), sampled


def case(
    name: str,
    network: type[nn.Module],
    inputs: tuple[Input, ...],
    *sizes: dict[str, int],
    outputs: tuple[str, ...] = ("y",),
    opset: int = 17,
) -> Case:
    return Case(name, network, inputs, outputs, sizes, (), (opset,), ())


IMAGE = Input("image", ("n", 3, 8, 8), floats)
WORDS = Input("ids", ("n", "t"), tokens(VOCABULARY))

CLASSIFIER = case("classifier", Classifier, (IMAGE,), {"n": 2}, {"n": 1})
DETECTOR = case("detector", Detector, (IMAGE,), {"n": 2}, {"n": 1}, outputs=("map", "labels"))
TAGGER = case("tagger", Tagger, (Input("ids", ("t", 2), tokens(VOCABULARY)),), {"t": 5}, {"t": 9})
DECODER = case("decoder", Decoder, (WORDS,), {"n": 2, "t": 5}, {"n": 1, "t": 3})
EVEN_DECODER = case("even_decoder", EvenDecoder, (WORDS,), {"n": 2, "t": 5}, {"n": 1, "t": 3})
ALGEBRA = case(
    "algebra",
    Algebra,
    (Input("x", ("n", 4, 4), floats),),
    {"n": 2},
    {"n": 3},
    outputs=("y", "sampled"),
    opset=13,
)
DENOISER = case(
    "denoiser",
    Denoiser,
    (
        Input("sample", ("n", 4, 6, 6), floats),
        Input("time", ("n", 8), floats),
        Input("encoder_hidden_states", ("n", "t", CONTEXT), floats),
    ),
    {"n": 2, "t": 5},
    {"n": 1, "t": 3},
)

"""Small networks whose weights exporters rename, transpose, pack, merge or write twice."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH, VOCABULARY = 12, 31


class Head(nn.Module):
    """A language model whose head is its embedding, as in GPT-2."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        """[batch, length] -> [batch, length, vocabulary]."""
        return self.head(torch.tanh(self.mix(self.words(ids))))


class Half(nn.Module):
    """An embedding and a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)

    def forward(self, ids: Tensor) -> Tensor:
        """[batch, length] -> [batch, length, width]."""
        return self.key(self.embed(ids))


class Halves(nn.Module):
    """An encoder and a decoder with one embedding, which is also the head, as in BART."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Half(), Half()
        self.decoder.embed.weight = self.encoder.embed.weight
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.encoder.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        """[batch, length] -> [batch, length, vocabulary]."""
        memory, y = self.encoder(ids), self.decoder(ids.flip(1))
        return self.head((y @ memory.transpose(1, 2)).softmax(-1) @ memory)


class Twice(nn.Module):
    """One projection of two values, as DeBERTa's key of content and of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, 3)

    def forward(self, ids: Tensor) -> Tensor:
        """[batch, length] -> [batch, length, 3]."""
        x = self.words(ids)
        scores = self.key(x) @ self.key(torch.tanh(x.flip(1))).transpose(1, 2)
        return self.out(scores.softmax(-1) @ x)


class Copies(nn.Module):
    """torch's own encoder: its layers are copies, equal before training, but not one."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 2 * WIDTH, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(WIDTH, 3)
        with torch.no_grad():
            for layer in self.encoder.layers:  # an exporter drops an addition of zeros
                layer.self_attn.in_proj_bias.normal_(generator=torch.Generator().manual_seed(1))
                layer.self_attn.out_proj.bias.normal_(generator=torch.Generator().manual_seed(2))

    def forward(self, ids: Tensor) -> Tensor:
        """[batch, length] -> [batch, length, 3]."""
        return self.out(self.encoder(self.words(ids)))


class Normalized(nn.Module):
    """GroupNorm, which exporters spell out, and a PReLU with a slope for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.norm = nn.GroupNorm(2, 8)
        self.slope = nn.PReLU(8)
        self.up = nn.ConvTranspose2d(8, 4, 2)
        with torch.no_grad():
            for weight in (*self.norm.parameters(), *self.slope.parameters()):
                weight.uniform_(0.2, 1)

    def forward(self, image: Tensor) -> Tensor:
        """[batch, 3, height, width] -> [batch, 4, height - 1, width - 1]."""
        return self.up(self.slope(self.norm(self.stem(image))))


class Recurrent(nn.Module):
    """A recurrent layer in both directions, and one behind it in one direction."""

    def __init__(self, kind: type[nn.RNNBase], bias: bool = True) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.both = kind(WIDTH, 5, num_layers=2, bidirectional=True, batch_first=True, bias=bias)
        self.one = kind(10, 4, batch_first=True, bias=bias)

    def forward(self, ids: Tensor) -> Tensor:
        """[batch, length] -> [batch, length, 4]."""
        return self.one(self.both(self.words(ids))[0])[0]


def lstm() -> nn.Module:
    return Recurrent(nn.LSTM)


def gru() -> nn.Module:
    return Recurrent(nn.GRU)


def lstm_without_bias() -> nn.Module:
    return Recurrent(nn.LSTM, bias=False)


def linear() -> nn.Module:
    """The network is one layer: its weights have no path."""
    return nn.Linear(5, 4)


IDS = torch.randint(VOCABULARY, (2, 7), generator=torch.Generator().manual_seed(0))
IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
NETWORKS = {
    "head": (Head, IDS),
    "halves": (Halves, IDS),
    "twice": (Twice, IDS),
    "copies": (Copies, IDS),
    "normalized": (Normalized, IMAGE),
    "lstm": (lstm, IDS),
    "lstm without bias": (lstm_without_bias, IDS),
    "gru": (gru, IDS),
    "linear": (linear, ROWS),
}

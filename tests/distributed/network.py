"""A small transformer whose blocks are modules, as both exporters write it, and a task for it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name by which torch's users know it
from torch import Tensor, nn

from tests.exporting import export_file

VOCABULARY, LENGTH, BATCH, DEPTH, HEADS = 29, 8, 4, 4, 4
EXPORTERS: dict[str, dict[str, Any]] = {
    "dynamo": {
        "dynamo": True,
        "optimize": False,
        "dynamic_shapes": {"ids": {0: torch.export.Dim("batch")}},
    },
    "torchscript": {
        "dynamo": False,
        "training": torch.onnx.TrainingMode.PRESERVE,
        "do_constant_folding": False,
        "opset_version": 17,
        "input_names": ["ids"],
        "dynamic_axes": {"ids": {0: "batch"}},
    },
}
Batch = tuple[Tensor, Tensor]


class Attention(nn.Module):
    """Of four heads; the graph has their number, or the width of each."""

    def __init__(self, width: int, heads: str) -> None:
        super().__init__()
        self.sizes = (HEADS, -1) if heads == "fixed number" else (-1, width // HEADS)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), x.size(1), *self.sizes).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self._split(self.q(x)), self._split(self.k(x)), self._split(self.v(x))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.o(mixed.reshape(x.size(0), x.size(1), -1))


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, width: int, heads: str) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.mlp = Attention(width, heads), Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """[batch, length] of ids -> log probabilities [batch, length, ids]."""

    def __init__(self, width: int, depth: int, heads: str) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, VOCABULARY)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)).log_softmax(-1)


def original(width: int = 16, depth: int = DEPTH, heads: str = "fixed number") -> Transformer:
    """The network with the same weights at every call; no two of its tensors are equal."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Transformer(width, depth, heads).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
    return network


def exported(exporter: str = "dynamo", **options: Any) -> Path:
    """The network as ONNX; the newer exporter's weights are in a file of their own."""
    file = export_file(original(**options), (batch()[0],), **EXPORTERS[exporter])
    return file.parent / "external" / file.name if exporter == "dynamo" else file


def batch(seed: int = 0) -> Batch:
    """Ids, and the ids to predict."""
    generator = torch.Generator().manual_seed(seed)
    shape = (BATCH, LENGTH)
    ids = torch.randint(VOCABULARY, shape, generator=generator)
    return ids, torch.randint(VOCABULARY, shape, generator=generator)


def loss_of(log_probabilities: Tensor, wanted: Tensor) -> Tensor:
    return F.nll_loss(log_probabilities.flatten(0, 1), wanted.flatten())


def train(module: nn.Module, part: slice = slice(None), steps: int = 4) -> list[float]:
    """The loss at each step of AdamW, on a part of the batch."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    ids, wanted = batch()
    return run(module, optimizer, [(ids[part], wanted[part])] * steps)


def run(
    module: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterable[Batch]
) -> list[float]:
    """The loss at each step, one a batch."""
    losses = []
    for ids, wanted in batches:
        optimizer.zero_grad()
        loss = loss_of(module(ids), wanted)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses

"""The model of the examples in this folder: a small transformer, written as ONNX by torch.

Any exported model serves: only the names of its blocks matter, here blocks.0 to blocks.3.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 - the name by which torch's users know it
from torch import Tensor, nn

from onnxinterp import OnnxModule

WIDTH, HEADS, DEPTH, VOCABULARY, LENGTH, BATCH = 64, 4, 4, 97, 16, 8


class Block(nn.Module):
    """Attention and an MLP, as in GPT-2."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, length, width] -> the same."""
        y = self.norm1(x)
        q, k, v = (
            p(y).unflatten(-1, (HEADS, -1)).transpose(1, 2) for p in (self.q, self.k, self.v)
        )
        x = x + self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Transformer(nn.Module):
    """[batch, length] of ids -> log probabilities [batch, length, ids]."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList([Block() for _ in range(DEPTH)])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY)

    def forward(self, ids: Tensor) -> Tensor:
        """The log probabilities of the next ids."""
        x = self.words(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)).log_softmax(-1)


def batch() -> tuple[Tensor, Tensor]:
    """Ids, and the ids to predict."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(VOCABULARY, (2, BATCH, LENGTH), generator=generator).unbind()


def loss_of(log_probabilities: Tensor, wanted: Tensor) -> Tensor:
    """Cross entropy."""
    return F.nll_loss(log_probabilities.flatten(0, 1), wanted.flatten())


def start() -> OnnxModule:
    """Join the group of all processes; the first one writes transformer.onnx, all load it."""
    dist.init_process_group("gloo")
    if dist.get_rank() == 0:
        torch.manual_seed(0)
        torch.onnx.export(
            Transformer().eval(), (batch()[0],), "transformer.onnx", dynamo=True, optimize=False,
            dynamic_shapes={"ids": {0: torch.export.Dim("batch")}}, external_data=True,
            verbose=False,
        )  # fmt: skip
    dist.barrier()
    return OnnxModule("transformer.onnx")


def train(module: nn.Module, ranks: int = 1, rank: int = 0) -> list[float]:
    """The loss at each step of AdamW on the rows of the batch that this rank has."""
    ids, wanted = (rows.chunk(ranks)[rank] for rows in batch())
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = loss_of(module(ids), wanted)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def difference(module: nn.Module) -> float:
    """Train on parts of the batch, and one process on all of it: how far the losses are apart."""
    ranks, rank = dist.get_world_size(), dist.get_rank()
    losses = torch.tensor(train(module, ranks, rank))
    dist.all_reduce(losses)
    alone = torch.tensor(train(OnnxModule("transformer.onnx")))
    return (losses / ranks - alone).abs().max().item()


def say(text: str) -> None:
    """Print it once."""
    if dist.get_rank() == 0:
        print(text, flush=True)

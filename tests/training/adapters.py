"""A network with a tied weight, adapted; and what its outputs are by the original network."""

from __future__ import annotations

from functools import cache

import onnx
import torch
from torch import Tensor, nn
from torch.func import functional_call

from onnxinterp import OnnxModule
from tests.exports.case import Export
from tests.training.exporting import write

RANK, ALPHA = 2, 6
SCALE = 3  # ALPHA / RANK
Matrices = dict[str, Tensor]


def randomize(module: OnnxModule, seed: int = 0) -> Matrices:
    """Fill all adapters with other numbers, and return copies of them."""
    generator = torch.Generator().manual_seed(seed)
    matrices = module.lora_state_dict()
    for matrix in matrices.values():
        matrix.copy_(torch.randn(matrix.shape, generator=generator) * 0.3)
    return {name: matrix.clone() for name, matrix in matrices.items()}


def products(matrices: Matrices, scale: float = SCALE) -> Matrices:
    """Name of the weight -> what is added to it, as a matrix or a stack of them."""
    names = dict.fromkeys(name.rpartition(".")[0] for name in matrices)
    return {n: scale * matrices[f"{n}.lora_B"] @ matrices[f"{n}.lora_A"] for n in names}


class Reader(nn.Module):
    """The embedding is also the head: two nodes read one weight. Another one is at the root."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.randn(8, 8) / 3)
        self.embedding = nn.Embedding(10, 8)
        self.conv = nn.Conv1d(8, 8, 3, padding=1)
        self.out = nn.Linear(8, 8)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.conv(self.embedding(ids).transpose(1, 2)).transpose(1, 2)
        x = self.out(torch.tanh(x)) @ self.mix
        return nn.functional.linear(x, self.embedding.weight)


IDS = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
MATRICES = ("mix", "embedding.weight", "conv.weight", "out.weight")


def reader() -> Reader:
    torch.manual_seed(0)
    return Reader()


@cache
def written() -> onnx.ModelProto:
    return write(reader(), (IDS,), Export("torchscript", 17))


def adapted() -> OnnxModule:
    module = OnnxModule(written())
    module.add_lora("*", RANK, ALPHA)
    randomize(module)
    return module


def original(matrices: Matrices) -> Tensor:
    """The output of the network with these products."""
    network = reader()
    added = products(matrices).items()
    sums = {n: (w := network.get_parameter(n)) + p.reshape(w.shape) for n, p in added}
    return functional_call(network, sums, (IDS,))


def check(module: nn.Module, matrices: Matrices, **tolerance: float) -> None:
    torch.testing.assert_close(module(IDS), original(matrices), **tolerance)


def trained(module: OnnxModule) -> set[int]:
    return {id(p) for p in module.parameters() if p.requires_grad}

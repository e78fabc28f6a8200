"""Networks with equal tensors, and the files in which exporters have merged them."""

from __future__ import annotations

import onnx
import torch
from torch import Tensor, nn

from tests.exporting import export
from tests.exports.case import Export
from tests.training.exporting import write


class Twins(nn.Module):
    """Equal LayerNorms, one of them called twice, and an embedding tied to the head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 8)
        self.layers = nn.ModuleList([nn.LayerNorm(8), nn.LayerNorm(8)])
        self.again = nn.LayerNorm(8)
        self.head = nn.Linear(8, 10, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for layer in self.layers:
            x = x + self.again(torch.tanh(layer(x)))
        return self.head(x)


class Normalized(nn.Module):
    """BatchNorm as it starts: weight and variance are ones, bias and mean are zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm1d(4)
        self.second = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


def torchscript(network: nn.Module, x: Tensor) -> onnx.ModelProto:
    return write(network, (x,), Export("torchscript", 17))


def dynamo(network: nn.Module, *inputs: Tensor) -> onnx.ModelProto:
    return export(network.eval(), inputs, dynamo=True, opset_version=18, optimize=True)


IDS = torch.tensor([[1, 2, 3], [4, 5, 6]])

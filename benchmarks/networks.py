"""The networks of the benchmarks, in plain torch, and their ONNX models."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name in torch
from onnx import TensorProto, helper
from torch import Tensor, nn


class DecomposedLayerNorm(nn.LayerNorm):
    """Layer normalization as ONNX decomposes it before opset 17."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., width] -> [..., width]."""
        centred = input - input.mean(-1, keepdim=True)
        deviation = (centred.pow(2).mean(-1, keepdim=True) + self.eps).sqrt()
        return centred / deviation * self.weight + self.bias


def decomposed_gelu(x: Tensor) -> Tensor:
    """GELU as ONNX decomposes it before opset 20."""
    return x * ((x / 2**0.5).erf() + 1) * 0.5


class AttentionBlock(nn.Module):
    """One pre-norm transformer block with decomposed attention.

    With `decomposed=True`, normalization and GELU are decomposed too, as an exporter does.
    """

    def __init__(self, width: int = 64, heads: int = 4, *, decomposed: bool = False) -> None:
        super().__init__()
        self.heads = heads
        norm = DecomposedLayerNorm if decomposed else nn.LayerNorm
        self.gelu = decomposed_gelu if decomposed else F.gelu
        self.attention_norm = norm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.feed_norm = norm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), x.size(1), self.heads, -1).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, length, width] -> [batch, length, width]."""
        normed = self.attention_norm(x)
        q, k, v = (self._split(f(normed)) for f in (self.query, self.key, self.value))
        scores = q @ k.transpose(-1, -2) * (x.size(-1) // self.heads) ** -0.5
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(x.size(0), x.size(1), x.size(2))
        x = x + self.output(mixed)
        return x + self.contract(self.gelu(self.expand(self.feed_norm(x))))


class ResidualBlock(nn.Module):
    """Two convolutions and a skip connection."""

    def __init__(self, incoming: int, outgoing: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(incoming, outgoing, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(outgoing)
        self.second = nn.Conv2d(outgoing, outgoing, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(outgoing)
        self.short = nn.Conv2d(incoming, outgoing, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[batch, incoming, height, width] -> [batch, outgoing, height / stride, ...]."""
        hidden = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(hidden)) + self.short(x))


def residual_network() -> nn.Module:
    """Return a residual network of 18 layers, similar to ResNet-18."""
    stem = [nn.Conv2d(3, 64, 7, 2, padding=3), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)]
    widths = ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2))
    body = [
        block
        for incoming, outgoing, stride in widths
        for block in (
            ResidualBlock(incoming, outgoing, stride),
            ResidualBlock(outgoing, outgoing, 1),
        )
    ]
    return nn.Sequential(*stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


def export(network: nn.Module, x: Tensor, *, opset: int, dynamic: bool) -> onnx.ModelProto:
    """Export a network with one input by the TorchScript exporter, which decomposes the most."""
    axes = dict(enumerate(("batch", "length"))) if dynamic else {}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        file = Path(folder) / "model.onnx"
        warnings.simplefilter("ignore", DeprecationWarning)  # the exporter is deprecated
        torch.onnx.export(
            network.eval(),
            (x,),
            file,
            dynamo=False,
            opset_version=opset,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": axes, "y": axes} if axes else None,
        )
        return onnx.load(file)


def make_model(
    nodes: Sequence[onnx.NodeProto], weights: Sequence[TensorProto], shape: Sequence[int | str]
) -> onnx.ModelProto:
    """Return a model from the first input of the first node to the output of the last node."""
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name in (nodes[0].input[0], nodes[-1].output[0])
    )
    graph = helper.make_graph(nodes, "layers", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

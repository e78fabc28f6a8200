"""LoRA on an imported model: train small adapters and save the merged weights.

torch's parametrizations add a product of two low-rank matrices to each frozen weight (Hu et al.,
2021). `save_onnx` writes the current value of a weight, so the result is a regular ONNX model.

    python examples/lora.py [EPOCHS]
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrize

from onnxinterp import OnnxModule
from onnxinterp.cli.demo import accuracy, load


class LoRA(nn.Module):
    """weight + up @ down; up is initialized with zeros."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.flatten(1).shape
        self.down = nn.Parameter(torch.randn(rank, columns) / columns**0.5)
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """Add the adapter; a convolution weight is a matrix with a row for each output channel."""
        return weight + (self.up @ self.down).reshape(weight.shape)


def add_adapters(module: OnnxModule, rank: int) -> list[nn.Parameter]:
    """Freeze a module, add adapters to its matrices, and return the trainable parameters."""
    module.freeze()
    adapters = []
    for name, weight in module.weights.items():
        if isinstance(weight, nn.Parameter) and weight.ndim > 1:
            adapters.append(LoRA(weight, rank))
            parametrize.register_parametrization(*module.weights.holder(name), adapters[-1])
    return [p for adapter in adapters for p in adapter.parameters()]


def main(epochs: int = 15, rank: int = 4) -> tuple[float, float]:
    """Adapt to digits rotated by 90 degrees; return the accuracy before and after."""
    torch.manual_seed(0)
    digits, training, test = load()
    training, test = training.rotated(), test.rotated()
    module = OnnxModule(digits)
    before, total = accuracy(module, test), sum(p.numel() for p in module.parameters())
    parameters = add_adapters(module, rank)
    count = sum(p.numel() for p in parameters)
    print(f"rank {rank}: {count} trainable parameters, the {total} of the model are frozen")

    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    for _ in range(epochs):
        module.train()
        for batch in torch.randperm(len(training.labels)).split(64):
            optimizer.zero_grad()
            cross_entropy(module(training.images[batch]), training.labels[batch]).backward()
            optimizer.step()
    module.save_onnx("adapted.onnx")
    merged = OnnxModule("adapted.onnx")  # plain weights, no adapters
    after = accuracy(merged, test)
    print(f"accuracy on rotated digits: {before:.1%} before, {after:.1%} with adapted.onnx")
    return before, after


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

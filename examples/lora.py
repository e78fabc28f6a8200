"""LoRA on an imported model: small adapters train, and the file gets the merged weights.

torch's own parametrizations put a product of two thin matrices on top of each frozen weight (Hu et
al., 2021). `save_onnx` writes what the weight is now, so the result is a model like any other.

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
    """weight + up @ down, where up starts as zeros."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.flatten(1).shape
        self.down = nn.Parameter(torch.randn(rank, columns) / columns**0.5)
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """Add the adapter; a kernel is taken as a matrix of output channels by the rest."""
        return weight + (self.up @ self.down).reshape(weight.shape)


def add_adapters(module: OnnxModule, rank: int) -> list[nn.Parameter]:
    """Freeze a module, give its matrices and kernels adapters, and return what trains."""
    module.freeze()
    adapters = []
    for name, weight in module.weights.items():
        if isinstance(weight, nn.Parameter) and weight.ndim > 1:
            adapters.append(LoRA(weight, rank))
            parametrize.register_parametrization(*module.weights.holder(name), adapters[-1])
    return [p for adapter in adapters for p in adapter.parameters()]


def main(epochs: int = 15, rank: int = 4) -> tuple[float, float]:
    """Adapt the digits to a rotation by 90 degrees; the accuracy before and after."""
    torch.manual_seed(0)
    digits, training, test = load()
    training, test = training.rotated(), test.rotated()
    module = OnnxModule(digits)
    before, whole = accuracy(module, test), sum(p.numel() for p in module.parameters())
    parameters = add_adapters(module, rank)
    count = sum(p.numel() for p in parameters)
    print(f"rank {rank}: {count} numbers train, the {whole} of the model do not")

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
    print(f"rotated digits: {before:.1%} before, {after:.1%} of adapted.onnx")
    return before, after


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""LoRA on an imported model: train small adapters and save the merged weights.

`add_lora` adds a product of two small matrices to each frozen weight (Hu et al., 2021). `save_onnx`
writes the current value of a weight, so the result is a regular ONNX model.

    python examples/lora.py [EPOCHS]
"""

from __future__ import annotations

import sys

import torch
from torch.nn.functional import cross_entropy

from onnxinterp import OnnxModule
from onnxinterp.cli.demo import accuracy, load


def main(epochs: int = 15, rank: int = 4) -> tuple[float, float]:
    """Adapt to digits rotated by 90 degrees; return the accuracy before and after."""
    torch.manual_seed(0)
    digits, training, test = load()
    training, test = training.rotated(), test.rotated()
    module = OnnxModule(digits)
    before, total = accuracy(module, test), sum(p.numel() for p in module.parameters())
    module.add_lora("*", rank)
    count = sum(p.numel() for p in module.parameters() if p.requires_grad)
    print(f"rank {rank}: {count} trainable parameters, the {total} of the model are frozen")

    optimizer = torch.optim.AdamW(module.parameter_groups(lr=1e-2))
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

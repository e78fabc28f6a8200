"""Fine-tune an image classifier for new classes: how many holes a digit has, not which digit it is.

The last layer is replaced and trained alone first. Then all layers train, with lower learning rates
near the input.

    python examples/new_classes.py [EPOCHS]
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from onnxinterp import OnnxModule, replace_head
from onnxinterp.cli.demo import load
from onnxinterp.verify import verify

HOLES = torch.tensor([1, 0, 0, 0, 0, 0, 1, 0, 2, 1])  # of the digits 0 to 9


def accuracy(module: OnnxModule, images: Tensor, classes: Tensor) -> float:
    """Return the fraction of correct predictions."""
    with torch.no_grad():
        return (module.eval()(images).argmax(1) == classes).double().mean().item()


def train(
    module: OnnxModule, optimizer: torch.optim.Optimizer, data: tuple[Tensor, Tensor], epochs: int
) -> None:
    """Minimize cross-entropy, with fixed running statistics."""
    module.train().freeze_statistics()
    for _ in range(epochs):
        for batch in torch.randperm(len(data[0])).split(64):
            optimizer.zero_grad()
            cross_entropy(module(data[0][batch]), data[1][batch]).backward()
            optimizer.step()


def main(epochs: int = 10) -> tuple[float, float]:
    """Fine-tune, save and verify; return the accuracy of head-only and of full training."""
    torch.manual_seed(0)
    digits, training, test = load()  # a model with ten classes from the package
    module = OnnxModule(replace_head(digits, out_features=3))
    data, unseen = ((p.images, HOLES[p.labels]) for p in (training, test))
    print(f"accuracy with a new head:  {accuracy(module, *unseen):.1%}")

    module.freeze()
    module.unfreeze("head.*")
    train(module, torch.optim.AdamW(module.parameter_groups(lr=1e-2)), data, epochs)
    head_only = accuracy(module, *unseen)
    print(f"after training the head:   {head_only:.1%}")

    module.unfreeze()
    train(module, torch.optim.AdamW(module.parameter_groups(lr=3e-3, decay=0.5)), data, epochs)
    everything = accuracy(module, *unseen)
    print(f"after training all layers: {everything:.1%}")

    module.save_onnx("holes.onnx")
    report = verify("holes.onnx", [unseen[0]])
    print(f"wrote holes.onnx; MSE against onnxruntime {report.mse:.1g}")
    return head_only, everything


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

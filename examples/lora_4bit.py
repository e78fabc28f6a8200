"""LoRA on a 4-bit base: the packed weights stay as they are, small adapters beside them train.

onnxruntime's quantizer packs the weights of a float model into 4 bits. The trained adapters are
saved twice: as nodes beside the packed weights, and merged into float weights.

    python examples/lora_4bit.py [EPOCHS]
"""

from __future__ import annotations

import sys

import onnx
import onnxruntime
import torch
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from onnxinterp import OnnxModule
from onnxinterp.cli.demo import Portion, load
from onnxinterp.training.adapters import add_packed_lora, merge_packed_lora


class Network(nn.Module):
    """Two layers, from images (batch, 1, 8, 8) to logits (batch, 10)."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(64, width) / 8)
        self.last = nn.Parameter(torch.randn(width, 10) / 8)

    def forward(self, image: Tensor) -> Tensor:
        """Classify digits."""
        return (image.flatten(1) @ self.first).relu() @ self.last


def train(network: nn.Module, data: Portion, epochs: int) -> None:
    """Minimize cross-entropy over the parameters that train."""
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=1e-2)
    for batch in (b for _ in range(epochs) for b in torch.randperm(len(data.labels)).split(64)):
        optimizer.zero_grad()
        cross_entropy(network(data.images[batch]), data.labels[batch]).backward()
        optimizer.step()


def accuracy(path: str, portion: Portion) -> float:
    """Return the accuracy in onnxruntime."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": portion.images.numpy()})
    return float((logits.argmax(1) == portion.labels.numpy()).mean())


def main(epochs: int = 15, rank: int = 8) -> tuple[float, float, float]:
    """Adapt to rotated digits; return the accuracy before, with adapters and merged."""
    torch.manual_seed(0)
    _, training, test = load()
    network = Network().eval()  # no layer depends on it
    train(network, training, 10)
    names = {"input_names": ["image"], "dynamic_shapes": [{0: torch.export.Dim("batch")}]}
    torch.onnx.export(network, (training.images[:2],), "float.onnx", **names)
    quantizer = MatMulNBitsQuantizer(onnx.load("float.onnx"), block_size=32, is_symmetric=True)
    quantizer.process()
    onnx.save(quantizer.model.model, "packed.onnx")

    training, test = training.rotated(), test.rotated()
    before = accuracy("packed.onnx", test)
    module = OnnxModule(add_packed_lora(onnx.load("packed.onnx"), rank), trainable="*.lora_?")
    train(module, training, epochs)
    module.save_onnx("adapted.onnx")
    onnx.save(merge_packed_lora(onnx.load("adapted.onnx")), "merged.onnx")
    beside, merged = (accuracy(path, test) for path in ("adapted.onnx", "merged.onnx"))
    print(f"accuracy on rotated digits: {before:.1%} with packed.onnx, {beside:.1%} adapted")
    return before, beside, merged


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""Fine-tune a quantized model with quantization in the loop; the result is quantized too.

The new task is to classify digits rotated by 90 degrees. The float weights and the scales of the
int8 model train with the straight-through estimator, and are saved into the same graph.

    python examples/int8.py [EPOCHS]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnxruntime import quantization
from torch.nn.functional import cross_entropy

from onnxinterp import OnnxModule
from onnxinterp.cli.demo import Portion, load


class Calibration(quantization.CalibrationDataReader):
    """Calibration images for onnxruntime's quantizer."""

    def __init__(self, portion: Portion) -> None:
        self.batches = iter(portion.images.split(64))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch by input name."""
        batch = next(self.batches, None)
        return None if batch is None else {"image": batch.numpy()}


def accuracy(path: str, portion: Portion) -> float:
    """Return the accuracy in onnxruntime."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": portion.images.numpy()})
    return float((logits.argmax(1) == portion.labels.numpy()).mean())


def main(epochs: int = 10) -> tuple[float, float]:
    """Quantize, fine-tune and save; return the accuracy in onnxruntime before and after."""
    torch.manual_seed(0)
    digits, training, test = load()
    Path("digits.onnx").write_bytes(digits)
    quantization.quantize_static(
        "digits.onnx",
        "int8.onnx",
        Calibration(training),
        quant_format=quantization.QuantFormat.QDQ,
        extra_options={"AddQDQPairToWeight": True, "QuantizeBias": False},  # keep weights as float
    )
    training, test = training.rotated(), test.rotated()
    before = accuracy("int8.onnx", test)
    print(f"accuracy of int8.onnx on rotated digits: {before:.1%}")

    module = OnnxModule("int8.onnx", trainable=["*weight", "*bias", "*_scale"]).train()
    scales = [p for n, p in module.weights.items() if n.endswith("_scale")]
    others = [p for n, p in module.weights.items() if p.requires_grad and p.ndim]
    groups = [{"params": others, "lr": 3e-3}, {"params": scales, "lr": 1e-4}]
    optimizer = torch.optim.Adam(groups)
    for _ in range(epochs):
        for batch in torch.randperm(len(training.labels)).split(64):
            optimizer.zero_grad()
            cross_entropy(module(training.images[batch]), training.labels[batch]).backward()
            optimizer.step()
    module.save_onnx("tuned.onnx")
    after = accuracy("tuned.onnx", test)
    print(f"accuracy after fine-tuning: {after:.1%}, by onnxruntime on tuned.onnx")
    return before, after


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

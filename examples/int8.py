"""A quantized model learns with its quantization in the loop, and stays a quantized model.

The digits arrive rotated by 90 degrees. The int8 model is not trained anew and quantized again: its
float weights and its scales are tuned straight through the rounding, and written back in place.

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
    """Gives onnxruntime's quantizer some images to take the ranges of."""

    def __init__(self, portion: Portion) -> None:
        self.batches = iter(portion.images.split(64))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Give one batch by input name."""
        batch = next(self.batches, None)
        return None if batch is None else {"image": batch.numpy()}


def accuracy(path: str, portion: Portion) -> float:
    """Measure how often onnxruntime's answer is right."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": portion.images.numpy()})
    return float((logits.argmax(1) == portion.labels.numpy()).mean())


def main(epochs: int = 10) -> tuple[float, float]:
    """Quantize, tune and save; the accuracy in onnxruntime before and after."""
    torch.manual_seed(0)
    digits, training, test = load()
    Path("digits.onnx").write_bytes(digits)
    quantization.quantize_static(
        "digits.onnx",
        "int8.onnx",
        Calibration(training),
        quant_format=quantization.QuantFormat.QDQ,
        extra_options={"AddQDQPairToWeight": True, "QuantizeBias": False},  # float in the file
    )
    training, test = training.rotated(), test.rotated()
    before = accuracy("int8.onnx", test)
    print(f"int8, as quantized: {before:.1%} of the rotated digits")

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
    print(f"int8, fine-tuned:   {after:.1%}, by onnxruntime on tuned.onnx")
    return before, after


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""`onnxinterp demo`: load, verify, fine-tune and save a small model from the package.

The model classifies handwritten digits. Then the task changes: the digits are rotated by 90
degrees. The accuracy drops, and a few seconds of fine-tuning restore it. The result is saved as
ONNX.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from onnxinterp.cli.arguments import Commands, add_command, positive_int
from onnxinterp.cli.display import percentages, progress, say, table
from onnxinterp.cli.verify import verify_if_installed
from onnxinterp.module import OnnxModule
from onnxinterp.reading.source import Source
from onnxinterp.training import loop
from onnxinterp.training.datasets import Examples, tensors
from onnxinterp.verify import Report

EXAMPLES = """\
  onnxinterp demo
  onnxinterp demo --epochs 30
  onnxinterp demo --save rotated_digits.onnx"""

BATCH_SIZE = 64
LEARNING_RATE = 3e-3
OBJECTIVE = loop.Objective("ce")


@dataclass(frozen=True)
class Portion:
    """Images of digits, (n, 1, 8, 8) with values from 0 to 1, and their labels, (n,)."""

    images: Tensor
    labels: Tensor

    def rotated(self) -> Portion:
        """Return the images rotated by 90 degrees."""
        return Portion(self.images.rot90(1, (2, 3)).contiguous(), self.labels)

    @property
    def examples(self) -> Examples:
        """The images and labels as examples for `training.loop`."""
        return tensors({"image": self.images}, self.labels)


@dataclass(frozen=True)
class Measurement:
    """Accuracy of the model before or after fine-tuning.

    Attributes:
        upright: accuracy on the original test digits.
        rotated: accuracy on the test digits rotated by 90 degrees.
        comparison: comparison with onnxruntime; None if it is not installed.
    """

    upright: float
    rotated: float
    comparison: Report | None

    @property
    def agrees(self) -> bool:
        """Whether onnxruntime agrees or is not installed."""
        return self.comparison is None or self.comparison.ok


def add_to(commands: Commands) -> None:
    """Declare the command."""
    summary = "load, verify, fine-tune and save a small model from the package"
    parser = add_command(commands, "demo", run, summary, EXAMPLES)
    epochs = "number of fine-tuning epochs, default %(default)s"
    parser.add_argument("--epochs", type=positive_int, default=15, help=epochs)
    parser.add_argument("--seed", type=int, default=0, help="seed of the order of the images")
    parser.add_argument("--save", type=Path, metavar="OUT.onnx", help="save the fine-tuned model")


def run(options: argparse.Namespace) -> int:
    """Run the demo; return 0 if accuracy improved and onnxruntime agrees, else 1."""
    model, train, test = load()
    module = OnnxModule(model)
    _say_model(module, train, test)
    before = measure(module, model, test)
    start = time.perf_counter()
    trained = fine_tune(module, train.rotated(), options.epochs, options.seed)
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        saved = options.save or Path(folder) / "tuned.onnx"
        module.save_onnx(saved)
        after = measure(module, saved, test)
    _show(before, after)
    epochs = "1 epoch" if options.epochs == 1 else f"{options.epochs} epochs"
    say(f"trained {trained} of {loop.counts(module)[1]} parameters for {epochs} in {seconds:.1f} s")
    if options.save:
        say(f"wrote {options.save}: the same graph with the fine-tuned weights")
    return 0 if after.rotated > before.rotated and before.agrees and after.agrees else 1


def measure(module: OnnxModule, model: Source, test: Portion) -> Measurement:
    """Return the accuracy of the module, and compare its ONNX model with onnxruntime."""
    rotated = test.rotated()
    comparison = verify_if_installed(model, [rotated.images])
    return Measurement(accuracy(module, test), accuracy(module, rotated), comparison)


def load() -> tuple[bytes, Portion, Portion]:
    """Return the model of the package, the training digits and the test digits."""
    folder = files("onnxinterp") / "data"
    with (folder / "digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as data:
        train, test = (
            Portion(
                torch.from_numpy(data[f"{part}_images"][:, None]).float() / 16,
                torch.from_numpy(data[f"{part}_labels"]).long(),
            )
            for part in ("train", "test")
        )
    return (folder / "digits.onnx").read_bytes(), train, test


def accuracy(module: OnnxModule, portion: Portion) -> float:
    """Return the fraction of images that are classified correctly."""
    score = loop.measure(module, portion.examples, OBJECTIVE, len(portion.labels))
    return score.accuracy or 0.0


def fine_tune(module: OnnxModule, portion: Portion, epochs: int, seed: int) -> int:
    """Train with Adam on cross-entropy; return the number of trainable parameters."""
    optimizer = torch.optim.Adam(module.parameters(), lr=LEARNING_RATE)
    recipe = loop.Recipe(epochs, BATCH_SIZE, optimizer, seed=seed)
    with progress("fine-tuning", recipe.steps(portion.examples)) as advance:
        for _ in loop.tune(module, portion.examples, OBJECTIVE, recipe, advance):
            pass
    return loop.counts(module)[0]


def _say_model(module: OnnxModule, train: Portion, test: Portion) -> None:
    kinds = dict.fromkeys(node.op_type for node in module.onnx_graph.nodes)
    say(f"digits.onnx ({module.producer}): {loop.counts(module)[1]} parameters, {', '.join(kinds)}")
    say(f"data: {len(train.labels)} training digits, {len(test.labels)} test digits")
    say("new task: the digits are rotated by 90 degrees")
    say()


def _show(before: Measurement, after: Measurement) -> None:
    rows = [
        ("accuracy, rotated digits", *percentages(before.rotated, after.rotated)),
        ("accuracy, upright digits", *percentages(before.upright, after.upright)),
        ("MSE against onnxruntime", *(_mse(m.comparison) for m in (before, after)), ""),
    ]
    say()
    table("results on the test digits", ("", "before", "fine-tuned", "change"), rows)


def _mse(report: Report | None) -> str:
    return "not compared" if report is None else f"{report.mse:.3g}"

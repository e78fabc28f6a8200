"""`onnxinterp demo`: the whole way of a model, on a small one that ships with the package.

A network that reads handwritten digits is given a changed task: the digits come rotated by 90
degrees, as from a scanner that was mounted sideways. It fails, is fine-tuned for some seconds as
the PyTorch module it has become, and is written back to ONNX.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from onnxinterp.cli.arguments import Commands, command, positive
from onnxinterp.cli.display import percentages, progress, say, table
from onnxinterp.cli.verify import verify_if_installed
from onnxinterp.format.atomic import atomic_write
from onnxinterp.module import OnnxModule
from onnxinterp.training import loop
from onnxinterp.training.datasets import Examples, tensors
from onnxinterp.verify import Report

EXAMPLES = """\
  onnxinterp demo
  onnxinterp demo --epochs 30
  onnxinterp demo --save rotated_digits.onnx"""

BATCH = 64
LEARNING_RATE = 3e-3
OBJECTIVE = loop.Objective("ce")


@dataclass(frozen=True)
class Portion:
    """Images of digits, (n, 1, 8, 8) with values 0..1, and what they show, (n,)."""

    images: Tensor
    labels: Tensor

    def rotated(self) -> Portion:
        """The same images, turned by 90 degrees."""
        return Portion(self.images.rot90(1, (2, 3)).contiguous(), self.labels)

    @property
    def examples(self) -> Examples:
        """The same, to train on."""
        return tensors({"image": self.images}, self.labels)


@dataclass(frozen=True)
class Measured:
    """How good the model is at one moment.

    Attributes:
        upright: accuracy on the test digits as they are.
        rotated: accuracy on the test digits turned by 90 degrees.
        agreement: with onnxruntime; None where that is not installed.
    """

    upright: float
    rotated: float
    agreement: Report | None

    @property
    def agrees(self) -> bool:
        """Whether nothing speaks against it."""
        return self.agreement is None or self.agreement.ok


def add_to(commands: Commands) -> None:
    """Declare the command."""
    parser = command(
        commands, "demo", run, "load, check, fine-tune and save a small model of our own", EXAMPLES
    )
    parser.add_argument(
        "--epochs", type=positive, default=15, help="of fine-tuning, default %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order of the images")
    parser.add_argument("--save", type=Path, metavar="OUT.onnx", help="keep the fine-tuned model")


def run(options: argparse.Namespace) -> int:
    """Tell the story; 0 where accuracy was won back and onnxruntime agrees throughout."""
    model, train, test = load()
    module = OnnxModule(model)
    _say_model(module, train, test)
    before = measure(module, model, test)
    start = time.perf_counter()
    trained = fine_tune(module, train.rotated(), options.epochs, options.seed)
    seconds = time.perf_counter() - start
    saved = with_weights_of(module, model)
    after = measure(module, saved, test)
    _show(before, after)
    epochs = "1 epoch" if options.epochs == 1 else f"{options.epochs} epochs"
    say(f"trained {trained} of {loop.counts(module)[1]} weights for {epochs} in {seconds:.1f} s")
    if options.save:
        atomic_write(options.save, lambda file: file.write(saved))
        say(f"wrote {options.save}: the same graph with the new weights")
    return 0 if after.rotated > before.rotated and before.agrees and after.agrees else 1


def measure(module: OnnxModule, model: bytes, test: Portion) -> Measured:
    """Accuracy of the module, and agreement of onnxruntime on the same model written as ONNX."""
    rotated = test.rotated()
    agreement = verify_if_installed(model, [rotated.images])
    return Measured(accuracy(module, test), accuracy(module, rotated), agreement)


def load() -> tuple[bytes, Portion, Portion]:
    """The model that ships, and the training and test portion of the digits."""
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
    """The share of images read rightly."""
    score = loop.measure(module, portion.examples, OBJECTIVE, len(portion.labels))
    return score.accuracy or 0.0


def fine_tune(module: OnnxModule, portion: Portion, epochs: int, seed: int) -> int:
    """Train all weights that train, with Adam on cross-entropy; their number."""
    optimizer = torch.optim.Adam(module.parameters(), lr=LEARNING_RATE)
    recipe = loop.Recipe(epochs, BATCH, optimizer, seed=seed)
    with progress("fine-tuning", recipe.steps(portion.examples)) as advance:
        for _ in loop.tune(module, portion.examples, OBJECTIVE, recipe, advance):
            pass
    return loop.counts(module)[0]


def with_weights_of(module: OnnxModule, model: bytes) -> bytes:
    """The same graph with the module's weights, all of which are initializers here."""
    proto = onnx.ModelProto.FromString(model)
    for tensor in proto.graph.initializer:
        value = module.weights[tensor.name].detach().numpy()
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    data: bytes = proto.SerializeToString()
    return data


def _say_model(module: OnnxModule, train: Portion, test: Portion) -> None:
    kinds = dict.fromkeys(node.op_type for node in module.onnx_graph.nodes)
    say(f"digits.onnx ({module.producer}): {loop.counts(module)[1]} weights, {', '.join(kinds)}")
    say(f"{len(train.labels)} digits to train on, {len(test.labels)} others to test with")
    say("the task changes: from now on the digits arrive rotated by 90 degrees")
    say()


def _show(before: Measured, after: Measured) -> None:
    rows = [
        ("accuracy, digits rotated by 90 degrees", *percentages(before.rotated, after.rotated)),
        ("accuracy, digits upright", *percentages(before.upright, after.upright)),
        ("MSE against onnxruntime", *(_mse(m.agreement) for m in (before, after)), ""),
    ]
    say()
    table("on the test digits", ("", "as shipped", "fine-tuned", "change"), rows)


def _mse(report: Report | None) -> str:
    return "not compared" if report is None else f"{report.mse:.3g}"

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

from onnxinterp.cli.arguments import Commands, command
from onnxinterp.cli.display import Advance, progress, say, table
from onnxinterp.extras import MissingExtraError
from onnxinterp.module import OnnxModule
from onnxinterp.verify import Report, verify

EXAMPLES = """\
  onnxinterp demo
  onnxinterp demo --epochs 30
  onnxinterp demo --save rotated_digits.onnx"""

BATCH = 64
LEARNING_RATE = 3e-3


@dataclass(frozen=True)
class Portion:
    """Images of digits, (n, 1, 8, 8) with values 0..1, and what they show, (n,)."""

    images: Tensor
    labels: Tensor

    def rotated(self) -> Portion:
        """The same images, turned by 90 degrees."""
        return Portion(self.images.rot90(1, (2, 3)).contiguous(), self.labels)


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
        "--epochs", type=_positive, default=15, help="of fine-tuning, default %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order of the images")
    parser.add_argument("--save", type=Path, metavar="OUT.onnx", help="keep the fine-tuned model")


def _positive(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return count


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
    say(f"trained {trained} of {_count(module)} weights for {epochs} in {seconds:.1f} s")
    if options.save:
        options.save.write_bytes(saved)
        say(f"wrote {options.save}: the same graph with the new weights")
    return 0 if after.rotated > before.rotated and before.agrees and after.agrees else 1


def measure(module: OnnxModule, model: bytes, test: Portion) -> Measured:
    """Accuracy of the module, and agreement of onnxruntime on the same model written as ONNX."""
    rotated = test.rotated()
    agreement = _against_onnxruntime(model, rotated)
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
    module.eval()
    with torch.no_grad():
        hits = module(portion.images).argmax(1) == portion.labels
    return float(hits.double().mean())


def fine_tune(module: OnnxModule, portion: Portion, epochs: int, seed: int) -> int:
    """Train all weights that train, with Adam on cross-entropy; their number."""
    generator = torch.Generator().manual_seed(seed)
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE)
    module.train()
    rounds = epochs * -(-len(portion.labels) // BATCH)
    with progress("fine-tuning", rounds) as advance:
        for _ in range(epochs):
            order = torch.randperm(len(portion.labels), generator=generator)
            for batch in torch.split(order, BATCH):
                _step(module, optimizer, portion, batch, advance)
    module.eval()
    return sum(p.numel() for p in parameters)


def _step(
    module: OnnxModule,
    optimizer: torch.optim.Optimizer,
    portion: Portion,
    batch: Tensor,
    advance: Advance,
) -> None:
    optimizer.zero_grad()
    logits = module(portion.images[batch])
    loss = torch.nn.functional.cross_entropy(logits, portion.labels[batch])
    torch.autograd.backward(loss)
    optimizer.step()
    advance(f"loss {loss.item():.3f}")


def with_weights_of(module: OnnxModule, model: bytes) -> bytes:
    """The same graph with the module's weights, all of which are initializers here."""
    proto = onnx.ModelProto.FromString(model)
    for tensor in proto.graph.initializer:
        value = module.weights[tensor.name].detach().numpy()
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    data: bytes = proto.SerializeToString()
    return data


def _against_onnxruntime(model: bytes, portion: Portion) -> Report | None:
    """The comparison with onnxruntime, where that is installed."""
    try:
        return verify(model, [portion.images])
    except MissingExtraError as error:
        say(f"not compared: {error}")
        return None


def _say_model(module: OnnxModule, train: Portion, test: Portion) -> None:
    kinds = dict.fromkeys(node.op_type for node in module.graph.nodes)
    say(f"digits.onnx ({module.producer}): {_count(module)} weights, {', '.join(kinds)}")
    say(f"{len(train.labels)} digits to train on, {len(test.labels)} others to test with")
    say("the task changes: from now on the digits arrive rotated by 90 degrees")
    say()


def _count(module: OnnxModule) -> int:
    return sum(weight.numel() for weight in module.weights.values())


def _show(before: Measured, after: Measured) -> None:
    rows = [
        ("accuracy, digits rotated by 90 degrees", *_percent(before.rotated, after.rotated)),
        ("accuracy, digits upright", *_percent(before.upright, after.upright)),
        ("MSE against onnxruntime", *(_mse(m.agreement) for m in (before, after)), ""),
    ]
    say()
    table("on the test digits", ("", "as shipped", "fine-tuned", "change"), rows)


def _percent(before: float, after: float) -> tuple[str, str, str]:
    return f"{before:.1%}", f"{after:.1%}", f"{after - before:+.1%}"


def _mse(report: Report | None) -> str:
    return "not compared" if report is None else f"{report.mse:.3g}"

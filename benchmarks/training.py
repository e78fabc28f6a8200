"""A training step of the imported module compared with the original network.

Memory is the size of what the forward pass saves for the backward pass, without the weights: the
bytes of all storages that autograd saves, each counted once. This part of the peak depends on how a
network is computed; weights, their gradients and the optimizer state are the same for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import onnx
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name in torch
from torch import Tensor, nn

from benchmarks.networks import AttentionBlock
from benchmarks.tables import Table, main
from benchmarks.timing import time_candidates, use_one_thread
from onnxinterp import OnnxModule
from tests.exports.case import Export
from tests.training.exporting import write
from tests.training.networks import ENCODER, TAGGER, ResNet18, ViT

ROUNDS = 40
LARGE_PARAMETERS = 10**7  # larger networks run a quarter of the rounds
WORDS, TAGS, WIDTH = 5000, 20, 256
OPSET = 17


class Model(NamedTuple):
    """A network, its ONNX model, inputs and target classes."""

    name: str
    network: nn.Module
    proto: onnx.ModelProto
    inputs: tuple[Tensor, ...]
    target: Tensor


class Classifier(nn.Sequential):
    """Transformer blocks and a class for each token."""

    def forward(self, input: Tensor) -> Tensor:
        """[batch, length, width] -> [batch, width, length]."""
        return super().forward(input).transpose(1, 2)


class Tagger(nn.Module):
    """Word embeddings, a bidirectional LSTM of two layers, and a score for each tag."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.lstm = nn.LSTM(WIDTH, WIDTH, num_layers=2, bidirectional=True, batch_first=True)
        self.tags = nn.Linear(2 * WIDTH, TAGS)

    def forward(self, ids: Tensor) -> Tensor:
        """[batch, time] -> [batch, tags, time]."""
        return self.tags(self.lstm(self.words(ids))[0]).transpose(1, 2)


def models() -> Iterator[Model]:
    how = Export("torchscript", OPSET)
    image, token = torch.randn(8, 3, 32, 32), torch.randn(2, 128, 256)
    classes = torch.randint(5, (8,))
    blocks = Classifier(*(AttentionBlock(256, 4) for _ in range(4)))
    bert, words = Classifier(*(AttentionBlock(768, 12) for _ in range(12))), torch.randn(2, 64, 768)
    sentences = (torch.randint(WORDS, (16, 40)),), torch.randint(TAGS, (16, 40))
    networks: list[tuple[str, nn.Module, tuple[Tensor, ...], Tensor]] = [
        ("resnet18, 8 channels", ResNet18(), (image,), classes),
        ("resnet18, 64 channels", ResNet18(64), (torch.randn(2, 3, 64, 64),), classes[:2]),
        ("vision transformer", ViT(), (image,), classes),
        ("transformer, 4 blocks of 256", blocks, (token,), torch.randint(256, (2, 128))),
        ("transformer, 12 blocks of 768", bert, (words,), torch.randint(768, (2, 64))),
        ("encoder", ENCODER.network(), *ENCODER.batch(0)),
        ("tagger, 7 words of 24", TAGGER.network(), *TAGGER.batch(0)),
        ("tagger, 40 words of 256", Tagger(), *sentences),
    ]
    for name, network, inputs, target in networks:
        yield Model(name, network, write(network, inputs, how), inputs, target)


def training_step(
    network: nn.Module, inputs: tuple[Tensor, ...], target: Tensor
) -> Callable[[], None]:
    """Return a function that runs forward, loss, backward and an update."""
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-6)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(*inputs), target).backward()
        optimizer.step()

    return step


def saved_bytes(network: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Return the bytes saved for the backward pass, without parameters and inputs."""
    known = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *inputs)}
    saved: dict[int, int] = {}

    def record(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        output = network(*inputs)
    del output
    return sum(saved.values())


def _row(model: Model) -> tuple[str | float, ...]:
    network, module = model.network.train(), OnnxModule(model.proto).train()
    trained = dict(network.named_parameters())
    module.freeze(lambda name, _: name not in trained)
    large = sum(p.numel() for p in trained.values()) > LARGE_PARAMETERS
    times = time_candidates(
        {
            "torch": training_step(network, model.inputs, model.target),
            "onnxinterp": training_step(module, model.inputs, model.target),
        },
        rounds=ROUNDS // 4 if large else ROUNDS,
    )
    ours, theirs = times["onnxinterp"], times["torch"]
    saved = [saved_bytes(m, model.inputs) / 2**20 for m in (network, module)]
    return (
        model.name,
        1e3 * theirs.median,
        1e3 * ours.median,
        *ours.ratios(theirs),
        *saved,
        saved[1] / saved[0],
    )


def measure() -> Table:
    use_one_thread()
    return Table(
        "Training",
        "Median milliseconds of a step (forward, loss, backward, SGD), one thread; MB that the "
        "forward pass saves for the backward pass; and the ratio of onnxinterp to torch. The "
        "targets are 1.05. The models are exported by the TorchScript exporter at opset 17 without "
        "constant folding; constants that the exporter added are frozen.",
        (
            "network",
            "torch ms",
            "onnxinterp ms",
            "/ torch",
            "/ torch (minima)",
            "torch MB",
            "onnxinterp MB",
            "MB / MB",
        ),
        tuple(_row(model) for model in models()),
    )


if __name__ == "__main__":
    main(measure)

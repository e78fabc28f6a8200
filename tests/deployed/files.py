"""A file of a tool: the network that it comes from, how it is written, and what judges it.

Files are written when the first test needs them and stay in pytest's cache, as exports do: a file
is written again when a module that it is written by, or a package, has changed.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.jit._trace import TracerWarning

from tests import exporting
from tests.exports.case import Case

PACKAGES = ("torch", "onnx", "onnxruntime", "transformers", "numpy")  # that write a file
SEED_OF_CALIBRATION = 100

EXPECTED_WARNINGS: dict[str, type[Warning]] = {
    # transformers' masks and windows; what is indexed there is never negative
    "Exporting aten::index operator of advanced indexing": UserWarning,
    # HQQ reads the weights of the file
    "The given NumPy array is not writable": UserWarning,
    "torch.tensor results are registered as constants in the trace": TracerWarning,
}
"""A warning of a tool that is not listed fails the test that caused it."""

Judge = Literal["the file", "the original"]
Feeds = dict[str, np.ndarray]


@dataclass(frozen=True)
class Deployed:
    """A file as a tool writes it.

    Attributes:
        name: of the file.
        tool: that writes it, and the options that matter.
        options: for the table.
        original: the network that it is made of, and its inputs.
        write: writes the file to a path.
        module: that defines `write`.
        judge: whose answer of onnxruntime is the right one: that to the file itself, or, where
            onnxruntime has no kernels for the file on a processor, that to the original.
        tolerance: the relative difference of the answers, where onnxruntime rounds to less than
            float32 in places that the file does not name; None where float32 is expected.
        no_ties: it quantizes what it computes in float32, and stays away from ties.
        seed: of the inputs.
    """

    name: str
    tool: str
    options: str
    original: Case
    write: Callable[[Path], object]
    module: str
    judge: Judge = "the file"
    tolerance: float | None = None
    no_ties: bool = False
    seed: int = 0

    def path(self) -> Path:
        """Return the file in the cache, which must not be changed."""

        def write(folder: Path) -> None:
            with expected_warnings():
                self.write(folder / "m.onnx")

        return exporting.cached(key(self.module, self.name), write) / "m.onnx"

    def feeds(self) -> list[Feeds]:
        """Return the inputs of two calls, by name."""
        return [feeds(self.original, sizes, self.seed) for sizes in self.original.sizes]


def feeds(case: Case, sizes: dict[str, int], seed: int = 0) -> Feeds:
    """Return inputs of these sizes by name."""
    tensors = case.arguments(sizes, seed)
    return {i.name: t.numpy() for i, t in zip(case.inputs, tensors, strict=True)}


def calibration(case: Case, count: int = 4) -> list[Feeds]:
    """Return inputs to calibrate with, other ones than those of the calls."""
    return [feeds(case, case.sizes[0], SEED_OF_CALIBRATION + i) for i in range(count)]


def original(case: Case) -> Path:
    """Return the export of a network in the cache, which must not be changed."""
    found = key("tests.deployed.originals", case.name)
    return exporting.cached(found, lambda folder: export(case, folder / "m.onnx")) / "m.onnx"


def export(case: Case, path: Path) -> None:
    """Export a network by torch's older exporter, whose graphs the tools know."""
    names = [i.name for i in case.inputs]
    with expected_warnings(), torch.no_grad():
        torch.onnx.export(
            case.module(),
            case.arguments(case.sizes[0]),
            path,
            dynamo=False,
            opset_version=case.torchscript[0],
            input_names=names,
            output_names=list(case.outputs),
            dynamic_axes=dict(zip(names, case.dynamic_dims(), strict=True)),
        )


@contextmanager
def expected_warnings() -> Iterator[None]:
    with exporting.expected_warnings():
        for message, category in EXPECTED_WARNINGS.items():
            warnings.filterwarnings("ignore", message=message, category=category)
        yield


def key(module: str, name: str) -> str:
    """Return what a file in the cache depends on: its maker, the tests that it uses, packages."""
    digest = hashlib.sha256(repr((name, _versions())).encode())
    for file in sorted(exporting.sources(module)):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:32]


@cache
def _versions() -> tuple[str, ...]:
    return tuple(metadata.version(package) for package in PACKAGES)

"""Written Python source compared with the original network, eager, one thread.

A network is exported, imported and written with `to_python`; the written module runs in turn with
the original. Exporters fold batch normalization into convolutions, which the original computes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.compiling import NETWORKS
from benchmarks.tables import Table, main
from benchmarks.timing import time_candidates, use_one_thread
from onnxinterp import OnnxModule
from tests.exporting import export
from tests.exports.modules import CASES
from tests.python_source.writing import load

ROUNDS = 30
OPSET = 18
NAMES = ("resnet18", "mobilenet_v2", "vit_small", "bert")
LARGEST = -1


class Network(NamedTuple):
    """A network, its inputs and the sizes that are free."""

    name: str
    module: nn.Module
    inputs: tuple[Tensor, ...]
    dims: tuple[dict[int, str], ...]


def networks() -> Iterator[Network]:
    """The six networks."""
    import torchvision

    for name in NAMES:
        make, inputs = NETWORKS[name]
        yield Network(name, make().eval(), (inputs(),), ({},))
    squeezenet = torchvision.models.squeezenet1_1().eval()
    yield Network("squeezenet1_1", squeezenet, (torch.randn(2, 3, 224, 224),), ({0: "batch"},))
    tagger = next(case for case in CASES if case.name == "tagger")
    inputs = tagger.arguments(tagger.sizes[LARGEST])
    yield Network("LSTM tagger", tagger.module(), inputs, tagger.dynamic_dims())


def written(network: Network, folder: Path, *, dynamo: bool) -> nn.Module:
    """The module that is written for an export of a network."""
    names = [f"input_{i}" for i in range(len(network.inputs))]
    free: dict[str, Any] = {"dynamic_axes": dict(zip(names, network.dims, strict=True))}
    if dynamo:
        dims = [dict.fromkeys(axes, torch.export.Dim.AUTO) for axes in network.dims]
        free = {"dynamic_shapes": tuple(dims)}
    model = export(
        network.module,
        network.inputs,
        fresh=False,
        dynamo=dynamo,
        opset_version=OPSET,
        gradients=True,
        input_names=names,
        **free,
    )
    return load(OnnxModule(model).to_python(folder / "net.py", *network.inputs))


def _row(network: Network) -> tuple[str | float, ...]:
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        traced = written(network, Path(folder), dynamo=False)
        exported = written(network, Path(folder), dynamo=True)
        candidates = {"torch": network.module, "TorchScript": traced, "dynamo": exported}
        for net in (traced, exported):
            got, wanted = net(*network.inputs), network.module(*network.inputs)
            torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)
        times = time_candidates(
            {name: lambda net=net: net(*network.inputs) for name, net in candidates.items()},
            rounds=ROUNDS,
        )
    return (
        network.name,
        *(1e3 * t.minimum for t in times.values()),
        *(times[name].ratios(times["torch"])[1] for name in ("TorchScript", "dynamo")),
    )


def measure() -> Table:
    use_one_thread()
    torch.manual_seed(0)
    return Table(
        "Written source",
        "The original network and what `to_python` writes for its exports: least milliseconds of "
        "a call without gradients, and the ratio to the original. The target is 1.05.",
        ("network", "torch", "TorchScript", "dynamo", "TorchScript / torch", "dynamo / torch"),
        tuple(_row(network) for network in networks()),
    )


if __name__ == "__main__":
    main(measure)

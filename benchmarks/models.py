"""Whole models: the imported module compared with the original network and with onnxruntime.

The small ones are the networks of the export tests, where calls to torch take most of the time. In
the larger ones, arithmetic dominates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import onnx
import torch
from torch import Tensor, nn

from benchmarks.networks import AttentionBlock, export, residual_network
from benchmarks.overhead import onnxruntime_session
from benchmarks.tables import Table, main
from benchmarks.timing import time_candidates, use_one_thread
from onnxinterp import OnnxModule
from tests.exports.case import Export
from tests.exports.exporting import export as export_case
from tests.exports.modules import CASES

ROUNDS = 60


class Model(NamedTuple):
    """A network, its ONNX model and its inputs by name."""

    name: str
    network: nn.Module
    proto: onnx.ModelProto
    inputs: dict[str, Tensor]


def models() -> Iterator[Model]:
    for case in CASES:
        names = [spec.name for spec in case.inputs]
        opset = case.torchscript[-1]
        inputs = dict(zip(names, case.arguments(case.sizes[-1]), strict=True))
        proto = onnx.load(export_case(case, Export("torchscript", opset)))
        yield Model(f"{case.name} (opset {opset})", case.module(), proto, inputs)
    transformer = nn.Sequential(*(AttentionBlock(384, 6) for _ in range(6))).eval()
    tokens = torch.randn(1, 128, 384)
    proto = export(transformer, tokens, opset=17, dynamic=True)
    yield Model("transformer, 6 blocks of 384", transformer, proto, {"x": tokens})
    network, image = residual_network().eval(), torch.randn(1, 3, 224, 224)
    proto = export(network, image, opset=17, dynamic=False)
    yield Model("residual network, 18 layers", network, proto, {"x": image})


def _row(model: Model) -> tuple[str | float, ...]:
    module, session = OnnxModule(model.proto), onnxruntime_session(model.proto)
    inputs = tuple(model.inputs.values())
    feeds = {name: x.numpy() for name, x in model.inputs.items()}
    with torch.no_grad():
        times = time_candidates(
            {
                "torch": lambda: model.network(*inputs),
                "onnxinterp": lambda: module(*inputs),
                "onnxruntime": lambda: session.run(None, feeds),
            },
            rounds=ROUNDS,
        )
    ours = times["onnxinterp"]
    return (
        model.name,
        str(len(model.proto.graph.node)),
        *(1e3 * times[name].median for name in ("torch", "onnxinterp", "onnxruntime")),
        *ours.ratios(times["torch"]),
        ours.ratios(times["onnxruntime"])[0],
    )


def measure() -> Table:
    use_one_thread()
    return Table(
        "Models",
        "Median milliseconds per call without gradients, one thread, and the ratio of onnxinterp "
        "to the network in torch and to onnxruntime.",
        (
            "model",
            "nodes",
            "torch",
            "onnxinterp",
            "onnxruntime",
            "/ torch",
            "/ torch (minima)",
            "/ onnxruntime",
        ),
        tuple(_row(model) for model in models()),
    )


if __name__ == "__main__":
    main(measure)

"""The 20 columns: five networks, written by two exporters, called in two ways."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any

import onnx
from onnx import numpy_helper
from torch import nn

from onnxinterp import OnnxModule
from tests.citizen.networks import NETWORKS, Network
from tests.exporting import export
from tests.exports.case import Export, Exporter
from tests.training.exporting import write

EXPORTERS: tuple[Exporter, ...] = ("torchscript", "dynamo")
CALLS = ("default", "recommended")
RECOMMENDED_OPSET = {"torchscript": 17, "dynamo": 18}


@dataclass(frozen=True)
class Column:
    """One network as one exporter writes it.

    Attributes:
        network: the original.
        exporter: "torchscript" is torch.onnx.export(dynamo=False), "dynamo" is dynamo=True.
        call: "default" passes nothing else; "recommended" is that of docs/fine-tuning.md.
    """

    network: Network
    exporter: Exporter
    call: str

    @property
    def name(self) -> str:
        """As in expected.txt."""
        return f"{self.network.name}-{self.exporter}-{self.call}"

    def model(self) -> onnx.ModelProto:
        """The file."""
        return _exported(self)

    def imported(self, **options: Any) -> nn.Module:
        """The file as a module, in eval mode."""
        return OnnxModule(self.model(), **options)

    def lost(self) -> frozenset[str]:
        """Parameters whose numbers the file does not hold: no importer can find them in it."""
        return _lost(self)


@cache
def _lost(column: Column) -> frozenset[str]:
    stored = [Counter(numpy_helper.to_array(t).flat) for t in column.model().graph.initializer]
    return frozenset(
        name
        for name, parameter in column.network.original().named_parameters()
        if not any(_holds(numbers, parameter) for numbers in stored)
    )


def _holds(stored: Counter[float], parameter: nn.Parameter) -> bool:
    """Whether a tensor has the numbers of a parameter, each as often, but for some by chance.

    It may have another shape, another order (the gates of an LSTM), or be packed with others.
    """
    own = Counter(parameter.detach().numpy().flat)
    return sum(stored[number] == count for number, count in own.items()) > 0.99 * len(own)


@cache
def _exported(column: Column) -> onnx.ModelProto:
    original, inputs = column.network.original(), column.network.inputs(0)
    if column.call == "recommended":
        how = Export(column.exporter, RECOMMENDED_OPSET[column.exporter])
        return write(original, inputs, how)
    return export(original, inputs, dynamo=column.exporter == "dynamo")


COLUMNS = tuple(
    Column(network, exporter, call)
    for network in NETWORKS
    for exporter in EXPORTERS
    for call in CALLS
)

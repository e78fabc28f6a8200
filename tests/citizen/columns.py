"""The 20 columns: five networks, written by two exporters, called in two ways."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import onnx
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

    def lost(self) -> str:
        """What the exporter folded away, so that no importer can find it in the file."""
        normalizes = any(isinstance(m, nn.BatchNorm2d) for m in self.network.original().modules())
        if normalizes and all(n.op_type != "BatchNormalization" for n in self.model().graph.node):
            return "the exporter folded BatchNormalization into the convolutions"
        return ""


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

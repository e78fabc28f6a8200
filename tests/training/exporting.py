"""A network as ONNX, written for training: parameters stay whole, normalisation is not folded."""

from __future__ import annotations

from typing import Any

import onnx
import torch
from torch import Tensor, nn

from tests.exporting import export
from tests.exports.case import Export


def write(
    network: nn.Module, inputs: tuple[Tensor, ...], how: Export, **options: Any
) -> onnx.ModelProto:
    """Export in eval mode, as docs/fine-tuning.md recommends."""
    network.eval()
    if how.exporter == "dynamo":
        options = {"optimize": False, **options}
        return export(network, inputs, dynamo=True, opset_version=how.opset, **options)
    return export(
        network,
        inputs,
        dynamo=False,
        opset_version=how.opset,
        **options,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
    )

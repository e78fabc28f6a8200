"""A network as ONNX, written for training: parameters stay whole, normalisation is not folded."""

from __future__ import annotations

import io

import onnx
import torch
from torch import Tensor, nn

from tests.exports.case import Export
from tests.exports.exporting import expected_warnings


def write(
    network: nn.Module, inputs: tuple[Tensor, ...], how: Export, gradients: bool = False
) -> onnx.ModelProto:
    """Export in eval mode, as docs/fine-tuning.md recommends.

    Without `gradients` torch runs a transformer layer as one operator, which no exporter has.
    """
    with expected_warnings(), torch.set_grad_enabled(gradients):
        if how.exporter == "dynamo":
            program = torch.onnx.export(
                network.eval(),
                inputs,
                dynamo=True,
                opset_version=how.opset,
                verbose=False,
                optimize=False,
            )
            assert program is not None
            return program.model_proto
        file = io.BytesIO()
        torch.onnx.export(
            network.eval(),
            inputs,
            file,
            dynamo=False,
            opset_version=how.opset,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
    return onnx.load_from_string(file.getvalue())

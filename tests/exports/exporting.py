"""One network as one ONNX model, by either of torch's exporters, at the opset asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import torch

from tests.exporting import export_file
from tests.exports.case import Case, Export

EXPORTED_ONCE = frozenset({"tagger"})
"""Networks with an LSTM: torch 2.14 takes its sizes for static the second time in a process."""


def export(case: Case, how: Export) -> Path:
    """Return the file of the network of `case`, which must not be changed."""
    names = [spec.name for spec in case.inputs]
    dims: dict[str, Any] = (
        {"dynamic_shapes": dynamic_shapes(case)}
        if how.exporter == "dynamo"
        else {"dynamic_axes": dict(zip(names, case.dynamic_dims(), strict=True))}
    )
    path = export_file(
        case.module(),
        case.arguments(case.sizes[0]),
        fresh=how.exporter == "dynamo" and case.name in EXPORTED_ONCE,
        dynamo=how.exporter == "dynamo",
        opset_version=how.opset,
        input_names=names,
        output_names=list(case.outputs),
        **dims,
    )
    opsets = {entry.domain: entry.version for entry in onnx.load(path).opset_import}
    assert opsets[""] == how.opset
    return path


def dynamic_shapes(case: Case) -> tuple[dict[int, object], ...]:
    """Return what torch.export wants to hear: these axes stay symbols, or it is an error."""
    return tuple(dict.fromkeys(dims, torch.export.Dim.DYNAMIC) for dims in case.dynamic_dims())

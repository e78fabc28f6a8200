"""A small model with one weight in external data, and both ways of opening it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from onnxinterp import OnnxModule
from onnxinterp.format import files

SIZE = 1024
VALUES = np.arange(SIZE, dtype=np.float32)


def model_of(**entries: str) -> onnx.ModelProto:
    """Make y = x + w, where w has these entries of external data."""
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[{SIZE}] x) => (float[{SIZE}] y)'
        "{ y = Add(x, w) }"
    )
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[SIZE])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return model


def save(folder: Path, location: str = "w.bin", **entries: str) -> Path:
    """Save such a model; its data are the caller's to place."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "m.onnx").write_bytes(model_of(location=location, **entries).SerializeToString())
    return folder / "m.onnx"


def is_read(path: Path, **arguments: Path) -> bool:
    """Load a model and compare what it answers."""
    return torch.equal(
        OnnxModule(path, **arguments)(torch.zeros(SIZE)), torch.from_numpy(VALUES.copy())
    )


@pytest.fixture(params=[True, False], ids=["descriptors", "names"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of opening: from the folder downwards, and that of systems that cannot."""
    if not request.param:
        monkeypatch.setattr(files, "BY_DESCRIPTOR", False)

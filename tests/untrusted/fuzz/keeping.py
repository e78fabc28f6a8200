"""A case as one file: a graph that holds its inputs as initializers, which a call may give."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper

CORPUS = Path(__file__).with_name("corpus")


def keep(model: ModelProto, feeds: Mapping[str, Any], path: Path) -> None:
    """Write a graph and the tensors to call it with."""
    whole = ModelProto()
    whole.CopyFrom(model)
    known = {t.name for t in whole.graph.initializer}
    for name, value in feeds.items():
        if name not in known and isinstance(value, np.ndarray):
            whole.graph.initializer.append(numpy_helper.from_array(value, name))
    onnx.save(whole, path)


def kept(path: Path) -> tuple[ModelProto, dict[str, Any]]:
    """The graph of a file, and its inputs: what is an input and an initializer is fed."""
    model = onnx.load(path)
    inputs = {i.name for i in model.graph.input}
    tensors = {t.name: t for t in model.graph.initializer if t.name in inputs}
    others = [t for t in model.graph.initializer if t.name not in inputs]
    del model.graph.initializer[:]
    model.graph.initializer.extend(others)
    return model, {name: numpy_helper.to_array(t) for name, t in tensors.items()}

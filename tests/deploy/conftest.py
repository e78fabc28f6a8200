"""A small network with a dynamic batch, and the state dict of the torch module behind it."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.parser
import pytest

TEXT = """
    <ir_version: 8, opset_import: ["": 17]>
    net (float[batch, 4] x) => (float[batch, 3] scores, int64[batch] best)
    <float[3, 4] fc_weight = {0.5, -0.2, 0.3, 0.4, 0.5, 0.6, -0.7, 0.8, 0.9, 0.1, 0.2, 0.3},
     float[3] fc_bias = {0.5, -0.5, 0.25}> {
        a = Gemm <transB = 1> (x, fc_weight, fc_bias)
        b = Identity(a)
        scores = Tanh(b)
        best = ArgMax <axis = 1, keepdims = 0> (b)
    }"""

NORMALIZED = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[batch, 4] x) => (float[batch, 4] y)
    <float[4] norm_weight = {1.0, 2.0, 3.0, 4.0}, float[4] norm_bias = {0.5, 0.5, 0.25, 1.0}>
    { y = LayerNormalization(x, norm_weight, norm_bias) }"""


def model_of(text: str) -> onnx.ModelProto:
    """A model whose weights are called as in a module: `fc_weight` is `fc.weight`."""
    model = onnx.parser.parse_model(text)
    for tensor in model.graph.initializer:
        for node in model.graph.node:
            node.input[:] = [n.replace("_", ".") if n == tensor.name else n for n in node.input]
        tensor.name = tensor.name.replace("_", ".")
    return model


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    onnx.save(model_of(TEXT), path)
    return path


@pytest.fixture
def scores(net: Path, tmp_path: Path) -> Path:
    """The network without ArgMax, which ncnn lacks."""
    model = onnx.load(net)
    del model.graph.output[1], model.graph.node[-1]
    path = tmp_path / "scores.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture
def normalized(tmp_path: Path) -> Path:
    path = tmp_path / "norm.onnx"
    onnx.save(model_of(NORMALIZED), path)
    return path

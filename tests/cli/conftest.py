"""Models for the tests of the commands."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import onnx
import pytest


@pytest.fixture
def digits() -> Path:
    return Path(str(files("onnxinterp") / "data" / "digits.onnx"))


@pytest.fixture
def two_inputs(tmp_path: Path) -> Path:
    """Two inputs that share a dynamic size, two outputs, and nodes that a simplifier removes."""
    text = """
        <ir_version: 8, opset_import: ["": 17], producer_name: "by hand">
        pair (float[n, 3] x, float[n, 2] y) => (float[n, 2] sum, float[n, 3] same)
        <float[3, 2] w = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}> {
            one = Constant <value = float[1] {1.0}> ()
            a = MatMul(x, w)
            b = Identity(a)
            c = Dropout(b)
            d = Add(c, y)
            half = Constant <value_floats = [0.5]> ()
            e = Add(d, half)
            sum = Add(e, one)
            same = Relu(x)
        }"""
    path = tmp_path / "pair.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    return path


@pytest.fixture
def unserved(tmp_path: Path) -> Path:
    """A model with two operators without a kernel."""
    text = """
        <ir_version: 8, opset_import: ["": 17, "my.domain": 1]>
        g (float[2] x) => (float[2] y) <float[2] w = {1.0, 2.0}> {
            a = Relu(x)
            b = my.domain.Foo(a, w)
            c = my.domain.Foo(b, w)
            y = my.domain.Bar(c)
        }"""
    path = tmp_path / "unserved.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    return path

"""Names of a file are names in the source where they can be, and nothing of a file is code."""

from __future__ import annotations

from pathlib import Path

import onnx.helper
import pytest
import torch
from onnx import TensorProto

from onnxinterp import OnnxModule
from tests.python_source.writing import assert_same, written

NASTY = (
    "self",
    "torch",
    "F",
    "nn",
    "x",
    "class",
    "batch",
    "forward",
    "training",
    "0",
    "a/b:0",
    "Net",
    '"""\nraise SystemExit\n"""',
    "x\\",
)


def model(name: str, *, weight: str, size: str, graph: str) -> OnnxModule:
    """Y = x + w, by these names."""
    info = onnx.helper.make_tensor_value_info
    made = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", [name, weight], ["result"])],
        graph,
        [info(name, TensorProto.FLOAT, [size, 3])],
        [info("result", TensorProto.FLOAT, None)],
        [onnx.helper.make_tensor(weight, TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    return OnnxModule(onnx.helper.make_model(made, opset_imports=opsets, ir_version=8))


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("place", ["input", "weight", "size", "graph"])
def test_any_name_is_written_as_one(name: str, place: str, tmp_path: Path) -> None:
    names = {"input": "given", "weight": "held", "size": "many", "graph": "main"} | {place: name}
    module = model(names["input"], weight=names["weight"], size=names["size"], graph=names["graph"])
    net, text = written(module, tmp_path, torch.ones(2, 3))
    assert_same(net, module, torch.ones(4, 3))
    assert "raise SystemExit\n" not in text

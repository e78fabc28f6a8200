"""Names of a file are names in the source where they can be, and nothing of a file is code."""

from __future__ import annotations

import ast
from collections import Counter
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
    "__class__",
    "__init__",
    "state.dict",
    "名前",
    "ﬁ",  # NFKC makes another identifier of it
    "a'b",
    "line\n    import os",
    "line\r# comment",
    "{0}%s",
    "#",
    "None",
    "match",
    "super",
    "load",
    "Path",
    "json",
    "WEIGHTS",
    "a" * 300,
)

PARTS = {"Expr", "Import", "ImportFrom", "Assign", "ClassDef", "FunctionDef"}
"""What a file has, once but for imports and classes: a name must not become a part of its own."""


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
    parts = Counter(type(part).__name__ for part in ast.parse(text).body)
    assert parts.keys() == PARTS
    assert parts["Expr"] == parts["Assign"] == parts["FunctionDef"] == 1
    assert parts["ClassDef"] == 1 + (place == "weight" and "." in name)
    assert "import os" not in [line.strip() for line in text.splitlines()]

"""What docs/numerics.md says of NaN is so."""

from __future__ import annotations

import re
from math import inf, nan
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor

from onnxinterp import OnnxModule

PAGE = Path(__file__).parents[2] / "docs" / "numerics.md"
ROW = re.compile(r"\| `(\w+)` \| `(.*?)` \| `(.*?)` \|")
ROWS = ROW.findall(PAGE.read_text())
NUMBERS = {"nan": nan, "inf": inf}


def _numbers(text: str) -> list[np.ndarray]:
    """`[1, nan], to=6` -> arrays and attributes."""
    given, attributes = eval(f"(lambda *a, **k: (a, k))({text})", NUMBERS)
    return [np.array(x, dtype=np.float32) for x in given], attributes


@pytest.mark.parametrize(("operator", "call", "answer"), ROWS, ids=lambda t: t)
def test_nan(operator: str, call: str, answer: str) -> None:
    arrays, attributes = _numbers(call)
    if operator == "TopK":
        arrays[1] = arrays[1].astype(np.int64)
    names = [f"x{i}" for i in range(len(arrays))]
    outputs = ["y", "indices"] if operator == "TopK" else ["y"]
    node = helper.make_node(operator, names, outputs, **attributes)
    infos = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in zip(names, arrays, strict=True)
    ]
    results = [helper.make_empty_tensor_value_info("y")]
    graph = helper.make_graph([node], "nan", infos, results)
    imports = [helper.make_opsetid("", 20)]
    module = OnnxModule(helper.make_model(graph, opset_imports=imports, ir_version=9))
    got = module(*map(torch.from_numpy, arrays))
    assert isinstance(got, Tensor)
    np.testing.assert_array_equal(got.numpy(), np.array(eval(answer, NUMBERS)))


def test_the_page_has_its_rows() -> None:
    assert len(ROWS) > 20
    assert TensorProto.BOOL == 9  # as the page has it

"""Output element types that depend on attributes, not on the schema: the next node needs them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import onnxinterp.backend
from tests.property.oracles import to_lane

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "strings to floats": (
        """(string[n] x) => (y) {
            l = ai.onnx.ml.LabelEncoder <keys_strings: strings = ["a", "b"],
                values_floats: floats = [1.5, 2.5]> (x)
            y = Concat <axis: int = 0> (l, l) }""",
        {"x": np.array(["b", "a", "c"], dtype=object)},
    ),
    "integers to strings": (
        """(int64[n] x) => (y) {
            l = ai.onnx.ml.LabelEncoder <keys_int64s: ints = [1, 2],
                values_strings: strings = ["one", "two"]> (x)
            y = Concat <axis: int = 0> (l, l) }""",
        {"x": np.array([2, 1, 7])},
    ),
    "strings to categories": (
        """(string[n] x) => (y) {
            l = ai.onnx.ml.CategoryMapper <cats_strings: strings = ["a", "b"],
                cats_int64s: ints = [5, 6]> (x)
            y = Concat <axis: int = 0> (l, l) }""",
        {"x": np.array(["b", "a", "c"], dtype=object)},
    ),
    "categories to strings": (
        """(int64[n] x) => (y) {
            l = ai.onnx.ml.CategoryMapper <cats_strings: strings = ["a", "b"],
                cats_int64s: ints = [5, 6]> (x)
            y = Concat <axis: int = 0> (l, l) }""",
        {"x": np.array([6, 5, 4])},
    ),
    "labels of classes": (
        """(float[n, 1] x) => (y) {
            l, s = ai.onnx.ml.LinearClassifier <classlabels_strings: strings = ["no", "yes"],
                coefficients: floats = [-1.0, 1.0], intercepts: floats = [0.0, 0.0]> (x)
            y = Concat <axis: int = 0> (l, l) }""",
        {"x": np.array([[-2.0], [3.0]], dtype=np.float32)},
    ),
    "a constant of a shape": (
        """(int64[1] n) => (y) {
            c = ConstantOfShape <value: tensor = uint16[1] {65535}> (n)
            y = Concat <axis: int = 0> (c, c) }""",
        {"n": np.array([3])},
    ),
    "a window": (
        """(int64 n) => (y) {
            w = HannWindow <output_datatype: int = 4> (n)
            y = Concat <axis: int = 0> (w, w) }""",
        {"n": np.array(5)},
    ),
}


@pytest.mark.parametrize(("graph", "feeds"), CASES.values(), ids=list(CASES))
def test_the_next_node_knows_the_output_type(graph: str, feeds: dict[str, Any]) -> None:
    head = '<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 2]> g '
    model = onnx.parser.parse_model(head + graph)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (want,) = (to_lane(y) for y in session.run(None, feeds))
    (got,) = onnxinterp.backend.run_model(model, feeds)
    got = to_lane(got)
    assert got.dtype == want.dtype
    assert got.tolist() == want.tolist()

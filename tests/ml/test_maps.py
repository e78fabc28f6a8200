"""Maps: as inputs and outputs of models, and CastMap of strings, which no oracle takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from onnxinterp import InputError, NodeError, OnnxModule
from onnxinterp.backend import run_node
from onnxinterp.verify import trace, verify
from tests.ml.one_operator import DOUBLE, FLOAT, INT64, STRING, answer, map_type, model


@pytest.mark.parametrize(
    ("key", "value", "x", "dtype"),
    [
        (STRING, INT64, {"a": 2**40, "x": 1}, torch.int64),
        (STRING, FLOAT, {"a": 0.1}, torch.float32),
        (STRING, DOUBLE, {"a": 0.1}, torch.float64),
    ],
)
def test_the_values_have_the_declared_type(
    key: int, value: int, x: dict[str, Any], dtype: torch.dtype
) -> None:
    module = OnnxModule(
        model("DictVectorizer", 1, map_type(key, value), string_vocabulary=["b", "a"])
    )
    got = module(x)
    assert got.dtype is dtype
    assert got.tolist() == torch.tensor([[0, x["a"]]], dtype=dtype).tolist()


def test_strings_fill_up_with_the_empty_one() -> None:
    given = map_type(INT64, STRING)
    assert answer("DictVectorizer", 1, given, {3: "c"}, int64_vocabulary=[1, 3]) == [["", "c"]]


def test_where_no_type_is_declared_the_values_tell() -> None:
    node = helper.make_node(
        "DictVectorizer", ["x"], ["y"], domain="ai.onnx.ml", string_vocabulary=["a", "b"]
    )
    for x, dtype in (({"a": 1}, "int64"), ({"a": 1.5}, "float32"), ({"a": "p"}, "object")):
        (got,) = run_node(node, [x])
        assert str(got.dtype) == dtype


@pytest.mark.parametrize(
    ("cast_to", "want"),
    [("TO_STRING", [["-7", "12"]]), ("TO_INT64", [[-7, 12]]), ("TO_FLOAT", [[-7.0, 12.0]])],
)
def test_cast_map_of_strings(cast_to: str, want: list[Any]) -> None:
    given = map_type(INT64, STRING)
    assert answer("CastMap", 1, given, {4: "12", -1: "-7"}, cast_to=cast_to) == want
    sparse = {"cast_to": cast_to, "map_form": "SPARSE", "max_map": 2}
    absent = {"TO_STRING": "0.f", "TO_INT64": 0, "TO_FLOAT": 0.0}[cast_to]
    assert answer("CastMap", 1, given, {1: "12", 5: "3"}, **sparse) == [[absent, want[0][1]]]


def test_cast_map_of_strings_that_are_no_numbers_fails() -> None:
    with pytest.raises(NodeError, match="CastMap"):
        answer("CastMap", 1, map_type(INT64, STRING), {0: "zero"})


def test_a_negative_key_is_no_position() -> None:
    with pytest.raises(NodeError, match="CastMap"):
        answer("CastMap", 1, map_type(INT64, FLOAT), {-1: 1.0}, map_form="SPARSE", max_map=3)


PIPELINE = """<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 3]>
regressor (float[n] unused) => (float[1,2] scores, y)
<float[3,2] w = {1, -1, 0.5, 2, -3, 0.25}, float[2] b = {0.5, -0.5}> {
  row = ai.onnx.ml.DictVectorizer<string_vocabulary = ["age", "height", "weight"]>(features)
  scaled = ai.onnx.ml.Scaler<offset = [40.0, 170.0, 70.0], scale = [0.1, 0.05, 0.1]>(row)
  logits = Gemm(scaled, w, b)
  scores = Softmax(logits)
  y = ai.onnx.ml.ZipMap<classlabels_strings = ["yes", "no"]>(scores)
}"""
PERSON = {"age": 31.0, "weight": 80.5, "shoes": 44.0}


def pipeline() -> onnx.ModelProto:
    """From a map of features to a map of scores; ONNX's text form knows no maps."""
    body = onnx.parser.parse_model(
        PIPELINE.replace("float[n] unused", "float[n] features").replace(", y)", ")")
    )
    del body.graph.input[:]
    body.graph.input.append(helper.make_value_info("features", map_type(STRING, FLOAT)))
    scores = helper.make_sequence_type_proto(map_type(STRING, FLOAT))
    body.graph.output.append(helper.make_value_info("y", scores))
    return body


def test_from_a_map_of_features_to_a_map_of_scores() -> None:
    module = OnnxModule(pipeline())
    scores, (zipped,) = module(PERSON)
    assert zipped == dict(zip(["yes", "no"], scores[0].tolist(), strict=True))
    assert module(features=PERSON)[1] == [zipped]


def test_weights_behind_a_map_train() -> None:
    module = OnnxModule(pipeline(), outputs=["scores"])
    module(PERSON)[0, 0].backward()
    gradient = module.weights["w"].grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_the_pipeline_agrees_with_onnxruntime() -> None:
    report = verify(pipeline(), {"features": PERSON})
    assert report.ok
    assert [o.name for o in report.outputs] == ["scores", "y[0]"]
    nodes = trace(pipeline(), {"features": PERSON})
    assert [n.op_type for n in nodes if n.ok] == [n.op_type for n in pipeline().graph.node]


def test_inputs_and_outputs_are_described() -> None:
    module = OnnxModule(pipeline())
    assert str(module.inputs[0]) == "features: map of string to float"
    assert str(module.onnx_graph.outputs[1]) == "y: sequence of map of string to float"
    assert "features: map of string to float" in repr(module)


def test_a_sequence_of_maps_passes_through() -> None:
    sequence = helper.make_sequence_type_proto(map_type(INT64, DOUBLE))
    info = helper.make_value_info("x", sequence)
    imports = [helper.make_opsetid("", 17)]
    graph = helper.make_graph([], "g", [info], [info])
    module = OnnxModule(helper.make_model(graph, opset_imports=imports))
    assert str(module.inputs[0]) == "x: sequence of map of int64 to double"
    assert module([{1: 0.5}]) == [{1: 0.5}]


@pytest.mark.parametrize("wrong", [torch.ones(1), [PERSON], {1: 1.0}])
def test_what_is_no_such_map_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match="input 'features' must be map of string to float"):
        OnnxModule(pipeline())(wrong)


def test_scores_are_rows_and_as_many_as_labels() -> None:
    given = helper.make_tensor_type_proto(FLOAT, None)
    for scores in (torch.ones(1, 2, 2), torch.ones(2, 3)):
        with pytest.raises(NodeError, match="ZipMap"):
            OnnxModule(model("ZipMap", 1, given, classlabels_int64s=[1, 2]))(scores)


def test_keys_may_be_numpy_integers() -> None:
    given = map_type(INT64, FLOAT)
    assert answer("CastMap", 1, given, {np.int64(2): 0.5, 1: 0.25}) == [[0.25, 0.5]]


def test_the_command_line_knows_maps(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.onnx"
    onnx.save(pipeline(), path)
    command = [sys.executable, "-m", "onnxinterp.cli"]
    shown = subprocess.run([*command, "inspect", path], capture_output=True, text=True, check=True)
    assert "map of string to float" in shown.stdout
    verified = subprocess.run([*command, "verify", path], capture_output=True, text=True)
    assert "features: map of string to float must be a tensor" in verified.stderr
    assert "Traceback" not in verified.stderr

"""onnxruntime's results for every element type and every value, wherever the weights are stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from onnxinterp.verify.reference import Reference, ReferenceFailedError, to_value


def model(text: str, opset: int = 21) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> {text}')


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("float", torch.tensor([1.5, -2.0])),
        ("double", torch.tensor([1.5, -2.0]).double()),
        ("float16", torch.tensor([1.5, -2.0]).half()),
        ("bfloat16", torch.tensor([1.5, -2.0]).bfloat16()),
        ("float8e4m3fn", torch.tensor([1.5, -2.0]).to(torch.float8_e4m3fn)),
        ("int64", torch.tensor([1, 2**60])),
        ("bool", torch.tensor([True, False])),
        ("uint8", torch.tensor([1, 255], dtype=torch.uint8)),
    ],
)
def test_values_are_unchanged(name: str, value: torch.Tensor) -> None:
    reference = Reference(model(f"g ({name}[2] x) => ({name}[2] y) {{ y = Identity(x) }}"))
    (answer,) = reference({"x": value}).values()
    assert answer.dtype == value.dtype
    assert torch.equal(answer.double(), value.double())


def test_four_bit_integers_are_unchanged() -> None:
    """Few of its kernels accept them; DequantizeLinear does."""
    text = "g (int4[2] x, float s) => (float[2] y) { y = DequantizeLinear(x, s) }"
    value = torch.tensor([-8, 7], dtype=torch.int8)
    answer = Reference(model(text))({"x": value, "s": torch.tensor(0.5)})["y"]
    assert answer.tolist() == [-4.0, 3.5]


def test_strings_are_unchanged() -> None:
    words = np.array(["a", "ü"], dtype=object)
    reference = Reference(model("g (string[2] x) => (string[2] y) { y = Identity(x) }"))
    assert reference({"x": words})["y"].tolist() == ["a", "ü"]


def test_any_value_can_be_an_output_and_the_model_is_not_changed() -> None:
    source = model(
        "g (bfloat16[2] x) => (float[2] z) { y = Identity(x) w = Cast<to = 1>(y) z = Neg(w) }"
    )
    before = source.SerializeToString(deterministic=True)
    answers = Reference(source, ["y", "z"], level="disabled")(
        {"x": torch.tensor([1.0, 2]).bfloat16()}
    )
    assert {k: (v.dtype, v.tolist()) for k, v in answers.items()} == {
        "y": (torch.bfloat16, [1.0, 2.0]),
        "z": (torch.float32, [-1.0, -2.0]),
    }
    assert source.SerializeToString(deterministic=True) == before


def test_sequences_are_lists() -> None:
    text = "g (float[2] x) => (seq(float[2]) s) { s = SequenceConstruct(x, x) }"
    x = torch.tensor([1.0, 2.0])
    answer = Reference(model(text))({"x": x})["s"]
    assert [torch.equal(a, x) for a in answer] == [True, True]


def test_external_data_is_found_also_for_other_outputs(tmp_path: Path) -> None:
    weight = np.arange(2000, dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("Neg", ["w"], ["v"]), helper.make_node("Add", ["x", "v"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2000])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2000])],
        [numpy_helper.from_array(weight, "w")],
    )
    path = tmp_path / "m.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save_model(
        helper.make_model(graph, opset_imports=opsets, ir_version=10),
        path,
        save_as_external_data=True,
        location="m.data",
    )
    answers = Reference(path, ["v", "y"], level="disabled")({"x": torch.zeros(2000)})
    assert torch.equal(answers["v"], -torch.from_numpy(weight))
    assert torch.equal(answers["y"], answers["v"])


def test_failures_name_onnxruntime() -> None:
    fine = Reference(model("g (float[2] x) => (float[2] y) { y = Neg(x) }"))
    with pytest.raises(ReferenceFailedError, match="cannot run"):
        fine({"x": torch.zeros(3)})
    with pytest.raises(ReferenceFailedError, match="cannot open"):
        Reference(model("g (float[2] x) => (float[2] y) { y = NoSuchOperator(x) }"))


def test_arrays_become_values() -> None:
    assert to_value(np.float32(3)).shape == ()
    assert to_value(np.array(["a"])).dtype == object
    assert to_value(np.arange(6).reshape(2, 3).T).tolist() == [[0, 3], [1, 4], [2, 5]]

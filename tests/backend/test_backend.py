"""The backend interface by itself: inputs by order and by name, single nodes, devices, types."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxinterp import UnsupportedOpError, backend


def test_run_node_takes_inputs_in_order_and_by_name() -> None:
    node = helper.make_node("Sub", ["a", "b"], ["c"])
    a, b = np.array([3.0], np.float32), np.array([1.0], np.float32)
    assert backend.run_node(node, [a, b])[0].tolist() == [2.0]
    assert backend.run_node(node, {"b": a, "a": b})[0].tolist() == [-2.0]


def test_run_node_runs_the_opset_it_is_told() -> None:
    node = helper.make_node("Softmax", ["x"], ["y"])
    x = np.zeros((2, 2, 2), np.float32)
    assert backend.run_node(node, [x], opset_version=11)[0].flat[0] == 0.25
    assert backend.run_node(node, [x], opset_version=13)[0].flat[0] == 0.5


def test_inputs_with_an_initializer_may_be_left_out() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[1] w, float[1] x) => (float[1] y)'
        "<float[1] w = {2}> { y = Mul(w, x) }"
    )
    ready = backend.prepare(model)
    one, three = np.ones(1, np.float32), np.full(1, 3, np.float32)
    assert ready.run([one])[0].tolist() == [2.0]
    assert ready.run([three, one])[0].tolist() == [3.0]


@pytest.mark.parametrize(
    "name", ["INT4", "UINT4", "FLOAT4E2M1", "BFLOAT16", "FLOAT8E5M2", "UINT16", "STRING"]
)
def test_every_type_crosses_both_ways(name: str) -> None:
    elem_type = TensorProto.DataType.Value(name)
    proto = helper.make_tensor("x", elem_type, [2], [b"1", b"2"] if name == "STRING" else [1, 2])
    infos = [helper.make_tensor_value_info(n, elem_type, [2]) for n in "xy"]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "g", *map(list, zip(infos))
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)])
    x = numpy_helper.to_array(proto)
    (y,) = backend.run_model(model, [x])
    assert y.dtype == x.dtype
    assert y.tolist() == x.tolist()


def test_devices() -> None:
    assert backend.supports_device("CPU")
    assert not backend.supports_device("ABACUS")
    with pytest.raises(ValueError, match="device must be one of CPU, CUDA, got 'ABACUS'"):
        backend.prepare(onnx.ModelProto(), "ABACUS")


def test_missing_operators_are_named() -> None:
    node = helper.make_node("Nope", ["x"], ["y"], domain="my.domain")
    with pytest.raises(UnsupportedOpError, match=r"my\.domain::Nope"):
        backend.run_node(node, [np.ones(1, np.float32)])

"""4- and 2-bit integers, float4 and float6: the carrier never holds what the type does not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from onnxinterp import NodeError, OnnxModule, backend
from onnxinterp.dtypes import CARRIER, FLOAT8E8M0
from onnxinterp.ops.narrow import round_to_type

FLOATS = ["FLOAT4E2M1", "FLOAT6E2M3", "FLOAT6E3M2"]
INTEGERS = ["INT4", "UINT4", "INT2", "UINT2"]


def known(name: str) -> int:
    number = dict(TensorProto.DataType.items()).get(name)
    if number is None:
        pytest.skip(f"onnx {onnx.__version__} has no {name}")
    return number


@pytest.mark.parametrize("name", FLOATS)
def test_floats_round_as_ml_dtypes_does(name: str) -> None:
    elem_type = known(name)
    x = np.linspace(-40, 40, 4001, dtype=np.float32)
    want = x.astype(helper.tensor_dtype_to_np_dtype(elem_type)).astype(np.float32)
    assert round_to_type(torch.from_numpy(x), elem_type).tolist() == want.tolist()


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_keep_their_low_bits(name: str) -> None:
    elem_type = known(name)
    x = np.arange(-128, 128, dtype=np.int8)
    want = x.astype(helper.tensor_dtype_to_np_dtype(elem_type)).astype(np.int8)
    assert round_to_type(torch.from_numpy(x), elem_type).to(torch.int8).tolist() == want.tolist()


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("held", ["initializer", "Constant"])
def test_quantization_saturates_at_the_type_of_a_stored_zero_point(name: str, held: str) -> None:
    zero = helper.make_tensor("zero", known(name), [], [1])
    nodes = [helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"])]
    if held == "Constant":
        nodes.insert(0, helper.make_node("Constant", [], ["zero"], value=zero))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", zero.data_type, [4])],
        [numpy_helper.from_array(np.float32(1.0), "scale")] + [zero] * (held == "initializer"),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)])
    bits = int(name[-1])
    low, high = (0, 2**bits - 1) if name[0] == "U" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    y = OnnxModule(model)(torch.tensor([-1000.0, 0.0, -1.0, 1000.0]))
    assert y.tolist() == [low, 1, 0, high]


def test_a_float8e8m0_scale_tells_no_output_type() -> None:
    node = helper.make_node("DequantizeLinear", ["x", "scale"], ["y"])
    infos = [
        helper.make_tensor_value_info("x", TensorProto.INT8, [2]),
        helper.make_tensor_value_info("scale", FLOAT8E8M0, []),
    ]
    graph = helper.make_graph([node], "g", infos, [helper.make_empty_tensor_value_info("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)])
    scale = torch.tensor(2.0).to(torch.float8_e8m0fnu)
    with pytest.raises(NodeError) as raised:
        OnnxModule(model)(x=torch.ones(2, dtype=torch.int8), scale=scale)
    assert "output_dtype must be given for a scale of" in str(raised.value.__cause__)


@pytest.mark.parametrize("name", ["FLOAT8E5M2", "UINT32", "UINT64"])
def test_a_kernel_of_ones_own_gets_values_as_they_are(name: str) -> None:
    elem_type = TensorProto.DataType.Value(name)
    node = helper.make_node("Look", ["x"], ["y"], domain="my.domain")
    infos = [helper.make_tensor_value_info(n, elem_type, [2]) for n in "xy"]
    graph = helper.make_graph([node], "g", infos[:1], infos[1:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("my.domain", 1)])
    seen = []

    def look(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.dtype)
        return x

    x = torch.ones(2).to(CARRIER[elem_type])
    assert OnnxModule(proto, kernels={"my.domain::Look": look})(x).dtype is x.dtype
    assert seen == [x.dtype]


@pytest.mark.parametrize("elem_type", [TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2])
def test_padding_with_a_stored_8_bit_float(elem_type: int) -> None:
    graph = helper.make_graph(
        [helper.make_node("Pad", ["x", "pads", "fill"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", elem_type, [2])],
        [helper.make_tensor_value_info("y", elem_type, [3])],
        [
            numpy_helper.from_array(np.array([0, 1]), "pads"),
            helper.make_tensor("fill", elem_type, [], [-2.0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    y = OnnxModule(model)(torch.ones(2).to(CARRIER[elem_type]))
    assert y.float().tolist() == [1, 1, -2]


def test_clipping_at_a_stored_unsigned_bound() -> None:
    bounds = [numpy_helper.from_array(np.uint64(n), name) for name, n in (("a", 3), ("b", 2**63))]
    graph = helper.make_graph(
        [helper.make_node("Clip", ["x", "a", "b"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT64, [3])],
        [helper.make_tensor_value_info("y", TensorProto.UINT64, [3])],
        bounds,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    y = OnnxModule(model)(torch.tensor([1, 2**62, 2**64 - 1], dtype=torch.uint64))
    assert y.tolist() == [3, 2**62, 2**63]


@pytest.mark.parametrize(("alpha", "want"), [(0.5, 2**62 + 1024), (2.0, 4096), (1.0, 2**63 + 2048)])
def test_a_scaled_product_of_large_unsigned_integers(alpha: float, want: int) -> None:
    text = f"""<ir_version: 8, opset_import: ["": 13]>
    g (uint64[1, 1] a, uint64[1, 1] b) => (uint64[1, 1] y) {{
        y = Gemm <alpha = {alpha}> (a, b) }}"""
    one, large = (torch.tensor([[n]], dtype=torch.uint64) for n in (1, 2**63 + 2048))
    assert OnnxModule(onnx.parser.parse_model(text))(large, one).tolist() == [[want]]


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("number", [0, 3, 2**31, 2**63 + 1])
@pytest.mark.parametrize("op_type", ["Equal", "Less", "GreaterOrEqual", "Max", "Add", "BitwiseXor"])
def test_a_number_of_the_graph_is_as_wide_as_the_tensor(
    op_type: str, number: int, bits: int
) -> None:
    number %= 2**bits
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 18]> one (uint{bits}[n] x) => (y)
            <uint{bits} s = {{{number}}}> {{ y = {op_type} (x, s) }}"""
    )
    x = np.array([0, 3, 2**31, number], dtype=f"uint{bits}")
    function = {
        "Equal": np.equal,
        "Less": np.less,
        "GreaterOrEqual": np.greater_equal,
        "Max": np.maximum,
        "Add": np.add,
        "BitwiseXor": np.bitwise_xor,
    }[op_type]
    (got,) = backend.run_model(model, {"x": x})
    assert got.tolist() == function(x, x.dtype.type(number)).tolist()

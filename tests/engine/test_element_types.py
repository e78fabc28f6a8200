"""A module opened in another floating type is the one that was cast to it."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from onnxinterp import InputError, OnnxModule
from onnxinterp.dtypes import CARRIER, FLOAT8E8M0

REAL = (torch.bfloat16, torch.float16, torch.float64)
HEAD = '<ir_version: 9, opset_import: ["": 18]> g '
NETWORK = (
    HEAD + "(float[n,3] x, int64[n] i) => (float[n,2] y)"
    """<float[3,2] w = {1, -2.00390625, 3, 4, 5, 6.1}, float[2] b = {0.1, 0.2},
        float[2,2] table = {1, 2, 3, 4}, int64 one = {1}, float hi = {30.03}>
    { p = MatMul(x, w) s = Add(p, b) j = Sub(one, i) e = Gather(table, j) t = Add(s, e)
      y = Clip(t, , hi) }"""
)


def network() -> onnx.ModelProto:
    return onnx.parser.parse_model(NETWORK)


def inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return torch.arange(6.0).reshape(2, 3).to(dtype) / 2, torch.tensor([0, 1])


each_type = pytest.mark.parametrize("dtype", REAL)


@each_type
def test_it_equals_a_cast(dtype: torch.dtype) -> None:
    module, cast = OnnxModule(network(), dtype=dtype), OnnxModule(network()).to(dtype)
    assert {n: w.dtype for n, w in module.weights.items()} == {
        n: w.dtype for n, w in cast.weights.items()
    }
    assert module.weights["w"].dtype is dtype
    assert module.weights["w"].requires_grad
    assert not module.training
    x = inputs(dtype)
    assert module(*x).dtype is dtype
    assert torch.equal(module(*x), cast(*x))
    assert str(module.plan) == str(cast.plan)
    with pytest.raises(InputError, match="input 'x' must be"):
        module(*inputs(torch.float32))


@each_type
def test_it_saves_the_types_of_the_file(dtype: torch.dtype, tmp_path: Path) -> None:
    OnnxModule(network(), dtype=dtype).save_onnx(tmp_path / "m.onnx")
    saved = {t.name: t for t in onnx.load(tmp_path / "m.onnx").graph.initializer}
    assert {t.data_type for t in saved.values()} == {TensorProto.FLOAT, TensorProto.INT64}
    want = torch.tensor([[1, -2.00390625], [3, 4], [5, 6.1]]).to(dtype).float()
    assert torch.equal(torch.from_numpy(numpy_helper.to_array(saved["w"]).copy()), want)


@each_type
def test_copies_keep_it(dtype: torch.dtype, tmp_path: Path) -> None:
    module, x = OnnxModule(network(), dtype=dtype), inputs(dtype)
    torch.save(module, tmp_path / "m.pt")
    loaded = torch.load(tmp_path / "m.pt", weights_only=False)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), loaded):
        assert torch.equal(twin(*x), module(*x))
    again = OnnxModule(network(), dtype=dtype)
    again.load_state_dict(module.state_dict())
    assert torch.equal(again(*x), module(*x))


@torch.no_grad()
def test_the_numbers_of_constants_are_those_of_the_file() -> None:
    """The bound of Clip has not been through bfloat16."""
    x, index = inputs(torch.float64)
    module = OnnxModule(network(), dtype=torch.bfloat16).double()
    assert float(module(x * 100, index).max()) == torch.tensor(30.03).item()


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.complex64, "bfloat16", 1])
def test_other_types_are_an_error(dtype: Any) -> None:
    with pytest.raises(ValueError, match=r"^dtype must be one of torch\.float32, .*, got "):
        OnnxModule(network(), dtype=dtype)


PACKED = [t for t in CARRIER if t in (FLOAT8E8M0, TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2)]


@each_type
@pytest.mark.parametrize("elem_type", [*PACKED, TensorProto.INT4, TensorProto.INT8])
def test_quantized_weights_stay_what_they_are(
    elem_type: int, dtype: torch.dtype, tmp_path: Path
) -> None:
    numbers = [2.0, 1.0, 4.0, 2.0]
    w = helper.make_tensor("w", elem_type, [4], numbers)
    scale = numpy_helper.from_array(torch.tensor(0.5).numpy(), "scale")
    last = [
        helper.make_node("DequantizeLinear", ["w", "scale"], ["d"]),
        helper.make_node("Mul", ["x", "d"], ["y"]),
    ]
    if elem_type == FLOAT8E8M0:
        last[0] = helper.make_node("Cast", ["w"], ["c"], to=TensorProto.FLOAT)
        last.insert(1, helper.make_node("Mul", ["c", "scale"], ["d"]))
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in "xy"]
    graph = helper.make_graph(last, "g", ends[:1], ends[1:], [w, scale])
    opset = 24 if elem_type == FLOAT8E8M0 else 21
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    module = OnnxModule(model, dtype=dtype, trainable="none")
    held = module.weights["w"]
    assert held.dtype is (dtype if isinstance(held, nn.Parameter) else CARRIER[elem_type])
    y = module(torch.ones(4, dtype=dtype))
    assert (y.dtype, y.tolist()) == (dtype, [0.5 * n for n in numbers])
    module.save_onnx(tmp_path / "m.onnx")
    saved = {t.name: t for t in onnx.load(tmp_path / "m.onnx").graph.initializer}
    assert saved["w"] == w


LOWEST, INFINITY = "-3.4028234663852886e+38", float("inf")
MASKS = {  # nodes of exporters that add the lowest number of float32 where a key is masked
    "a product": "e = Cast<to=1>(masked) b = Mul(e, low) y = Add(x, b)",
    "a selection": "b = Where(masked, low, zero) y = Add(x, b)",
    "a filled shape": f"s = Shape(x) b = ConstantOfShape<value = float[1] {{{LOWEST}}}>(s) "
    "z = Where(masked, b, x) o = Sub(z, b) h = Mul(o, zero) y = Add(z, h)",
    "padding": "p = Pad(x, pads, low) f = Neg(p) g = Mul(f, zero) h = Slice(g, start, end) "
    "y = Add(x, h)",
    "a row": "r = Mul(x, zero) b = Mul(r, row) y = Add(x, b)",
}


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("name", MASKS)
def test_a_finite_constant_stays_finite(name: str, dtype: torch.dtype) -> None:
    """The lowest float32 is -infinity in the halves; times 0 it would be NaN."""
    model = onnx.parser.parse_model(
        HEAD + "(float[3] x, bool[3] masked) => (float[3] y)"
        f"<float low = {{{LOWEST}}}, float zero = {{0}}, int64[2] pads = {{1, 1}}, "
        f"int64[1] start = {{1}}, int64[1] end = {{4}}, float[3] row = {{{LOWEST}, {LOWEST}, 1}}>"
        f"{{ {MASKS[name]} }}"
    )
    x, masked = torch.tensor([1.0, 2, 3], dtype=dtype), torch.tensor([False, True, False])
    y = OnnxModule(model, dtype=dtype)(x, masked)
    want = OnnxModule(model)(x.float(), masked)
    assert y.isfinite().all()
    assert torch.equal(y > -1e4, want > -1e4)
    assert torch.equal(y[[0, 2]].float(), want[[0, 2]])


def test_infinity_stays_infinity() -> None:
    model = onnx.parser.parse_model(
        HEAD + "(float[2] x) => (float[2] y) <float[2] low = {-inf, 0}> { y = Add(x, low) }"
    )
    for dtype in REAL:
        y = OnnxModule(model, dtype=dtype)(torch.zeros(2, dtype=dtype))
        assert y.tolist() == [-INFINITY, 0]


@pytest.mark.parametrize("trainable", ["weights", "none"])
@each_type
def test_complex_weights_stay_complex(dtype: torch.dtype, trainable: str) -> None:
    """Torch would drop their imaginary parts, with a warning."""
    w = numpy_helper.from_array(np.array([1 + 2j, 3j], np.complex64), "w")
    scale = numpy_helper.from_array(np.float32(2), "scale")
    nodes = [
        helper.make_node("Concat", ["w", "w"], ["y"], axis=0),
        helper.make_node("Mul", ["x", "scale"], ["z"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    outputs = [
        helper.make_tensor_value_info("y", TensorProto.COMPLEX64, [4]),
        helper.make_tensor_value_info("z", TensorProto.FLOAT, [1]),
    ]
    graph = helper.make_graph(nodes, "g", [x], outputs, [w, scale])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    module = OnnxModule(model, dtype=dtype, trainable=trainable)
    y, z = module(torch.ones(1, dtype=dtype))
    assert y.tolist() == [1 + 2j, 3j] * 2
    assert z.dtype is dtype

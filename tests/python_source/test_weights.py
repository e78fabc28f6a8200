"""Weights of written source: each type and shape, ties, several outputs, and the file beside it."""

from __future__ import annotations

import math
import runpy
from collections.abc import Sequence
from pathlib import Path

import onnx.helper
import onnx.parser
import pytest
import torch
from onnx import TensorProto
from safetensors.torch import load_file, save_file

from onnxinterp import OnnxModule
from tests.exports.exporting import export
from tests.exports.modules import DECODER
from tests.python_source.writing import assert_same, difference, outputs, parsed, written

N_LARGE = 12  # numbers of a constant that is too large to stand in the source
TYPES = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E5M2")
INTEGERS = ("INT8", "UINT8", "INT16", "INT32", "INT64", "BOOL")
TIED = """g (int64[n, m] x) => (float[n, m, 5] y)
    <float[5, 3] table = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6}>
    { e = Gather(table, x) t = Transpose <perm = [1, 0]> (table) y = MatMul(e, t) }"""
SEVERAL = """g (float[n, 4] x) => (float[n, 2] a, float[n, 2] b, int64[2] c, float[n, 4] x2)
    { a, b = Split <axis = 1, num_outputs = 2> (x) c = Shape(x) x2 = Identity(x) }"""


def cast(dtype: str, shape: Sequence[int]) -> OnnxModule:
    """Y = x + w as float, for a weight of a type and a shape."""
    numbers = [index % 2 for index in range(math.prod(shape))]
    info = onnx.helper.make_tensor_value_info
    made = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Cast", ["w"], ["wide"], to=TensorProto.FLOAT),
            onnx.helper.make_node("Add", ["x", "wide"], ["y"]),
        ],
        "main",
        [info("x", TensorProto.FLOAT, ["n", *shape])],
        [info("y", TensorProto.FLOAT, None)],
        [onnx.helper.make_tensor("w", getattr(TensorProto, dtype), shape, numbers)],
    )
    opsets = [onnx.helper.make_opsetid("", 19)]
    return OnnxModule(onnx.helper.make_model(made, opset_imports=opsets, ir_version=10))


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (N_LARGE,), (0,), (2, 0)], ids=str)
@pytest.mark.parametrize("dtype", [*TYPES, *INTEGERS])
def test_a_weight_of_any_type_and_shape_is_written(
    dtype: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    module = cast(dtype, shape)
    net, _ = written(module, tmp_path, torch.randn(2, *shape))
    assert_same(net, module, torch.randn(3, *shape))


@pytest.mark.parametrize("dtype", ["FLOAT16", "BFLOAT16", "DOUBLE"])
def test_a_layer_has_the_type_of_its_weights(dtype: str, tmp_path: Path) -> None:
    info, kind = onnx.helper.make_tensor_value_info, getattr(TensorProto, dtype)
    made = onnx.helper.make_graph(
        [onnx.helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)],
        "main",
        [info("x", kind, ["n", 3])],
        [info("y", kind, None)],
        [
            onnx.helper.make_tensor("w", kind, [2, 3], [1, 2, 3, 4, 5, 6]),
            onnx.helper.make_tensor("b", kind, [2], [1, 2]),
        ],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    module = OnnxModule(onnx.helper.make_model(made, opset_imports=opsets, ir_version=8))
    wanted: torch.dtype = next(iter(module.parameters())).dtype
    net, text = written(module, tmp_path, torch.ones(2, 3, dtype=wanted))
    assert f"nn.Linear(3, 2, dtype={wanted})" in text
    assert {p.dtype for p in net.parameters()} == {wanted}
    assert difference(net, module, torch.ones(4, 3, dtype=wanted)) == ""


@pytest.mark.parametrize("kind", ["uint16", "float", "bool"])
@pytest.mark.parametrize("length", [1, N_LARGE])
def test_equal_constants_are_one_buffer(kind: str, length: int, tmp_path: Path) -> None:
    """They are views of one element: a size has the stride 0."""
    made = f"ConstantOfShape <value = {kind}[1] {{1}}> (s)"
    module = parsed(f"""g (float[n] x) => (float[n] y, {kind}[k] a, {kind}[k] b)
        <int64[1] s = {{{length}}}> {{ y = Relu(x) a = {made} b = {made} }}""")
    net, text = written(module, tmp_path, torch.randn(2))
    assert difference(net, module, torch.randn(3)) == ""
    assert text.count("nn.Buffer") == 1


def test_zeros_of_both_signs_are_not_one_number(tmp_path: Path) -> None:
    module = parsed("""g (float[n] x) => (float[n] y, float[k] zeros)
        <int64[1] s = {6}>
        { y = Relu(x) a = ConstantOfShape (s) b = Neg(a) zeros = Concat <axis = 0> (a, b) }""")
    net, _ = written(module, tmp_path, torch.ones(2))
    _, zeros = outputs(net, torch.ones(2))
    assert zeros.signbit().tolist() == [False] * 6 + [True] * 6


def test_a_tied_weight_is_one_parameter(tmp_path: Path) -> None:
    module = parsed(TIED)
    tokens = torch.tensor([[0, 1, 4], [2, 3, 3]])
    net, _ = written(module, tmp_path, tokens)
    (table,) = net.parameters()
    net(tokens).sum().backward()
    module(tokens).sum().backward()
    (wanted,) = module.parameters()
    torch.testing.assert_close(table.grad, wanted.grad)
    with torch.no_grad():
        table.mul_(2)
        wanted.mul_(2)
    assert_same(net, module, tokens)


def test_all_outputs_are_returned_in_order(tmp_path: Path) -> None:
    module = OnnxModule(
        onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> {SEVERAL}')
    )
    net, _ = written(module, tmp_path, torch.randn(2, 4))
    assert_same(net, module, torch.randn(3, 4))


def test_the_file_beside_it_is_the_whole_state(tmp_path: Path) -> None:
    module, tokens = parsed(TIED), torch.tensor([[1, 2], [3, 4]])
    fresh, _ = written(module, tmp_path, tokens)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    state = load_file(tmp_path / "net.safetensors")
    fresh.load_state_dict(state, strict=True)
    assert_same(fresh, module, tokens)
    state.popitem()
    with pytest.raises(RuntimeError, match="Missing key"):
        fresh.load_state_dict(state, strict=True)


def test_a_tie_between_modules_is_in_the_file_under_each_name(tmp_path: Path) -> None:
    module = OnnxModule(export(DECODER, DECODER.exports()[-1]))
    net, _ = written(module, tmp_path, *DECODER.arguments(DECODER.sizes[0]))
    state = load_file(tmp_path / "net.safetensors")
    assert len(net.state_dict()) > len([*net.parameters(), *net.buffers()]), "nothing is tied"
    net.load_state_dict({name: state[name] for name in net.state_dict()}, strict=True)
    assert state.keys() - net.state_dict().keys() <= {name for name, _ in net.named_buffers()}


def test_weights_that_others_have_saved_are_loaded(tmp_path: Path) -> None:
    module = parsed(TIED)
    net, _ = written(module, tmp_path, torch.zeros(2, 2, dtype=torch.int64))
    save_file({name: 2 * tensor for name, tensor in net.state_dict().items()}, tmp_path / "2.st")
    again = runpy.run_path(str(tmp_path / "net.py"))["load"](tmp_path / "2.st")
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], 2 * tensor)

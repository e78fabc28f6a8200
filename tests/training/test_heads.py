"""Another number of outputs: the new model loads, saves, and is what onnxruntime computes."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.parser
import pytest
import torch
from torch import Tensor, nn

from onnxinterp import HeadError, InvalidModelError, OnnxModule, replace_head
from onnxinterp.training.heads import find_head
from onnxinterp.verify import verify
from tests.exports.case import Export
from tests.training.exporting import write

HEADS = {
    "Gemm": "y = Gemm<transB = 1>(h, W, b)",
    "Gemm without bias": "y = Gemm<transB = 1>(h, W)",
    "Gemm, inputs first": "y = Gemm(h, V, b)",
    "MatMul": "y = MatMul(h, V)",
    "MatMul, Add": "a = MatMul(h, V) y = Add(b, a)",
    "MatMul, Add of one number": "a = MatMul(h, V) y = Add(a, one)",
    "Transpose of the weight": "t = Transpose(W) a = MatMul(h, t) y = Add(a, b)",
    "Constant": "c = Constant<value = float[2, 1] {1, 2}>() y = MatMul(h, c)",
    "Softmax": "a = Gemm<transB = 1>(h, W, b) y = Softmax<axis = 1>(a)",
    "Conv, Relu, pooling, Flatten, Softmax": """
        s = Constant<value_ints = [0, -1, 1, 1]>() i = Reshape(h, s) a = Conv(i, K, b) r = Relu(a)
        p = GlobalAveragePool(r) f = Flatten(p) y = Softmax(f)""",
    "Conv, Reshape": """
        s = Constant<value_ints = [0, -1, 1, 1]>() i = Reshape(h, s) a = Conv(i, K)
        size = Constant<value = int64[2] {-1, 3}>() y = Reshape(a, size)""",
    "Conv, Squeeze": """
        s = Constant<value_ints = [0, -1, 1, 1]>() i = Reshape(h, s) a = Conv(i, K)
        axes = Constant<value = int64[2] {-1, -2}>() y = Squeeze(a, axes)""",
    "Reshape with a size made of parts": """
        a = MatMul(h, V) z = Shape<start = 0, end = 1>(x) n = Constant<value = int64[1] {3}>()
        size = Concat<axis = 0>(z, n) y = Reshape(a, size)""",
    "Transpose twice": "a = MatMul(h, V) t = Transpose(a) y = Transpose<perm = [1, 0]>(t)",
    "a weight read twice": "e = MatMul(h, V) z = Sub(e, e) s = Add(z, h3) y = MatMul(s, Q)",
    "a bias merged by the exporter": "c = Identity(b) g = Gemm(h, V, b) y = Gemm(g, Q, c)",
}


def model(body: str, outputs: str = "float[n, 3] y", opset: int = 17) -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": {opset}]> g (float[n, 4] x) => ({outputs})
        <float[2, 4] F = {{1, -2, 3, -4, 4, 3, -2, 1}}, float[3, 2] W = {{1, 2, 3, 4, 5, 6}},
         float[2, 3] V = {{1, 2, 3, 4, 5, 6}}, float[3] b = {{1, 2, 3}}, float[1] one = {{1}},
         float[3, 3] Q = {{1, 0, 0, 0, 1, 0, 0, 0, 1}}, float[3, 2, 1, 1] K = {{1, 2, 3, 4, 5, 6}},
         float[3] h3 = {{1, 2, 3}}, float[3, 2] U = {{1, 2, 3, 4, 5, 6}}> {{
            first = Gemm<transB = 1>(x, F) h = Relu(first) {body}
        }}"""
    )


def width(proto: onnx.ModelProto, name: str = "y") -> int:
    (info,) = [i for i in (*proto.graph.output, *proto.graph.value_info) if i.name == name]
    return int(info.type.tensor_type.shape.dim[-1].dim_value)


@pytest.mark.parametrize("kind", HEADS)
def test_the_new_model_loads_trains_saves_and_equals_onnxruntime(kind: str, tmp_path: Path) -> None:
    source = model(HEADS[kind])
    if kind == "Constant":
        source.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1
    before = source.SerializeToString()
    generator = torch.Generator().manual_seed(0)
    changed = replace_head(source, 7, generator=generator)
    assert source.SerializeToString() == before
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(changed, strict_mode=True))
    assert width(changed) == 7
    x = torch.randn(5, 4)
    module = OnnxModule(changed)
    assert module(x).shape == (5, 7)
    assert set(module.weights) >= {n for n in find_head(source).names if not n.endswith("Q")}
    assert verify(changed, [x]).ok
    module(x).square().sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1)
    module.save_onnx(tmp_path / "tuned.onnx")
    assert torch.equal(OnnxModule(tmp_path / "tuned.onnx")(x), module(x))
    assert verify(tmp_path / "tuned.onnx", [x], module=module).ok
    assert replace_head(changed, 7).graph.output == changed.graph.output


@pytest.mark.parametrize("kind", ["Gemm", "MatMul, Add", "Transpose of the weight"])
def test_weights_are_drawn_as_torch_draws_them(kind: str) -> None:
    module = OnnxModule(replace_head(model(HEADS[kind]), 7, generator=_seeded()))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.Linear(2, 7)
    weight = next(module.weights[n] for n in find_head(model(HEADS[kind])).names if n in "WV")
    assert torch.equal(weight if weight.shape == (7, 2) else weight.T, layer.weight)
    assert torch.equal(module.weights["b"], layer.bias)


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_what_else_reads_a_weight_keeps_it() -> None:
    tied = model("e = MatMul(h, V) g = Relu(e) t = Gemm<transB = 1>(g, V) y = MatMul(t, V)")
    module = OnnxModule(replace_head(tied, 5))
    assert module.weights["V"].shape == (2, 3)
    assert module.weights["V.head"].shape == (2, 5)


def test_every_output_made_of_the_head_is_declared_anew() -> None:
    two = model(
        "l = Gemm(h, V, b) y = Softmax(l) k = ArgMax<axis = 1, keepdims = 0>(l)",
        "float[n, 3] y, float[n, 3] l, int64[n] k",
    )
    changed = replace_head(two, 9, output="l")
    assert (width(changed, "y"), width(changed, "l")) == (9, 9)
    assert verify(changed, [torch.randn(2, 4)]).ok


def test_types_and_initializers_that_are_inputs_stay() -> None:
    old = model(HEADS["Gemm"])
    old.ir_version = 3
    old.graph.input.extend(
        onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims)
        for t in old.graph.initializer
    )
    onnx.checker.check_model(replace_head(old, 5), full_check=True)
    half = model("a = Cast<to = 10>(h) c = MatMul(a, H) y = Cast<to = 1>(c)")
    half.graph.initializer.append(
        onnx.helper.make_tensor("H", onnx.TensorProto.FLOAT16, [2, 3], range(6))
    )
    assert OnnxModule(replace_head(half, 5)).weights["H"].dtype is torch.float16


REFUSED = {
    "y = LayerNormalization(h, one)": "back from the output is LayerNormalization 'y'",
    "a = MatMul(h, x) y = Relu(a)": "through Relu is MatMul 'a', whose weight is an input",
    "a = MatMul(h, V) y = LayerNormalization(a, b)": "'y', which is not a linear",
    "a = MatMul(h, V) y = Mul(a, b)": "a number for each of the 3 outputs: 'b'",
    "a = MatMul(h, V) z = MatMul(a, U) y = MatMul(h, a)": "whose weight comes from MatMul 'a'",
    "q = Shape(V) s = Cast<to = 1>(q) y = MatMul(h, s)": "whose weight comes from Cast 's'",
    "a = MatMul(h, V) s = Shape(h) y = Reshape(a, s)": "has the size of an input",
    "a = MatMul(h, V) s = Constant<value = int64[2] {1, 9}>() y = Reshape(a, s)": r"size \[1, 9\]",
    "a = MatMul(h, V) y = Flatten<axis = 0>(a)": "mixes its outputs",
}


@pytest.mark.parametrize("body", REFUSED)
def test_where_no_head_is_found_the_error_says_what_is(body: str) -> None:
    with pytest.raises(HeadError, match=REFUSED[body]):
        replace_head(model(body), 5)


def test_stored_weights_are_found_behind_any_number_of_nodes() -> None:
    chain = " ".join(f"V{i + 1} = Identity({'V' if not i else f'V{i}'})" for i in range(2000))
    assert width(replace_head(model(f"{chain} y = MatMul(h, V2000)"), 5)) == 5


@pytest.mark.parametrize("body", ["y = Relu(y)", "z = Identity(z) y = MatMul(h, z)", "y = Gemm(h)"])
def test_no_head_is_looked_for_in_what_is_no_model(body: str) -> None:
    with pytest.raises(InvalidModelError):
        replace_head(model(body), 5)


def test_a_head_that_something_else_computes_with_is_refused() -> None:
    body = "a = MatMul(h, V) c = MatMul(a, U) y = Softmax(a)"
    with pytest.raises(HeadError, match="MatMul 'c' behind the head MatMul 'a' depends on it"):
        replace_head(model(body, "float[n, 3] y, float[n, 2] c"), 5)
    with pytest.raises(HeadError, match=r"output must be one of \['y'\], got 'z'"):
        replace_head(model(HEADS["Gemm"]), 5, output="z")
    with pytest.raises(ValueError, match="out_features must be at least 1, got 0"):
        replace_head(model(HEADS["Gemm"]), 0)


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_heads_of_exported_networks(exporter: str, tmp_path: Path) -> None:
    x = torch.randn(2, 3, 6, 6)
    how = next(e for e in EXPORTS if e.exporter == exporter)
    exported = write(Classifier(), (x,), how)
    path = tmp_path / "model.onnx"
    onnx.save(exported, path, save_as_external_data=True, size_threshold=0)
    changed = replace_head(path, 4)
    assert OnnxModule(changed).weights["head.weight"].shape == (4, 4)
    assert OnnxModule(changed)(x).shape == (2, 4)
    assert verify(changed, [x]).ok


EXPORTS = (Export("dynamo", 20), Export("torchscript", 17))

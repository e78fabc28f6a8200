"""Tensors that are settings of a model, not weights: they never train unless they are named."""

from __future__ import annotations

import math

import onnx
import onnx.parser
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name by which torch's users know it
from torch import Tensor, nn

from onnxinterp import OnnxModule, reinsert_batchnorm, reinsert_normalization
from tests.exporting import export
from tests.training.merged import dynamo
from tests.training.parameters import trained
from tests.training.test_ties import scoped

HEAD = '<ir_version: 9, opset_import: ["": 18]> g (float[1,1,n,m] x) => (float[a,b,c,d] y)'
WEIGHT = "<float[1,1,1,1] w = {3}, float[4] s = {1, 1, 2, 2}, float[1] t = {2}>"
ONES = "one = Constant<value = float[2] {1, 1}>() two = Constant<value = float[2] {2, 3}>()"
RESIZE = 'r = Resize(x, "", {}) y = Mul(r, w)'

SETTINGS = {
    "read directly": RESIZE.format("s"),
    "through Concat": ONES + "c = Concat<axis = 0>(one, two)" + RESIZE.format("c"),
    "through Slice and Gather": """
        zero = Constant<value = int64[1] {0}>() four = Constant<value = int64[1] {4}>()
        u = Slice(s, zero, four) i = Constant<value = int64[4] {0, 1, 2, 3}>() c = Gather(u, i)"""
    + RESIZE.format("c"),
    "through Unsqueeze, Reshape, Transpose and Identity": """
        zero = Constant<value = int64[1] {0}>() four = Constant<value = int64[1] {4}>()
        a = Unsqueeze(s, zero) b = Transpose(a) d = Reshape(b, four) c = Identity(d)"""
    + RESIZE.format("c"),
    "through arithmetic": "c = Mul(s, t)" + RESIZE.format("c"),
    "as an integer": """
        c = Cast<to = 7>(s) e = Expand(x, c) p = ReduceSum<keepdims = 0>(e) y = Mul(x, w)""",
    "as a shape": "c = Shape(s) p = Cast<to = 1>(c) z = Mul(x, p) y = Mul(z, w)",
    "in a comparison": """
        m = ReduceMax<keepdims = 0>(s) p = Greater(x, m) q = Cast<to = 1>(p) y = Mul(q, w)""",
    "in a branch": """
        yes = Constant<value = bool {1}>()
        r = If(yes) <
            then_branch = a () => (float[a,b,c,d] u) { k = Mul(s, t) u = Resize(x, "", k) },
            else_branch = b () => (float[a,b,c,d] v) { v = Identity(x) }>
        y = Mul(r, w)""",
    "in a loop": """
        n2 = Constant<value = int64 {2}>()
        r = Loop(n2, "", x) <body = b
            (int64 i, bool go, float[a,b,c,d] v) => (bool more, float[a,b,c,d] u) {
                more = Identity(go) k = Mul(s, t) u = Resize(v, "", k) }>
        y = Mul(r, w)""",
}


def parse(body: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"{HEAD}{WEIGHT}{{{body}}}")


@pytest.mark.parametrize("how", SETTINGS)
def test_what_flows_only_into_settings_is_folded(how: str) -> None:
    module = OnnxModule(parse(SETTINGS[how]))
    assert set(trained(module)) == {"w"}
    settings = {"s", "t"} & set(module.weights)
    for step in module.plan.steps:
        assert settings.isdisjoint(step.reads), "what is computed from settings alone is folded"
    module(torch.ones(1, 1, 2, 2)).sum().backward()
    assert module.weights["w"].grad is not None


def test_scales_made_of_constants_do_not_stop_capture() -> None:
    module, x = OnnxModule(parse(SETTINGS["through Concat"])), torch.rand(1, 1, 2, 3)
    program = torch.export.export(module, (x,))
    torch.testing.assert_close(program.module()(x), module(x))
    assert module(x).shape == (1, 1, 4, 9)


def test_a_setting_that_is_computed_with_too_is_a_weight() -> None:
    body = 'c = Mul(s, t) r = Resize(x, "", c) k = ReduceSum<keepdims = 0>(s) y = Mul(r, k)'
    assert set(trained(OnnxModule(parse(body)))) == {"s"}


def test_quantized_values_that_others_compute_with_pass_no_gradient() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (uint8[2,2] x) => (float[2,2] y)
    <float[2,2] w = {1, 2, 3, 4}, float[2,2] v = {1, 2, 3, 4}, float k = {0.1}, uint8 z = {0}> {
        q = QuantizeLinear(w, k, z) p = QLinearMatMul(x, k, z, q, k, z, k, z)
        d = DequantizeLinear(p, k, z) y = Mul(d, v)
    }"""
    assert set(trained(OnnxModule(onnx.parser.parse_model(text)))) == {"v"}


MASKS = [-math.inf, math.inf, math.nan, torch.finfo(torch.float32).min]


@pytest.mark.parametrize("fill", MASKS)
@pytest.mark.parametrize("count", [2, 2**17])
def test_a_tensor_that_is_not_finite_never_trains(fill: float, count: int) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 18]> g (float[n] x) => (float[n] y)'
        "<float[1] mask = {0}, float[1] w = {0}> { a = Mul(x, w) y = Add(a, mask) }"
    )
    values = torch.zeros(count)
    values[count // 2 :] = fill
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(values.numpy(), "mask"))
    for trainable in ("weights", "all", "none", "*", lambda *_: True):
        module = OnnxModule(model, trainable=trainable)  # type: ignore[arg-type]
        assert set(trained(module)) == {"w"}
    with pytest.raises(ValueError, match=r"finite tensor that a gradient can reach, got 'mask'"):
        OnnxModule(model, trainable="mask")


ONE = """<ir_version: 9, opset_import: ["": 18]> g (float[n] x) => (float[n] y)
<float[1] slope = {0.5}> {
    k = Constant<value = float[1,1] {2}>() j = Constant<value_floats = [2.0]>()
    zeros = Constant<value = float[2] {0, 0}>() rising = Constant<value = float[2] {0, 1}>()
    a = Mul(x, k) b = Mul(a, j) c = PRelu(b, slope) d = PRelu(c, slope) e = Add(d, zeros)
    f = Mul(e, rising) y = ReduceSum<keepdims = 0>(f)
}"""


def test_one_number_out_of_a_constant_node_trains_only_where_it_is_named() -> None:
    model = onnx.parser.parse_model(ONE)
    assert set(trained(OnnxModule(model))) == {"slope", "rising"}
    named = OnnxModule(model, trainable=["k", "zeros"])
    assert {n for n, w in named.weights.items() if w.requires_grad} == {"k", "zeros"}
    named(torch.ones(2)).backward()
    assert named.weights["k"].grad is not None


@pytest.mark.parametrize(
    ("name", "scopes", "trains"),
    [
        ("val_80", ["encoder.0", "encoder.1"], False),
        ("encoder.act.weight", ["encoder.act", "encoder.act"], True),
        ("encoder.scale", ["encoder", "encoder.0"], True),
        ("scale", ["", "encoder.1"], True),
    ],
)
def test_one_element_trains_where_the_module_in_its_name_reads_it(
    name: str, scopes: list[str], trains: bool
) -> None:
    nodes = [scoped("Mul", ["x", name], "a", scopes[0]), scoped("Mul", ["a", name], "y", scopes[1])]
    ends = [onnx.helper.make_tensor_value_info(n, 1, ["n"]) for n in ("x", "y")]
    weight = onnx.helper.make_tensor(name, 1, [1], [0.5])
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    imports = [onnx.helper.make_opsetid("", 17)]
    module = OnnxModule(onnx.helper.make_model(graph, opset_imports=imports, ir_version=8))
    assert bool(trained(module)) == trains


def test_patterns_that_match_nothing_are_errors() -> None:
    model = onnx.parser.parse_model(ONE)
    for keyword in ("trainable", "untie"):
        with pytest.raises(ValueError, match=rf"^{keyword} must .* got 'slop'; similar: 'slope'"):
            OnnxModule(model, **{keyword: ["slop*", "slop"]})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"got 'zzz'$"):
        OnnxModule(model, trainable="zzz")
    assert not [w for w in OnnxModule(model, trainable=[]).parameters() if w.requires_grad]


class Attending(nn.Module):
    """Two layers of masked attention: exporters write it with -inf, and with a scale."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Attention(), Attention()])

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x, keep)
        return x


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.joint = nn.Linear(8, 24)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        q, k, v = self.joint(x).chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=keep)


def attending(exporter: str) -> tuple[nn.Module, OnnxModule, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    network = Attending()
    x, keep = torch.randn(2, 1, 5, 8), torch.ones(5, 5).tril().bool()
    if exporter == "dynamo":
        return network, OnnxModule(dynamo(network, x, keep)), (x, keep)
    exported = export(network, (x, keep), dynamo=False, opset_version=17)
    return network, OnnxModule(exported), (x, keep)


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_masked_attention_trains_as_the_original(exporter: str) -> None:
    """Weight decay, clipped norms and averages stay finite, and the loss is the same."""
    network, module, inputs = attending(exporter)
    assert len(trained(module)) == len(list(network.parameters()))
    losses = []
    for trainee in (network.train(), module.train()):
        optimizer = torch.optim.SGD(trainee.parameters(), lr=0.1, weight_decay=0.1, momentum=0.9)
        average = torch.optim.swa_utils.AveragedModel(trainee)
        for _ in range(4):
            loss = trainee(*inputs).square().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trainee.parameters(), 0.1)
            optimizer.step()
            average.update_parameters(trainee)
        losses.append(loss.detach())
        assert all(torch.isfinite(p).all() for p in average.parameters())
    torch.testing.assert_close(losses[1], losses[0])


def test_the_previous_name_of_reinsert_batchnorm_stays() -> None:
    assert reinsert_normalization is reinsert_batchnorm

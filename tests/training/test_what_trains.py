"""Which weights train, wherever the file keeps them, and how that is changed."""

from __future__ import annotations

import copy
import pickle

import onnx
import onnx.parser
import pytest
import torch
from torch import nn

from onnxinterp import OnnxModule

HEAD = '<ir_version: 8, opset_import: ["": 17]> g (float[2,3] x) => (float[2,3] y)'
PLACES = {
    "initializer": HEAD + "<float[3] w = {1, 2, 3}> { y = Mul(x, w) }",
    "Constant node": HEAD + "{ w = Constant<value = float[3] {1, 2, 3}>() y = Mul(x, w) }",
    "function": """<ir_version: 8, opset_import: ["": 17, "own": 1]>
        g (float[2,3] x) => (float[2,3] y) { y = own.scale(x) }
        <domain: "own", opset_import: ["": 17]> scale (x) => (y) {
            w = Constant<value = float[3] {1, 2, 3}>()
            y = Mul(x, w)
        }""",
    "If": HEAD
    + """{
        yes = Constant<value = bool {1}>()
        y = If(yes) <
            then_branch = a () => (float[2,3] r) <float[3] w = {1, 2, 3}> { r = Mul(x, w) },
            else_branch = b () => (float[2,3] s) { s = Identity(x) }>
    }""",
    "Loop": HEAD
    + """<int64 two = {2}> {
        y = Loop(two, , x) <body = b (int64 i, bool go, float[2,3] v) => (bool more, float[2,3] u)
            <float[3] w = {1, 2, 3}> { more = Identity(go) u = Mul(v, w) }>
    }""",
    "Scan": HEAD
    + """{
        y = Scan <num_scan_inputs = 1, body = b (float[3] row) => (float[3] out)
            <float[3] w = {1, 2, 3}> { out = Mul(row, w) }> (x)
    }""",
    "behind Q and DQ": HEAD
    + """<float[3] w = {1, 2, 3}, float scale = {0.1}, int8 zero = {0}> {
        q = QuantizeLinear(w, scale, zero)
        d = DequantizeLinear(q, scale, zero)
        y = Mul(x, d)
    }""",
}


@pytest.mark.parametrize("value", ["float {2}", "float[1] {2}", "float[1,1] {2}"])
def test_one_element_out_of_a_constant_node_is_a_setting(value: str) -> None:
    nodes = f"s = Constant<value = {value}>() p = Mul(x, s) y = Add(p, w)"
    module = OnnxModule(onnx.parser.parse_model(HEAD + f"<float[1] w = {{3}}> {{ {nodes} }}"))
    assert [n for n, w in module.weights.items() if isinstance(w, nn.Parameter)] == ["w"]


@pytest.mark.parametrize("place", PLACES)
def test_a_weight_trains_wherever_it_sits(place: str) -> None:
    module = OnnxModule(onnx.parser.parse_model(PLACES[place]))
    (name,) = (n for n, w in module.weights.items() if w.requires_grad)
    weight, x = module.weights[name], torch.rand(2, 3) + 1
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    before = module(x)
    before.sum().backward()
    assert weight.grad is not None
    assert (weight.grad > 0).all()
    optimizer.step()
    assert (module(x) < before).all()


def network() -> onnx.ModelProto:
    """Three layers under dotted names; the weight of the last is read through a Transpose."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[n,2] x) => (float[n,2] y)
        <float[2,2] a_1_weight = {1, 2, 3, 4}, float[2] a_1_bias = {1, 2},
         float[2,2] a_10_weight = {1, 2, 3, 5}, float[2,2] head_weight = {1, 0, 0, 1}> {
            p = MatMul(x, a_1_weight)
            q = Add(p, a_1_bias)
            r = MatMul(q, a_10_weight)
            t = Transpose<perm = [1, 0]>(head_weight)
            y = MatMul(r, t)
        }"""
    )
    for tensor in model.graph.initializer:  # the parser of texts knows no dots
        tensor.name = tensor.name.replace("_", ".")
    for node in model.graph.node:
        node.input[:] = [name.replace("_", ".") for name in node.input]
    return model


def trained(module: nn.Module) -> set[str]:
    assert isinstance(module, OnnxModule)
    return {n for n, w in module.weights.items() if w.requires_grad}


def test_freezing_survives_modes_copies_and_pickling() -> None:
    module = OnnxModule(network())
    assert module.freeze("a.*") == ("a.1.weight", "a.1.bias", "a.10.weight")
    assert module.unfreeze(lambda _, weight: weight.ndim == 1) == ("a.1.bias",)
    for twin in (
        module.train(),
        module.eval(),
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
    ):
        assert trained(twin) == {"a.1.bias", "head.weight"}
    module.freeze()
    assert trained(module) == set()
    module.unfreeze(["a.1.*", "head.weight"])
    assert trained(module) == {"a.1.weight", "a.1.bias", "head.weight"}
    module(torch.randn(3, 2)).sum().backward()
    assert {n for n, w in module.weights.items() if w.grad is not None} == trained(module)


def test_a_pattern_that_names_nothing_is_an_error() -> None:
    module = OnnxModule(network())
    for change in (module.freeze, module.unfreeze):
        with pytest.raises(ValueError, match=r"a parameter, got 'a\.2\.\*'; similar: 'a\.1\.bias'"):
            change(["a.1.*", "a.2.*"])
    with pytest.raises(ValueError, match=r"must match a running statistic, got '\*'$"):
        module.freeze_statistics()


def rates(module: OnnxModule, **how: object) -> dict[str, float]:
    """Weight name -> learning rate, as an optimizer has it."""
    groups = module.parameter_groups(1.0, **how)  # type: ignore[arg-type]  # the tests vary them
    optimizer = torch.optim.SGD(groups)
    rate_of = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    return {n: rate_of[id(w)] for n, w in module.weights.items() if id(w) in rate_of}


def test_groups_by_depth() -> None:
    module = OnnxModule(network())
    assert rates(module, decay=0.5) == {
        "a.1.weight": 0.25,
        "a.1.bias": 0.25,
        "a.10.weight": 0.5,
        "head.weight": 1.0,
    }
    assert rates(module, decay=0.5, levels=2)["a.10.weight"] == 0.5
    assert rates(module, decay=0.5, levels=1) == dict.fromkeys(trained(module), 1.0)
    module.freeze("head.*")
    assert rates(module, decay=0.5) == {"a.1.weight": 0.5, "a.1.bias": 0.5, "a.10.weight": 1.0}


def test_groups_by_prefix() -> None:
    module = OnnxModule(network())
    assert rates(module, decay=0.5, by=["a.1", "a.10", "head"]) == {
        "a.1.weight": 0.25,
        "a.1.bias": 0.25,
        "a.10.weight": 0.5,
        "head.weight": 1.0,
    }
    assert rates(module, decay=0.5, by=["a.", "", "head"])["a.10.weight"] == 0.25
    with pytest.raises(ValueError, match=r"by must have a prefix of 'a\.10\.weight', got"):
        module.parameter_groups(1.0, by=["a.1", "head"])


def test_vectors_may_go_without_weight_decay() -> None:
    module = OnnxModule(network())
    groups = module.parameter_groups(1.0, weight_decay=0.1)
    assert [(g["weight_decay"], len(g["params"])) for g in groups] == [
        (0.1, 1),
        (0.0, 1),
        (0.1, 1),
        (0.1, 1),
    ]
    torch.optim.AdamW(groups).step()

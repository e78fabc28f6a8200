"""Where a weight stands in the file, and what of the file changes with it."""

from __future__ import annotations

import pickle
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn.utils import parametrize

from onnxinterp import OnnxModule, SaveError
from tests.saving.models import (
    AFFINE,
    HEADER,
    LARGE,
    changed,
    mean_square_error,
    parse,
    raw,
    run,
    saved,
    sum_of,
    tune,
)

FUNCTIONS = """<ir_version: 8, opset_import: ["": 17, "mine": 1]>
g (float[n,3] x) => (float[n,3] y) <float[3] w = {1, 1, 1}> {
  a = mine.Scaled<by = 2.0>(x, w)
  y = mine.Scaled<by = 2.0>(a, w)
}
<domain: "mine", opset_import: ["": 17]>
Scaled <by: float = 3.0> (x, w) => (y) {
  factor = Constant<value_float: float = @by>()
  offset = Constant<value = float[3] {10, 20, 30}>()
  t = Mul(x, factor)
  u = Add(t, offset)
  y = Add(u, w)
}"""
CONSTANTS = f"""{HEADER}
g (float[2] x) => (float[2] y) {{
  a = Constant<value = float[2] {{1, 2}}>()
  b = Constant<value_floats = [3.0, 4.0]>()
  c = Constant<value_float = 5.0>()
  d = Constant<value_ints = [0, 0]>()
  e = Constant<value_int = 0>()
  t = Add(x, a)
  u = Mul(t, b)
  v = Add(u, c)
  p = Cast<to = 1>(d)
  q = Cast<to = 1>(e)
  w = Add(v, p)
  y = Add(w, q)
}}"""
BRANCHES = f"""{HEADER}
g (bool c, float[2] x) => (float[2] y) <float[2] w = {{1, 2}}> {{
  t = Add(x, w)
  y = If(c) <
    then_branch = yes () => (float[2] p) <float[2] w = {{3, 4}}> {{ p = Mul(t, w) }},
    else_branch = no () => (float[2] q) {{
      k = Constant<value = float[2] {{5, 6}}>()
      q = Mul(t, k)
    }}
  >
}}"""


def test_only_changed_weights_differ(tmp_path: Path) -> None:
    model = sum_of(*(raw(n, LARGE, seed=i) for i, n in enumerate("abc")))
    module = OnnxModule(model)
    with torch.no_grad():
        module.weights["b"].zero_()
    saved(module, tmp_path / "m.onnx")
    assert changed(model, tmp_path / "m.onnx") == ["/graph/initializer:b"]


def test_constant_nodes_of_every_spelling(tmp_path: Path) -> None:
    model, path = parse(CONSTANTS), tmp_path / "m.onnx"
    module = OnnxModule(model, trainable="all")
    assert saved(module, path) == model.SerializeToString()
    tune(module)
    with torch.no_grad():
        module.weights["d"].copy_(torch.tensor([-1, 2**40]))
        module.weights["e"].fill_(300)
    module.refresh()
    saved(module, path)
    nodes = onnx.load(path).graph.node
    assert changed(model, path) == [
        "/graph/node/attribute/t:",
        "/graph/node/attribute/floats",
        "/graph/node/attribute/f",
        "/graph/node/attribute/ints",
        "/graph/node/attribute/i",
    ]
    assert list(nodes[1].attribute[0].floats) == module.weights["b"].tolist()
    assert list(nodes[3].attribute[0].ints) == [-1, 2**40]
    x = torch.randn(2)
    assert mean_square_error(module(x), run(path, x)) < 1e-10


def test_a_number_that_its_writer_left_out_as_zero_gets_a_field(tmp_path: Path) -> None:
    model = parse(CONSTANTS)
    model.graph.node[2].attribute[0].ClearField("f")
    module = OnnxModule(model, trainable="all")
    assert saved(module, tmp_path / "m.onnx") == model.SerializeToString()
    with torch.no_grad():
        module.weights["c"].fill_(7)
    saved(module, tmp_path / "m.onnx")
    assert onnx.load(tmp_path / "m.onnx").graph.node[2].attribute[0].f == 7


def test_weights_of_branches_are_found_under_their_own_names(tmp_path: Path) -> None:
    model, path = parse(BRANCHES), tmp_path / "m.onnx"
    module = OnnxModule(model)
    assert set(module.weights) == {"w", "w.1", "k"}
    tune(module)
    saved(module, path)
    assert len(changed(model, path)) == 3
    x = torch.randn(2)
    for choice in (True, False):
        c = torch.tensor(choice)
        assert mean_square_error(module(c, x), run(path, c, x)) < 1e-10


def test_weights_of_functions(tmp_path: Path) -> None:
    model, path = parse(FUNCTIONS), tmp_path / "m.onnx"
    module = OnnxModule(model)
    assert saved(module, path) == model.SerializeToString()
    tune(module)
    saved(module, path)
    assert changed(model, path) == [
        "/graph/initializer:w",
        "/functions/node/attribute/t:",
    ]
    x = torch.randn(2, 3)
    assert mean_square_error(module(x), run(path, x)) < 1e-10


def _scaled(x: torch.Tensor, *, by: torch.Tensor) -> torch.Tensor:
    return x * by


@pytest.mark.parametrize("count", [3, LARGE])
def test_a_tensor_attribute_that_is_a_weight(count: int, tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [count]) for n in "xy")
    node = helper.make_node("Scaled", ["x"], ["y"], domain="mine", by=raw("", count))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    model = helper.make_model(helper.make_graph([node], "g", [x], [y]), opset_imports=opsets)
    module = OnnxModule(model, kernels={"mine::Scaled": _scaled})
    assert saved(module, tmp_path / "m.onnx") == model.SerializeToString()
    tune(module)
    for again in (module, pickle.loads(pickle.dumps(module))):
        again.save_onnx(tmp_path / "m.onnx", like=None if again is module else model)
        (attribute,) = onnx.load(tmp_path / "m.onnx").graph.node[0].attribute
        (name,) = module.weights
        want = module.weights[name].detach()
        assert torch.equal(torch.tensor(numpy_helper.to_array(attribute.t)), want)


@pytest.mark.parametrize("count", [3, LARGE])
def test_the_floats_of_an_attribute_that_are_a_weight(count: int, tmp_path: Path) -> None:
    x, y = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, n_])
        for n, n_ in (("x", count), ("y", 1))
    )
    node = helper.make_node(
        "LinearRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        coefficients=[0.5] * count,
        intercepts=[1.0],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    model = helper.make_model(helper.make_graph([node], "g", [x], [y]), opset_imports=opsets)
    module = OnnxModule(model)
    assert saved(module, tmp_path / "m.onnx") == model.SerializeToString()
    tune(module)
    want = module(torch.ones(2, count))
    for again in (module, pickle.loads(pickle.dumps(module))):
        again.save_onnx(tmp_path / "m.onnx", like=None if again is module else model)
        tuned = onnx.load(tmp_path / "m.onnx")
        assert torch.equal(OnnxModule(tuned)(torch.ones(2, count)), want)
        assert len(tuned.graph.node[0].attribute[0].floats) == count
        assert not torch.equal(OnnxModule(model)(torch.ones(2, count)), want)


def test_a_number_handed_to_a_function_cannot_change(tmp_path: Path) -> None:
    module = OnnxModule(parse(FUNCTIONS), trainable="all")
    tune(module)
    with pytest.raises(SaveError, match=r"'factor.*' was changed, but is not in the file"):
        module.save_onnx(tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_two_weights_of_one_tensor_of_a_function_must_agree(tmp_path: Path) -> None:
    text = FUNCTIONS.replace("offset = Constant", "y2 = Constant").replace("t, offset", "t, y2")
    model = parse(text.replace("=> (y) {\n  f", "=> (y, y2) {\n  f"))
    for node, name in zip(model.graph.node, ("b", "c"), strict=True):
        node.output.append(name)
    module = OnnxModule(model)
    assert {"b", "c"} <= set(module.weights)
    assert saved(module, tmp_path / "m.onnx") == model.SerializeToString()
    tune(module)
    with pytest.raises(SaveError, match="'b' and 'c' must be equal"):
        module.save_onnx(tmp_path / "m.onnx")
    with torch.no_grad():
        module.weights["c"].copy_(module.weights["b"])
    saved(module, tmp_path / "m.onnx")
    assert torch.equal(OnnxModule(tmp_path / "m.onnx").weights["c"], module.weights["c"])


def test_tied_weights_stay_one(tmp_path: Path) -> None:
    model = parse(f"""{HEADER} g (float[2,2] x) => (float[2,2] y)
        <float[2,2] w = {{1, 2, 3, 4}}> {{ a = MatMul(x, w) b = Relu(a) y = MatMul(b, w) }}""")
    module = OnnxModule(model)
    tune(module)
    saved(module, tmp_path / "m.onnx")
    assert changed(model, tmp_path / "m.onnx") == ["/graph/initializer:w"]


@pytest.mark.parametrize("name", ["half", "a", "training", "layer1.0.type", "a.b", "naïve", "x\0y"])
def test_escaped_names_are_written_as_onnx_has_them(name: str, tmp_path: Path) -> None:
    model = parse(AFFINE)
    model.graph.node[0].input[1] = model.graph.initializer[0].name = name
    module = OnnxModule(model)
    tune(module)
    saved(module, tmp_path / "m.onnx")
    (got,) = onnx.load(tmp_path / "m.onnx").graph.initializer
    assert got.name == name
    assert torch.equal(torch.tensor(numpy_helper.to_array(got)), module.weights[name].detach())


class Adapter(torch.nn.Module):
    """w + b a, as LoRA has it."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.a = torch.nn.Parameter(torch.randn(1, size))
        self.b = torch.nn.Parameter(torch.randn(size, 1))

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return w + self.b @ self.a


def test_a_parametrized_weight_writes_what_it_is_now(tmp_path: Path) -> None:
    model = sum_of(raw("layer.w", 40, 40))
    module = OnnxModule(model)
    before = module.weights["layer.w"].detach().clone()
    adapter = Adapter(40)
    parametrize.register_parametrization(module.weights.layer, "w", adapter)
    saved(module, tmp_path / "m.onnx")
    want = before + (adapter.b @ adapter.a).detach()
    assert torch.equal(OnnxModule(tmp_path / "m.onnx").weights["layer.w"], want)


def test_statistics_of_training_are_written(tmp_path: Path) -> None:
    text = f"""{HEADER} g (float[n,2] x) => (float[n,2] y)
        <float[2] s = {{1, 1}}, float[2] b = {{0, 0}}, float[2] mean = {{0, 0}},
         float[2] var = {{1, 1}}> {{ y = BatchNormalization(x, s, b, mean, var) }}"""
    module = OnnxModule(parse(text)).train()
    module(torch.randn(50, 2) * 3 + 5)
    module.eval()
    saved(module, tmp_path / "m.onnx")
    assert changed(parse(text), tmp_path / "m.onnx") == [
        "/graph/initializer:mean",
        "/graph/initializer:var",
    ]
    x = torch.randn(4, 2)
    assert mean_square_error(module(x), run(tmp_path / "m.onnx", x)) < 1e-10


def test_a_pruned_module_saves_the_whole_graph(tmp_path: Path) -> None:
    model = sum_of(*(raw(n, LARGE, seed=i) for i, n in enumerate("abc")))
    module = OnnxModule(model, outputs=["sum1"])
    assert set(module.weights) == {"a"}
    tune(module)
    saved(module, tmp_path / "m.onnx")
    assert changed(model, tmp_path / "m.onnx") == ["/graph/initializer:a"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(4), r"'w' must have the shape \[3\], got \[4\]"),
        (torch.zeros(3, dtype=torch.complex64), "'w' must be float, got torch.complex64"),
        (torch.zeros(3, device="meta"), "'w' is on the meta device"),
    ],
)
def test_what_does_not_fit_is_refused(value: torch.Tensor, message: str, tmp_path: Path) -> None:
    module = OnnxModule(parse(AFFINE))
    module.weights["w"] = torch.nn.Parameter(value)
    with pytest.raises(SaveError, match=message):
        module.save_onnx(tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_came_or_went_are_named(tmp_path: Path) -> None:
    module = OnnxModule(parse(AFFINE))
    module.weights["new"] = torch.zeros(1)
    with pytest.raises(SaveError, match="no place for the weights 'new'"):
        module.save_onnx(tmp_path / "m.onnx")
    del module.weights["new"], module.weights["w"]
    with pytest.raises(SaveError, match="lost the weights 'w'"):
        module.save_onnx(tmp_path / "m.onnx")


def test_a_tied_weight_that_went_is_named(tmp_path: Path) -> None:
    module = OnnxModule(parse(AFFINE.replace("y = Add(x, w)", "v = Identity(w) y = Sum(x, w, v)")))
    del module.weights["v"]
    with pytest.raises(SaveError, match="lost the weights 'v'"):
        module.save_onnx(tmp_path / "m.onnx")

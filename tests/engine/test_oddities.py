"""What is odd but legal loads, and is right: names, empty things, long things, unsorted things."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxinterp import OnnxModule
from tests.models import parse as model


def number(name: str, value: int) -> TensorProto:
    """A tensor of one float."""
    return numpy_helper.from_array(np.array([value], np.float32), name)


def named(*names: str, inputs: bool = False) -> ModelProto:
    """The sum of all values of these names: weights of 1, 2, 3, ... or inputs."""
    nodes, total = [], "zero"
    for i, name in enumerate(names):
        nodes.append(helper.make_node("Add", [total, name], [f"sum {i}"]))
        total = f"sum {i}"
    values = [
        numpy_helper.from_array(np.array([i + 1], np.float32), n) for i, n in enumerate(names)
    ]
    graph = helper.make_graph(
        nodes,
        "names",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in names if inputs],
        [helper.make_tensor_value_info(total, TensorProto.FLOAT, [1])],
        [number("zero", 0), *(() if inputs else values)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


CLASHING = (
    "a.b",
    "a_b",
    "a",
    "a_",
    "a__",
    "a.b.c",
    "a/b",
    "a b",
    "a\0b",
    "a\0",
    "a\0_",
    "a..b",
    ".",
)
ODD = (
    *("forward", "training", "weights", "half", "half_", "type", "keys", "pop", "self", "class"),
    *(
        "_parameters",
        "__class__",
        "0",
        "-1",
        "é",
        "名前",
        "\x1b[31m",
        "\n",
        "%s",
        "{0}",
        "$(x)",
        "'",
    ),
    *CLASHING,
)


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_a_weight_and_an_input_may_have_any_name(name: str) -> None:
    module = OnnxModule(named(name, "other"))
    assert module().item() == 3
    assert list(module.weights) == ["zero", name, "other"]
    assert module.weights[name].item() == 1
    module.train().half().float().eval()
    assert deepcopy(module)().item() == pickle.loads(pickle.dumps(module))().item() == 3
    module.load_state_dict(module.state_dict())
    module = OnnxModule(named(name, "other", inputs=True))
    one, two = torch.ones(1), torch.full([1], 2.0)
    assert module(one, two).item() == 3
    keyword = "self_" if name == "self" else name  # which a call of a module has itself
    assert module(**{keyword: one, "other": two}).item() == 3


def test_weights_whose_names_are_alike_stay_apart(tmp_path: Path) -> None:
    names = tuple(dict.fromkeys(ODD))
    module = OnnxModule(named(*names))
    total = len(names) * (len(names) + 1) / 2
    assert module().item() == total
    assert [module.weights[n].item() for n in names] == [i + 1 for i in range(len(names))]
    assert len({module.weights.path(n) for n in names}) == len(names)
    with torch.no_grad():
        for name in names:
            module.weights[name].mul_(2)
    module.save_onnx(tmp_path / "twice.onnx")
    assert OnnxModule(tmp_path / "twice.onnx")().item() == 2 * total


def test_a_name_may_be_a_megabyte_long_and_have_as_many_dots() -> None:
    names = ("long" * 2**18, "." * 2**20, "a." * 2**19, "a." * 2**19 + "b")
    module = OnnxModule(named(*names))
    assert module().item() == 10
    assert [module.weights[n].item() for n in names] == [1, 2, 3, 4]
    module.load_state_dict(module.double().state_dict())
    assert not any("." in module.weights.path(name) for name in names), "no levels for these"


def test_names_that_become_one_do_not_take_longer_the_more_they_are() -> None:
    names = [f"{i:014b}".translate({48: 0, 49: 95}) for i in range(10_000)]
    initializers = [
        numpy_helper.from_array(np.array([i], np.float32), n) for i, n in enumerate(names)
    ]
    node = helper.make_node("Concat", names, ["y"], axis=0)
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph([node], "g", [], outputs, initializers)
    opsets = [helper.make_opsetid("", 17)]
    start = time.process_time()
    module = OnnxModule(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    assert time.process_time() - start < 30
    assert torch.equal(module(), torch.arange(10_000.0))


# ---- empty things


def test_a_graph_without_nodes_gives_its_input() -> None:
    x = torch.randn(2)
    assert torch.equal(OnnxModule(model("g (float[2] x) => (float[2] x) { }"))(x), x)
    y = OnnxModule(model("g () => (float[2] w) <float[2] w = {1, 2}> { }"))()
    assert y.tolist() == [1, 2]


def test_tensors_of_size_zero() -> None:
    proto = model("""g (float[0, 3] x) => (float[0, 3] y, float[2] z) <float[3] w = {1, 2, 3},
      int64[2] s = {2, 0}, int64[1] i = {1}> {
      y = Add(x, w) e = ConstantOfShape<value = float[1] {1}>(s) p = MatMul(e, y)
      q = Concat<axis = 0>(p, nothing) z = ReduceSum<keepdims = 0>(q, i)
    }""")
    proto.graph.initializer.append(helper.make_tensor("nothing", TensorProto.FLOAT, [0, 3], []))
    y, z = OnnxModule(proto)(torch.empty(0, 3))
    assert y.shape == (0, 3)
    assert z.tolist() == [0, 0]


def test_statistics_of_nothing() -> None:
    """Torch warns of them where they are computed in one function; here a warning is an error."""
    ones = "{1, 1, 1}"
    text = f"""g (float[2, 3, n] x) => (y, m, z)
      <float[3] s = {ones}, float[3] b = {ones}, float[3] mean = {ones}, float[3] var = {ones}> {{
      y, m, v, mm, vv = BatchNormalization(x, s, b, mean, var)
      z = MeanVarianceNormalization<axes = [0, 2]>(x) }}"""
    proto = model(text)
    proto.ir_version, proto.opset_import[0].version = 4, 9
    y, m, z = OnnxModule(proto).train()(torch.empty(2, 3, 0))
    assert y.shape == z.shape == (2, 3, 0)
    assert m.shape == (3,)


def test_what_nobody_uses_is_no_weight_and_does_no_harm() -> None:
    text = "g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Relu(x) z = Foo(x, w) }"
    proto = model(text)
    proto.doc_string = "words " * 10**6
    proto.metadata_props.add(key="\0", value="\x1b[2J")
    proto.graph.node[0].doc_string = "\n" * 10**6
    proto.graph.value_info.add(name="nobody").type.tensor_type.elem_type = 99
    module = OnnxModule(proto)
    assert module(torch.tensor([-1.0, 1.0])).tolist() == [0, 1]
    assert not module.weights


# ---- order and order's lack


def test_nodes_may_stand_in_any_order_and_share_a_name() -> None:
    text = "g (float[2] x) => (float[2] y) { [n] y = Relu(t) [n] t = Neg(u) [n] u = Neg(x) }"
    assert OnnxModule(model(text))(torch.tensor([-1.0, 1.0])).tolist() == [0, 1]


def test_a_name_in_a_subgraph_may_mean_something_else_outside() -> None:
    text = """g (float[2] x) => (float[2] y) <bool c = {1}> {
      t = Relu(x)
      u = If(c) <then_branch = a () => (float[2] r) { t = Neg(x) r = Relu(t) },
                 else_branch = b () => (float[2] q) { q = Identity(t) }>
      y = Sub(t, u)
    }"""
    assert OnnxModule(model(text))(torch.tensor([-1.0, 2.0])).tolist() == [-1, 2]


def test_shapes_that_a_file_declares_wrongly_do_not_matter() -> None:
    text = "g (float[2] x) => (float[7, 7] y) { t = Relu(x) y = Neg(t) }"
    proto = model(text)
    proto.graph.value_info.append(helper.make_tensor_value_info("t", TensorProto.INT8, [9]))
    assert OnnxModule(proto)(torch.ones(2)).tolist() == [-1, -1]


# ---- long things


def chain(length: int) -> bytes:
    """Relu and Add in turn."""
    nodes, last = [], "x"
    for i in range(length):
        inputs = [last, "one"] if i % 2 else [last]
        nodes.append(helper.make_node("Add" if i % 2 else "Relu", inputs, [f"v{i}"]))
        last = f"v{i}"
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [1])],
        [number("one", 1)],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def identities(length: int) -> bytes:
    """Identities of a weight and of each other, each of which an Add reads as well."""
    nodes, last = [], "x"
    for i in range(length):
        nodes.append(helper.make_node("Identity", [f"w{i}"], [f"w{i + 1}"]))
        nodes.append(helper.make_node("Add", [last, f"w{i}"], [f"v{i}"]))
        last = f"v{i}"
    graph = helper.make_graph(
        nodes,
        "identities",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [1])],
        [number("w0", 1)],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def branches(length: int) -> bytes:
    """Ifs on shapes: each makes what may be a plain number."""
    text = "".join(
        f"""s{i + 1} = If(c) <
        then_branch = a () => (int64[1] r) {{ r = Identity(s{i}) }},
        else_branch = b () => (int64[1] q) {{ q = Neg(s{i}) }}> """
        for i in range(length)
    )
    proto = model(f"g (float[n] x, bool c) => (int64[1] s{length}) {{ s0 = Shape(x) {text} }}")
    return proto.SerializeToString()


@pytest.mark.parametrize("make", [chain, identities, branches])
def test_loading_takes_time_in_proportion(make: Callable[[int], bytes]) -> None:
    seconds = []
    for length in (300, 3000):
        data = make(length)
        OnnxModule(make(10))
        start = time.process_time()
        OnnxModule(data)
        seconds.append(time.process_time() - start)
    assert seconds[1] < 50 * seconds[0], seconds  # 10 in proportion, 100 if each node saw all


def test_a_long_chain_runs_and_has_gradients() -> None:
    module = OnnxModule(chain(20_000))
    x = torch.ones(1, requires_grad=True)
    y = module(x)
    y.backward()
    assert (y.item(), x.grad) == (10_001, torch.ones(1))


def test_many_values_of_one_name_in_functions_get_names_in_proportion() -> None:
    calls = " ".join(f"v{i + 1} = m.f(v{i})" for i in range(5000))
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17, "m": 1]>'
        f"g (float[1] v0) => (float[1] v5000) {{ {calls} }}"
        '<domain: "m", opset_import: ["": 17]> f (x) => (y) { t = Neg(x) y = Neg(t) }'
    )
    start = time.process_time()
    module = OnnxModule(proto)
    assert time.process_time() - start < 30
    assert module(torch.ones(1)).item() == 1


# ---- what onnxruntime writes

LAYER_NORM = """g (float[2, 3, 8] x) => (float[2, 3, 8] y)
<float two = {2}, float eps = {0.01}, float[8] s = {1, 2, 3, 4, 5, 6, 7, 8},
 float[8] b = {1, 0, 1, 0, 1, 0, 1, 0}> {
  m = ReduceMean<axes = [-1]>(x) d = Sub(x, m) p = Pow(d, two) v = ReduceMean<axes = [-1]>(p)
  e = Add(v, eps) q = Sqrt(e) n = Div(d, q) t = Mul(n, s) y = Add(t, b)
}"""
RMS_NORM = """g (float[2, 3, 8] x) => (float[2, 3, 8] y)
<float two = {2}, float eps = {0.01}, float[8] s = {1, 2, 3, 4, 5, 6, 7, 8}> {
  p = Pow(x, two) v = ReduceMean<axes = [-1]>(p)
  e = Add(v, eps) q = Sqrt(e) n = Div(x, q) y = Mul(n, s)
}"""


@pytest.mark.parametrize(
    ("text", "written"),
    [(LAYER_NORM, "LayerNormalization"), (RMS_NORM, "SimplifiedLayerNormalization")],
)
def test_what_onnxruntimes_optimizer_saves_at_an_old_opset(
    text: str, written: str, tmp_path: Path
) -> None:
    path = tmp_path / "optimized.onnx"
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    source = model(text)
    source.opset_import[0].version = 13
    session = onnxruntime.InferenceSession(
        source.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    saved = onnx.load(path)
    assert [(n.domain, n.op_type) for n in saved.graph.node] == [("", written)]
    assert {o.version for o in saved.opset_import if not o.domain} == {13}
    x = torch.randn(2, 3, 8)
    expected = torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
    torch.testing.assert_close(OnnxModule(path)(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("axis", [-1, 1])
def test_the_second_result_of_simplified_layer_normalization(axis: int) -> None:
    scale = "3, 8" if axis == 1 else "8"
    proto = model(f"""g (float[2, 3, 8] x, float[{scale}] s) => (float[2, 3, 8] y, float z) {{
      y, z = SimplifiedLayerNormalization<axis = {axis}, epsilon = 0.01, stash_type = 1>(x, s)
    }}""")
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    x, s = torch.randn(2, 3, 8), torch.randn([3, 8][axis == -1 :])
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = session.run(None, {"x": x.numpy(), "s": s.numpy()})
    for ours, theirs in zip(OnnxModule(proto)(x, s), expected, strict=True):
        torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=1e-5, atol=1e-5)

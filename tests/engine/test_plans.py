"""Plans: what they look like, when they are made, and how errors name their steps."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import re
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import pytest
import torch

from onnxinterp import NodeError, OnnxModule
from onnxinterp.runtime.plan import Plan

HEADER = '<ir_version: 8, opset_import: ["": 17]>'
SILU = f"""{HEADER} g (float[n, 3] x, float[m, 3] w) => (float[n, 3] y) <float[3] b = {{1, 2, 3}}>
{{ h = Add(x, b) s = Sigmoid(h) t = Mul(h, s) y = Add(t, w) }}"""
MODES = f"""{HEADER} g (float[n, 2] x) => (float[n, 2] y)
<float[2] scale = {{1, 1}}, float[2] bias = {{0, 0}}, float[2] mean = {{0, 0}},
 float[2] var = {{1, 1}}> {{ y = BatchNormalization(x, scale, bias, mean, var) }}"""
SHAPES = f"""{HEADER} g (float[n, 4] x) => (float[a, b] y)
<int64[1] two = {{2}}, int64[2] s = {{-1, 2}}>
{{ twice = Mul(two, two) y = Reshape(x, s) }}"""


def module(text: str) -> OnnxModule:
    return OnnxModule(onnx.parser.parse_model(text))


def test_a_plan_prints_what_runs() -> None:
    listing = str(module(SILU).plan).splitlines()
    assert listing[0] == "inputs   x, w"
    assert listing[1] == "0        h = add(x, b)  # Add, frees x"
    assert listing[2] == "1        t = silu(h)  # Sigmoid + Mul, frees h"
    assert listing[3].startswith("2        y = add(t, w)  # Add")
    assert listing[-1] == "outputs  y"


def test_the_example_of_the_architecture_page_is_true() -> None:
    page = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()
    text, graph, plan, program = re.findall(
        r"```(?:python)?\n(<ir_version.*?|>>>.*?)\n```", page, re.DOTALL
    )
    net = module(text)
    nodes = [
        f"{n.op_type} {n.inputs} {n.outputs} {n.kernel.function.__name__}"
        for n in net.onnx_graph.nodes
        if n.kernel is not None
    ]
    assert graph.splitlines()[2:] == nodes
    assert plan.splitlines()[1:] == str(net.plan).splitlines()
    assert program.splitlines()[1:] == net.program(torch.randn(2, 4)).splitlines()


def test_a_plan_prints_its_constants() -> None:
    plan = module(SHAPES).plan
    assert "constant s = [-1, 2]" in str(plan)
    assert repr(plan) == "<Plan: x -> y, 1 steps>"
    assert repr(plan.steps[0]).startswith("y = reshape(x, s")


def test_names_of_the_file_are_escaped_in_the_listing() -> None:
    model = onnx.parser.parse_model(SHAPES)
    model.graph.node[1].output[0] = model.graph.output[0].name = "y\nEVIL\x1b"
    assert "\\nEVIL\\x1b" in str(OnnxModule(model).plan)
    assert "\x1b" not in str(OnnxModule(model).plan)


def test_an_error_names_the_node_its_inputs_and_the_cause() -> None:
    with pytest.raises(NodeError, match=r"\(Add, opset 17\) failed on") as caught:
        module(SILU)(torch.ones(2, 3), torch.ones(5, 3))
    message = str(caught.value)
    assert "(t: float32[2, 3], w: float32[5, 3])" in message
    assert message.endswith(str(caught.value.__cause__))


def test_absent_inputs_are_left_out_of_an_error() -> None:
    text = f"""{HEADER} g (float[n] x, float[m] high) => (float[n] y) {{ y = Clip(x, , high) }}"""
    with pytest.raises(NodeError, match=r"failed on \(x: float32\[3\], high: float32\[2\]\): "):
        module(text)(torch.ones(3), torch.ones(2))


def test_an_error_of_a_fused_step_names_all_its_nodes() -> None:
    linear = f"""{HEADER} g (float[n, k] x, float[m, p] w) => (float[n, p] y)
    <float[3] b = {{1, 2, 3}}> {{ [product] h = MatMul(x, w) [sum] y = Add(h, b) }}"""
    net = module(linear)
    assert len(net.plan.steps) == 1
    message = (
        r"nodes 'product', 'sum' \(MatMul \+ Add, opset 17\) failed on \(x: float32\[2, 4\], w: "
    )
    with pytest.raises(NodeError, match=message):
        net(torch.ones(2, 4), torch.ones(5, 3))


def test_only_the_plan_of_the_current_mode_is_made() -> None:
    net = module(MODES)
    made = []
    make = net._plans._make

    def count(*args: object) -> object:
        made.append(args[0].training)  # type: ignore[attr-defined]  # of its mode
        return make(*args)  # type: ignore[arg-type]

    net._plans._make = count  # type: ignore[method-assign, assignment]
    net.to(torch.float64)
    assert made == [False]
    net.train()
    assert made == [False, True]
    net.load_state_dict(net.state_dict())
    assert made == [False, True, True]
    net.eval().train()
    assert made == [False, True, True, False], "the plans of both modes are kept"


def test_compiling_knows_what_functions_in_python_call() -> None:
    net = module(f"""{HEADER} g (float[n, 4] x, float[4, 3] w) => (float[n, 3] y)
    {{ y = Einsum<equation = "ab,bc->ac">(x, w) }}""")
    x, w = torch.randn(2, 4), torch.randn(4, 3)
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, w), x @ w)


def test_compiling_finds_the_plan_of_the_training_mode() -> None:
    net = module(MODES)
    compiled = torch.compile(net.train(), fullgraph=True, backend="eager")
    x = torch.randn(5, 2)
    torch.testing.assert_close(compiled(x), (x - x.mean(0)) / (x.var(0, False) + 1e-5).sqrt())


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("training", [False, True])
def test_copies_plan_for_themselves(again: object, training: bool) -> None:
    net = module(MODES).train(training)
    twin = again(net)  # type: ignore[operator]
    assert twin.training is training
    with torch.no_grad():
        twin.weights["bias"].fill_(7)
    x = torch.randn(4, 2)
    torch.testing.assert_close(twin(x), net(x) + 7)


@pytest.mark.parametrize("with_gradients", [False, True])
def test_an_initializer_that_a_call_gives_again_and_again(with_gradients: bool) -> None:
    text = f"""{HEADER} g (float[n] x, float[1] w) => (float[n] y)
    <float[1] w = {{2}}> {{ y = Mul(x, w) }}"""
    net, x, w = module(text), torch.ones(3), torch.full((1,), 3.0)
    with torch.set_grad_enabled(with_gradients):
        for _ in range(5):  # the loop, then a plan for these sizes, then a program
            assert net(x, w=w).tolist() == [3, 3, 3]
            assert net(x).tolist() == [2, 2, 2]


def test_the_class_has_forward_and_an_instance_its_signature() -> None:
    net = module(SILU)
    assert callable(OnnxModule.forward)
    assert list(inspect.signature(net.forward).parameters) == ["x", "w"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's, of its older exporter
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # checks of shapes are constants
def test_it_is_not_taken_for_a_script_module() -> None:
    net = module(MODES)
    assert not hasattr(net, "graph"), "torch takes a module with a graph for a ScriptModule"
    file = io.BytesIO()
    axes = {"x": {0: "n"}}
    torch.onnx.export(
        net, (torch.randn(3, 2),), file, dynamo=False, input_names=["x"], dynamic_axes=axes
    )
    x = torch.randn(5, 2)
    torch.testing.assert_close(OnnxModule(file.getvalue())(x), net(x))


QUANTIZED = f"""{HEADER} g (float[n, 600] x, int8[600, 600] w) => (float[a, b] y)
<float scale = {{0.5}}, int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] half = {{300}},
 int64[1] last = {{-1}}>
{{ d = DequantizeLinear(w, scale) t = Transpose<perm = [1, 0]>(d) s = Shape(x)
   r = Slice(s, zero, one) sizes = Concat<axis = 0>(r, half, last) p = MatMul(x, t)
   three = Reshape(p, sizes) y = ReduceSum<keepdims = 0>(three, last) }}"""


def test_plans_for_some_sizes_share_large_constants() -> None:
    """What a plan for all sizes has computed from weights is neither copied nor computed again."""
    proto = onnx.parser.parse_model(QUANTIZED)
    w = np.arange(360_000).reshape(600, 600) % 7 - 3
    proto.graph.initializer.append(onnx.numpy_helper.from_array(w.astype(np.int8), "w"))
    net = OnnxModule(proto)
    for rows in (2, 3):
        for _ in range(3):
            y = net(torch.ones(rows, 600))
            assert torch.equal(
                y, torch.tensor(w.T / 2).sum(0).reshape(300, 2).sum(1).expand(rows, 300)
            )
    bound = net._plans.get(training=False)
    specialized = [b.plan for b in bound.by_sizes.values() if b is not None]
    assert len(specialized) == 2
    for plan in (net.plan, *specialized):
        assert "dequantize" not in str(plan).partition("0  ")[2]
    assert len({storage for p in (net.plan, *specialized) for storage in large_storages(p)}) == 1


def large_storages(plan: Plan) -> set[int]:
    tensors = [v for v in plan.constants.values() if isinstance(v, torch.Tensor)]
    return {t.untyped_storage().data_ptr() for t in tensors if t.numel() > 1000}

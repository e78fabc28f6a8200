"""The summary says of each module what hooks and torch's FLOP counter say of the original one."""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from onnxinterp import InputError, OnnxModule
from onnxinterp.inspection.summary import Row, Summary
from tests.exports.case import Export
from tests.training.exporting import write
from tests.training.networks import ENCODER, RESNET, VIT, Task

HEADER = '<ir_version: 8, opset_import: ["": 17]>'
EXPORTS = {"dynamo": Export("dynamo", 18), "torchscript": Export("torchscript", 17)}
by_exporter = pytest.mark.parametrize("exporter", EXPORTS)
by_task = pytest.mark.parametrize("task", [RESNET, VIT, ENCODER], ids=lambda t: t.name)
HOSTILE = "<script>alert('&')</script>\x1b[31m\n"


@cache
def exported(task: Task, exporter: str) -> onnx.ModelProto:
    return write(task.original(), task.batch(0)[0], EXPORTS[exporter])


def summary(task: Task, exporter: str) -> tuple[OnnxModule, Summary]:
    module = OnnxModule(exported(task, exporter))
    return module, module.summary(*task.batch(0)[0])


def modules_of(found: Summary, network: nn.Module) -> dict[str, Row]:
    """The rows of torch modules."""
    paths = {path for path, _ in network.named_modules()}
    return {row.name: row for row in found.rows if row.name in paths}


@by_exporter
@by_task
def test_flops_are_those_of_the_original(task: Task, exporter: str) -> None:
    network = task.original().eval()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        network(*task.batch(0)[0])
    counts = {
        path.partition(".")[2]: sum(n.values()) for path, n in counter.get_flop_counts().items()
    }
    _, found = summary(task, exporter)
    assert found.flops == counter.get_total_flops() > 0
    rows = modules_of(found, network)
    assert {p: r.flops for p, r in rows.items() if r.flops} == {
        p: counts[p] for p in rows if counts.get(p)
    }
    assert sum(r.flops or 0 for r in found.rows if r.depth == 0) == found.flops


@by_exporter
@by_task
def test_shapes_are_those_of_the_original(task: Task, exporter: str) -> None:
    network, returned = task.original().eval(), {}
    for path, part in network.named_modules():
        part.register_forward_hook(lambda *call, path=path: returned.update({path: call[-1].shape}))
    network(*task.batch(0)[0])
    module, found = summary(task, exporter)
    rows = modules_of(found, network)
    assert len(rows) == len({p for n in module.onnx_graph.nodes for p in n.scopes if p})
    for path, row in rows.items():
        assert row.shapes == (tuple(returned[path]),), path


@by_exporter
@by_task
def test_parameters_are_those_of_the_original(task: Task, exporter: str) -> None:
    network = task.original()
    module, found = summary(task, exporter)
    assert found.parameters == found.trainable == sum(p.numel() for p in network.parameters())
    rows = modules_of(found, network)
    for path, row in rows.items():
        owned = network.get_submodule(path).parameters()
        assert row.parameters == row.trainable == sum(p.numel() for p in owned), path
    frozen = sum(module.weights[name].numel() for name in module.freeze("*.weight"))
    assert module.summary().trainable == found.parameters - frozen


def test_classes_are_those_of_the_original() -> None:
    network, (_, found) = RESNET.original(), summary(RESNET, "dynamo")
    for path, row in modules_of(found, network).items():
        assert row.kind == type(network.get_submodule(path)).__name__
        assert row.depth == path.count(".")


def test_where_no_class_is_noted_a_layer_has_its_operators() -> None:
    _, found = summary(VIT, "torchscript")
    kinds = {row.name: row.kind for row in found.rows}
    assert kinds["layers.0.out_proj"] == "Transpose + MatMul + Add"
    assert kinds["layers.0.mlp.1"] == "Div + Erf + Add + ..."
    assert kinds["conv_proj"] == "Conv"


def test_measuring_changes_nothing() -> None:
    module, inputs = OnnxModule(exported(RESNET, "dynamo")).train(), RESNET.batch(0)[0]
    before = {name: tensor.clone() for name, tensor in module.weights.items()}
    interpreter, plan = module.interpreter, module.plan
    found = module.summary(*inputs)
    assert module.training
    assert module.interpreter is interpreter
    assert module.plan is plan
    for name, tensor in module.weights.items():
        assert torch.equal(tensor, before[name]), name
        assert tensor.grad is None
    assert found.rows == module.eval().summary(*inputs).rows


def test_without_inputs_shapes_are_those_that_the_file_declares() -> None:
    module = OnnxModule(exported(RESNET, "dynamo"))
    declared, run = module.summary(), module.summary(*RESNET.batch(0)[0])
    assert declared.flops is None
    assert [r._replace(flops=None) for r in run.rows] == list(declared.rows)
    text = """(float[n, 3] x) => (float[n, 2] y) <float[3, 2] w = {1, 2, 3, 4, 5, 6}>
        { m = MatMul(x, w)  y = Relu(m) }"""
    module = OnnxModule(onnx.parser.parse_model(f"{HEADER} g {text}"))
    assert [row.shapes for row in module.summary().rows] == [(None,), (("n", 2),)]
    assert [row.shapes for row in module.summary(torch.ones(4, 3)).rows] == [((4, 2),)] * 2
    with pytest.raises(InputError):
        module.summary(torch.ones(4, 3), torch.ones(4, 3))


def test_subgraphs_count_for_their_node() -> None:
    text = """(float[3, 4] x, bool c) => (float[3, 4] y) <float[4, 4] w> {
      y = If(c) < then_branch = yes () => (float[3, 4] p) { p = MatMul(x, w) },
                  else_branch = no () => (float[3, 4] q) { q = Identity(x) } > }"""
    model = onnx.parser.parse_model(f"{HEADER} g {text}")
    model.graph.initializer.append(
        helper.make_tensor("w", TensorProto.FLOAT, [4, 4], torch.randn(16).tolist())
    )
    module, x = OnnxModule(model), torch.ones(3, 4)
    (row,) = module.summary(x, torch.tensor(True)).rows
    assert row == ("y", "If", 0, ((3, 4),), 16, 16, 2 * 3 * 4 * 4)
    assert module.summary(x, torch.tensor(False)).flops == 0


def test_a_loop_counts_each_time() -> None:
    text = """(float[3, 3] x, int64 n) => (float[3, 3] y) {
      y = Loop(n, , x) < body = b (int64 i, bool c, float[3, 3] s) => (bool d, float[3, 3] t)
        { d = Identity(c) t = MatMul(s, s) } > }"""
    module = OnnxModule(onnx.parser.parse_model(f"{HEADER} g {text}"))
    assert module.summary(torch.eye(3), torch.tensor(5)).flops == 5 * 2 * 3 * 3 * 3


def test_hooks_change_nothing() -> None:
    """A module that is hooked runs within calls of its layers."""
    module, inputs = OnnxModule(exported(RESNET, "dynamo")), RESNET.batch(0)[0]
    before, calls = module.summary(*inputs), []
    module.get_submodule("layer1.0").register_forward_hook(lambda *call: calls.append(call))
    assert module.summary(*inputs) == before
    assert calls


def test_fused_attention_is_counted_node_by_node() -> None:
    text = """(float[2, 4, 5, 8] q, float[2, 4, 8, 5] k, float[2, 4, 5, 8] v) =>
      (float[2, 4, 5, 8] y) { s = MatMul(q, k)  p = Softmax(s)  y = MatMul(p, v) }"""
    module = OnnxModule(onnx.parser.parse_model(f"{HEADER} g {text}"))
    q, k, v = torch.ones(2, 4, 5, 8), torch.ones(2, 4, 8, 5), torch.ones(2, 4, 5, 8)
    product = 2 * (2 * 4) * 5 * 5 * 8
    assert [row.flops for row in module.summary(q, k, v).rows] == [product, 0, product]


def test_the_table_lists_layers_by_depth() -> None:
    _, found = summary(RESNET, "dynamo")
    lines = str(found).splitlines()
    assert lines[0] == "ResNet18"
    assert re.fullmatch("layer +output +parameters +trainable +FLOPs", lines[1])
    row = next(r for r in found.rows if r.name == "layer1.0.conv1")
    line = next(line for line in lines if "layer1.0.conv1" in line)
    assert re.fullmatch(
        rf"    layer1\.0\.conv1 \(Conv2d\) +\[8, 8, 8, 8\] +576 +576 +{row.flops:,}", line
    )
    assert (
        lines[-1]
        == f"{found.parameters:,} parameters, {found.trainable:,} trainable, {found.flops:,} FLOPs"
    )


def hostile(count: int = 3, size: int = 1) -> OnnxModule:
    """A chain of nodes whose names are long, and are HTML and terminal commands."""
    names = ["x", *(f"{HOSTILE * size}{i}" for i in range(count))]
    nodes = [helper.make_node("Sin", [a], [b], name=b) for a, b in pairwise(names)]
    for node in nodes:
        node.metadata_props.add(key="pkg.torch.onnx.class_hierarchy", value="['<b>', '<i>']")
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'sin']")
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in ("x", names[-1])]
    graph = helper.make_graph(nodes, HOSTILE, ends[:1], ends[1:])
    opset = helper.make_opsetid("", 17)
    return OnnxModule(helper.make_model(graph, opset_imports=[opset], ir_version=8))


def test_html_is_escaped() -> None:
    module = hostile()
    for page in (module._repr_html_(), module.summary()._repr_html_()):
        assert "<script" not in page
        assert "<b>" not in page
        assert "&lt;script&gt;" in page
        assert "\x1b" not in page
        assert "<table>" in page
        assert "Sin" in page


def test_what_is_printed_is_short_whatever_the_names_are() -> None:
    module = hostile(30, 50_000)
    graph = module.onnx_graph
    for shown in (repr(graph), repr(graph.nodes[3]), repr(module.capture("*"))):
        assert len(shown) < 5000
        assert shown.replace("\n", "").isprintable()
    assert len(str(module.summary())) < 30_000
    assert len(module._repr_html_()) < 100_000
    many = hostile(1500).summary()
    assert len(many.rows) == 1500
    assert "... 500 more rows" in str(many)
    assert str(many).count("Sin") == 1000


@pytest.mark.parametrize("levels", [200, 50_000])
def test_a_name_with_many_dots_is_no_tower_of_modules(levels: int) -> None:
    text = "(float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Mul(x, w) }"
    model = onnx.parser.parse_model(f"{HEADER} g {text}")
    model.graph.node[0].input[1] = model.graph.initializer[0].name = "a." * levels + "w"
    module, x = OnnxModule(model), torch.ones(2)
    assert module.summary(x).parameters == 2
    assert module.capture("y")(x)["y"].tolist() == [1, 2]
    assert len(str(module.summary(x))) < 100_000


def test_nodes_and_graphs_have_short_reprs() -> None:
    text = "(float[2] x, float[2] low) => (float[2] y) { a = Sin(x)  y = Clip(a, , low) }"
    graph = OnnxModule(onnx.parser.parse_model(f"{HEADER} g {text}")).onnx_graph
    assert repr(graph.nodes[0]) == "Sin a (x) -> a"
    assert repr(graph.nodes[1]) == "Clip y (a, _, low) -> y"
    assert repr(graph) == "Graph g (x, low) -> y, 2 nodes"
    custom = 'ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 3]'
    text = (
        "(float[2] x) => (float[2] y) { y = ai.onnx.ml.Scaler<offset = [1.0], scale = [2.0]>(x) }"
    )
    graph = OnnxModule(onnx.parser.parse_model(f"<{custom}> g {text}")).onnx_graph
    assert repr(graph.nodes[0]) == "ai.onnx.ml::Scaler y (x) -> y"

"""A profile has the steps of a call, with the FLOPs, the memory and the modules they belong to."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import onnx
import pytest
import torch

from onnxinterp import InputError, OnnxModule
from onnxinterp.inspection import Annotating, Profile, ReferenceTimes
from onnxinterp.inspection.profile import By
from onnxinterp.inspection.timeline import page
from tests.exports.case import Export
from tests.training.exporting import write
from tests.training.networks import RESNET, VIT, Task

HEADER = '<ir_version: 8, opset_import: ["": 17]>'
HOSTILE = "</style></title>\"'><script>alert('&')</script><img src=x onerror=alert(1)>\x1b[31m\n"
ESCAPED = HOSTILE.replace("\x1b", "\\x1b").replace("\n", "\\n")


def parsed(text: str) -> OnnxModule:
    return OnnxModule(onnx.parser.parse_model(f"{HEADER} g {text}"))


def chain() -> OnnxModule:
    """Two products of 4 KB results, a view, and GELU."""
    text = """(float[32, 32] x) => (float[1024] y) <float[32, 32] w> {
        [first] a = MatMul(x, w)
        [second] b = MatMul(a, w)
        [sigmoid] s = Sigmoid(b)
        [mul] m = Mul(b, s)
        shape = Constant <value_ints = [-1]> ()
        [flat] y = Reshape(m, shape)
      }"""
    model = onnx.parser.parse_model(f"{HEADER} g {text}")
    weight = onnx.numpy_helper.from_array(torch.eye(32).numpy(), "w")
    model.graph.initializer.append(weight)
    return OnnxModule(model)


def conditional() -> OnnxModule:
    return parsed("""(float[8, 8] x, bool c) => (float[8, 8] y) {
      [choice] y = If(c) < then_branch = yes () => (float[8, 8] p) { [product] p = MatMul(x, x) },
                  else_branch = no () => (float[8, 8] q) { [nothing] q = Identity(x) } > }""")


def test_each_node_is_in_one_step() -> None:
    found = chain().profile(torch.ones(32, 32), runs=2)
    assert [step.nodes for step in found.steps] == [
        ("first",),
        ("second",),
        ("sigmoid", "mul"),
        ("flat",),
    ]
    assert [step.op for step in found.steps] == ["MatMul", "MatMul", "Sigmoid + Mul", "Reshape"]
    assert [step.calls for step in found.steps] == [1, 1, 1, 1]
    assert all(step.seconds > 0 for step in found.steps)
    assert sum(step.seconds for step in found.steps) <= found.seconds
    assert found.runs == 2


def test_flops_and_memory_are_those_of_a_run() -> None:
    found = chain().profile(torch.ones(32, 32))
    assert [step.flops for step in found.steps] == [2 * 32**3, 2 * 32**3, 0, 0]
    assert [step.bytes for step in found.steps] == [4096, 4096, 4096, 0]
    assert [step.alive for step in found.steps] == [4096, 8192, 8192, 4096]
    assert found.peak == 8192
    assert [step.shapes for step in found.steps] == [((32, 32),)] * 3 + [((1024,),)]


def test_what_the_caller_and_the_module_hold_is_not_memory_of_a_step() -> None:
    module = parsed("(float[4] x) => (float[4] y) { y = Identity(x) }")
    found = module.profile(torch.ones(4))
    assert [step.bytes for step in found.steps] == [0]
    assert found.peak == 0


def test_steps_of_a_subgraph_are_inside_of_their_node() -> None:
    found = conditional().profile(torch.ones(8, 8), torch.tensor(True))
    assert [(step.nodes, step.depth) for step in found.steps] == [
        (("choice",), 0),
        (("product",), 1),
    ]
    outer, inner = found.steps
    assert (outer.flops, inner.flops) == (0, 2 * 8**3)
    assert (outer.bytes, inner.bytes) == (0, 256)
    outside, inside = found.timeline
    assert outside.start <= inside.start
    assert inside.start + inside.seconds <= outside.start + outside.seconds
    assert outside.seconds > inside.seconds > 0


def test_equal_names_in_two_bodies_are_two_steps() -> None:
    module = parsed("""(float[8, 8] x, bool c) => (float[8, 8] z) {
      y = If(c) < then_branch = yes () => (float[8, 8] p) { p = MatMul(x, x) },
                  else_branch = no () => (float[8, 8] p) { p = Relu(x) } >
      d = Not(c)
      z = If(d) < then_branch = yes () => (float[8, 8] p) { p = MatMul(y, y) },
                  else_branch = no () => (float[8, 8] p) { p = Relu(y) } > }""")
    found = module.profile(torch.ones(8, 8), torch.tensor(True))
    assert [(step.op, step.flops) for step in found.steps] == [
        ("If", 0),
        ("MatMul", 2 * 8**3),
        ("Not", 0),
        ("If", 0),
        ("Relu", 0),
    ]


def test_a_loop_counts_each_time() -> None:
    module = parsed("""(float[3, 3] x, int64 n) => (float[3, 3] y) {
      yes = Constant <value = bool {1}> ()
      y = Loop(n, yes, x) < body = b (int64 i, bool c, float[3, 3] s) =>
          (bool d, float[3, 3] t) { d = Identity(c)  [step] t = MatMul(s, s) } > }""")
    found = module.profile(torch.ones(3, 3), torch.tensor(5))
    (step,) = (step for step in found.steps if step.nodes == ("step",))
    assert step.calls == 5
    assert step.flops == 5 * 2 * 27
    assert sum(bar.step == found.steps.index(step) for bar in found.timeline) == 5


@pytest.mark.parametrize("task", [RESNET, VIT], ids=lambda task: task.name)
def test_modules_have_the_flops_of_the_summary(task: Task) -> None:
    inputs = task.batch(0)[0]
    module = OnnxModule(write(task.original(), inputs, Export("torchscript", 17)))
    summary = {row.name: row.flops for row in module.summary(*inputs).rows}
    found = module.profile(*inputs, runs=1)
    rows = {row.name.partition(" (")[0]: row for row in found.rows("layer")}
    paths = {path for step in found.steps for path in step.layer}
    assert {"layers.0", "layer2.0"} & paths
    for path in paths:
        assert rows[path].flops == summary[path], path


@pytest.mark.parametrize("by", get_args(By))
def test_each_table_has_the_same_totals(by: By) -> None:
    inputs = RESNET.batch(0)[0]
    module = OnnxModule(write(RESNET.original(), inputs, Export("torchscript", 17)))
    found = module.profile(*inputs, runs=1)
    rows = [row for row in found.rows(by) if row.depth == 0]
    assert sum(row.calls for row in rows) == len(found.steps)
    assert sum(row.flops for row in rows) == sum(step.flops for step in found.steps)
    assert sum(row.bytes for row in rows) == sum(step.bytes for step in found.steps)
    total = sum(step.seconds for step in found.steps)
    assert sum(row.seconds for row in rows) == pytest.approx(total)


def test_profiling_changes_nothing() -> None:
    module, x = chain().train(), torch.ones(32, 32)
    before, interpreter = module(x), module.interpreter
    module.profile(x)
    assert module.training
    assert module.interpreter is interpreter
    assert torch.equal(module(x), before)
    assert all(weight.grad is None for weight in module.parameters())


def test_layers_of_torch_are_one_step_for_all_of_their_nodes() -> None:
    inputs = VIT.batch(0)[0]
    model = write(VIT.original(), inputs, Export("torchscript", 17))
    plain = OnnxModule(model).profile(*inputs, runs=1)
    found = OnnxModule(model, leaves="nn").profile(*inputs, runs=1)
    layers = [step for step in found.steps if step.op == "call of Linear"]
    assert layers
    assert all(len(step.outputs) == len(step.nodes) for step in layers)
    assert max(len(step.nodes) for step in layers) > 1
    assert sum(step.flops for step in found.steps) == sum(step.flops for step in plain.steps)
    values = [name for step in found.steps for name in step.outputs]
    assert len(values) == len(set(values))


def test_modules_with_hooks_are_steps_around_theirs() -> None:
    inputs = RESNET.batch(0)[0]
    module = OnnxModule(write(RESNET.original(), inputs, Export("torchscript", 17)))
    plain = module.profile(*inputs, runs=1)
    with module.get_submodule("layer1").register_forward_hook(lambda *_: None):
        found = module.profile(*inputs, runs=1)
    calls = [step for step in found.steps if step.op.startswith("call of")]
    assert ("layer1",) in [step.nodes for step in calls]
    assert not any(step.outputs or step.flops for step in calls)
    values = {name for step in plain.steps for name in step.outputs}
    assert {name for step in found.steps for name in step.outputs} == values
    flops = [{r.name: r.flops for r in p.rows("layer") if not r.depth} for p in (found, plain)]
    assert flops[0] == flops[1]
    assert flops[0]["layer1"] > 0


def test_an_accelerator_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[None] = []
    monkeypatch.setattr("onnxinterp.inspection.profiling._uses_accelerator", lambda _: True)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: waits.append(None))
    found = chain().profile(torch.ones(32, 32), runs=2)
    runs = 3 + 1 + 2 + 2  # warm up, measure, with timing and without
    assert len(waits) == runs + 2 * len(found.steps)


def test_wrong_arguments_are_refused() -> None:
    module = chain()
    with pytest.raises(ValueError, match="runs must be at least 1, got 0"):
        module.profile(torch.ones(32, 32), runs=0)
    with pytest.raises(InputError):
        module.profile()
    with pytest.raises(ValueError, match="by must be one of 'operator', 'layer', 'node'"):
        module.profile(torch.ones(32, 32)).rows("time")  # type: ignore[arg-type]


def test_times_of_onnxruntime_are_those_of_all_nodes_of_a_step() -> None:
    times = {"a": 1.0, "s": 2.0, "m": 3.0, "elsewhere": 9.0}
    found = chain().profile(torch.ones(32, 32)).beside(ReferenceTimes(times, 7.0, 5.0))
    assert [step.reference for step in found.steps] == [1.0, None, 5.0, None]
    assert {row.name: row.reference for row in found.rows("operator")} == {
        "MatMul": 1.0,
        "Sigmoid + Mul": 5.0,
        "Reshape": None,
    }
    assert "onnxruntime ms" in found.table("node")
    assert "5,000.000 ms a call, 7,000.000 ms without optimization" in str(found)


def test_node_names_are_labels_of_the_profiler_of_torch() -> None:
    module, x = chain(), torch.ones(32, 32)
    module.interpreter = Annotating()
    with torch.profiler.profile() as profiler:
        module(x)
    names = {event.key for event in profiler.key_averages()}
    assert {"first (MatMul)", "sigmoid, mul (Sigmoid + Mul)", "flat (Reshape)"} <= names


def hostile() -> Profile:
    """The name of the graph, of a node and of the module around it."""
    model = onnx.parser.parse_model(
        f"{HEADER} g (float[2, 2] x) => (float[2, 2] y) <float[2, 2] w> {{ y = MatMul(x, w) }}"
    )
    node, name = model.graph.node[0], f"{HOSTILE}.weight"
    node.name, model.graph.name, node.input[1] = HOSTILE, HOSTILE, name
    model.graph.initializer.append(onnx.numpy_helper.from_array(torch.eye(2).numpy(), name))
    return OnnxModule(model).profile(torch.ones(2, 2))


class Page(HTMLParser):
    """Collects tags, names of attributes, and the strings between tags."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.titles: list[str] = []
        self.strings: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        self.titles += [value or "" for name, value in attrs if name == "title"]

    def handle_data(self, data: str) -> None:
        self.strings.append(data)


def test_names_of_a_file_are_only_text_in_the_page(tmp_path: Path) -> None:
    found = hostile()
    assert any("script" in path for step in found.steps for path in step.layer)
    found.save_html(tmp_path / "page.html")
    content = (tmp_path / "page.html").read_text()
    reader = Page()
    reader.feed(content)
    ours = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "div", "span"}
    ours |= {"i", "input", "label", "table", "caption", "tr", "th", "td"}
    assert reader.tags == ours
    assert reader.attributes == {
        *("lang", "charset", "http-equiv", "content", "style", "class", "title"),
        *("type", "name", "id", "for", "checked"),
    }
    assert "default-src 'none'" in content
    assert "\x1b" not in content
    assert ESCAPED in reader.strings
    assert len(reader.titles) == 2  # of the module and of its node
    assert all(title.startswith(f"{ESCAPED}: ") for title in reader.titles)
    assert not re.search(r"https?:|url\(|@import", content)


def test_names_of_a_file_are_escaped_in_text_and_notebooks() -> None:
    found = hostile()
    shown = str(found)
    assert "\x1b" not in shown
    assert ESCAPED in shown
    assert "<script" not in found._repr_html_()
    assert "\n" not in repr(found)


def test_a_long_timeline_says_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxinterp.inspection.timeline.MAX_BARS", 3)
    content = page(chain().profile(torch.ones(32, 32)))
    assert "1 shorter calls are not shown" in content
    assert content.count('class="bar"') == 3

"""Activations by name are those that hooks see in the original network, on the same weights."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable
from functools import cache
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from onnxinterp import Interpreter, OnnxModule
from onnxinterp.graph.scopes import path_of
from tests.exports.case import Export
from tests.training.exporting import write
from tests.training.networks import ENCODER, RESNET, TAGGER, VIT, Task

HEADER = '<ir_version: 8, opset_import: ["": 17]>'
EXPORTS = {"dynamo": Export("dynamo", 18), "torchscript": Export("torchscript", 17)}
by_exporter = pytest.mark.parametrize("exporter", EXPORTS)


class Twice(nn.Module):
    """One ReLU that is called twice, and a module that returns two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.relu = nn.ReLU()
        self.halves = Halves()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.relu(self.first(x)) - 0.5)
        low, high = self.halves(y)
        return low * high


class Halves(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :2].exp(), x[:, 2:].sin()


TWICE = Task(
    "twice",
    lambda: nn.Sequential(Twice()),
    lambda g: (torch.randn(3, 4, generator=g),),
    lambda g: torch.rand(3, generator=g),
    0.0,
)


@cache
def exported(task: Task, exporter: str) -> onnx.ModelProto:
    return write(task.original(), task.batch(0)[0], EXPORTS[exporter])


def imported(task: Task, exporter: str = "dynamo") -> OnnxModule:
    return OnnxModule(exported(task, exporter))


def by_hooks(network: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, list[Tensor]]:
    """Path -> all tensors that the module returned, in all its calls, in order."""
    returned: dict[str, list[Tensor]] = {}

    def record(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: Any, result: Any) -> None:
            results = result if isinstance(result, tuple) else (result,)
            returned.setdefault(path, []).extend(results)

        return hook

    for path, module in network.named_modules():
        module.register_forward_hook(record(path))
    network(*inputs)
    return returned


def flat(value: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return list(value) if isinstance(value, tuple) else [value]


@by_exporter
@pytest.mark.parametrize("task", [RESNET, VIT, ENCODER], ids=lambda t: t.name)
def test_every_module_returns_what_the_original_returned(task: Task, exporter: str) -> None:
    inputs, module = task.batch(0)[0], imported(task, exporter)
    wanted = by_hooks(task.original().eval(), inputs)
    paths = {path for node in module.onnx_graph.nodes for path in node.scopes if path}
    features = module.capture(*paths)(*inputs)
    assert set(features) == paths
    leaves = {
        p for p, m in task.original().named_modules() if next(m.parameters(), None) is not None
    }
    assert paths >= leaves - {"", "layers"}, "all modules that have weights"
    for path, value in features.items():
        torch.testing.assert_close(flat(value), wanted[path], rtol=1e-4, atol=1e-5)


@by_exporter
def test_calls_and_tuples(exporter: str) -> None:
    (x,), module = TWICE.batch(0)[0], imported(TWICE, exporter)
    wanted = by_hooks(TWICE.original().eval(), (x,))
    features = module.capture("0.relu*", "0.halves")(x)
    calls = [
        value for path in features if path_of(path) == "0.relu" for value in flat(features[path])
    ]
    torch.testing.assert_close(calls, wanted["0.relu"])
    assert not torch.equal(*calls)
    assert isinstance(features["0.halves"], tuple)
    torch.testing.assert_close(list(features["0.halves"]), wanted["0.halves"])
    assert list(features) == ["0.relu", "0.relu@1", "0.halves"]


@by_exporter
def test_shape_arithmetic_is_no_output(exporter: str) -> None:
    """The LSTM's states of zeros are made of sizes of its input, which the older exporter reads."""
    inputs, module = TAGGER.batch(0)[0], imported(TAGGER, exporter)
    wanted = by_hooks(TAGGER.original().eval(), inputs)["lstm"][0]
    torch.testing.assert_close(module.capture("lstm")(*inputs)["lstm"], wanted)


def scoped(text: str, scopes: list[str]) -> onnx.ModelProto:
    """A model whose nodes have notes of the newer exporter; "" is no note."""
    model = onnx.parser.parse_model(f"{HEADER} g {text}")
    for node, scope in zip(model.graph.node, scopes, strict=True):
        if scope:
            note = str(["", *scope.split(), node.op_type])
            node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=note)
    return model


def test_calls_that_may_be_one_are_left_together() -> None:
    text = """(float[2] x, float[2] z) => (float[2] y, float[2] w) {
        y = Relu(x)  w = Relu(z) }"""
    module = OnnxModule(scoped(text, ["both", "both"]))
    features = module.capture("both")(torch.ones(2), -torch.ones(2))
    assert [value.tolist() for value in features["both"]] == [[1, 1], [0, 0]]


def test_a_mask_that_was_recorded_in_the_first_layer_is_no_output_of_it() -> None:
    text = """(float[2] x, bool[2] m) => (float[2] y)
      <float[2] w = {2, 3}, float[2] v = {4, 5}> {
        mask = Cast<to = 1>(m)  p = Mul(x, w)  a = Add(p, mask)
        q = Mul(a, v)  y = Add(q, mask) }"""
    module = OnnxModule(scoped(text, ["l.0", "l.0", "l.0", "l.1", "l.1"]))
    x, m = torch.tensor([1.0, 2.0]), torch.tensor([True, False])
    features = module.capture("l.*")(x, m)
    assert {name: value.tolist() for name, value in features.items()} == {
        "l.0": [3, 6],
        "l.1": [13, 30],
    }


@pytest.mark.parametrize("path", ["conv1", "layer1.0.conv1", "layer3.1.bn2", "fc"])
def test_without_notes_of_modules_paths_are_those_of_weights(path: str) -> None:
    inputs, model = RESNET.batch(0)[0], onnx.ModelProto()
    model.CopyFrom(exported(RESNET, "dynamo"))
    for node in model.graph.node:
        del node.metadata_props[:]
    wanted = by_hooks(RESNET.original().eval(), inputs)[path][0]
    got = OnnxModule(model).capture(path)(*inputs)[path]
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_a_node_that_an_optimizer_has_added_belongs_to_the_module_around_it() -> None:
    text = """(float[4] x) => (float[2] y) <float[4] w = {1, 2, 3, 4}> {
        p = Mul(x, w)  q, r = Split(p)  s = Mul(q, r)  y = Sin(s) }"""
    module = OnnxModule(scoped(text, ["attn", "", "attn", "act"]))
    assert module.capture("attn")(torch.ones(4))["attn"].tolist() == [3, 8]


def test_they_are_in_the_order_in_which_they_are_computed() -> None:
    module = imported(RESNET)
    names = ["layer3.0", "layer1.0.conv2", "layer1", "layer1.1", "conv1"]
    computed = ["conv1", "layer1.0.conv2", "layer1.1", "layer1", "layer3.0"]
    assert list(module.capture(*names)(*RESNET.batch(0)[0])) == computed


class Counting(Interpreter):
    def __init__(self) -> None:
        self.operators: list[str] = []

    def run_step(self, step: Any, frame: Any) -> Any:
        self.operators.append(step.op)
        return super().run_step(step, frame)


def test_only_the_nodes_that_are_needed_run() -> None:
    module = imported(RESNET)
    counting = module.interpreter = Counting()
    module.capture("layer1.0.conv1")(*RESNET.batch(0)[0])
    assert sum("Conv" in op for op in counting.operators) == 2
    assert not any("Gemm" in op for op in counting.operators)


def test_values_are_found_by_their_onnx_names() -> None:
    module = OnnxModule(
        onnx.parser.parse_model(f"""{HEADER} g (float[2] x) => (float[2] y)
        {{ a = Sin(x)  b = Exp(a)  n = Shape(b)  c = Cast<to = 1>(n)  y = Add(b, c) }}""")
    )
    x = torch.tensor([0.5, 2.0])
    features = module.capture("y", "n", "a")(x)
    assert list(features) == ["a", "n", "y"]
    torch.testing.assert_close(features["a"], x.sin())
    torch.testing.assert_close(features["n"], torch.tensor([2]))
    torch.testing.assert_close(features["y"], x.sin().exp() + 2)


def test_a_name_with_the_signs_of_a_pattern_is_itself() -> None:
    model = onnx.parser.parse_model(f"""{HEADER} g (float[2] x) => (float[2] y)
        {{ a0 = Sin(x)  y = Exp(a0) }}""")
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "a[0]"
    assert list(OnnxModule(model).capture("a[0]")(torch.ones(2))) == ["a[0]"]


def test_a_name_that_matches_nothing_lists_similar_ones() -> None:
    module = imported(RESNET)
    with pytest.raises(ValueError, match=r"got 'layer1\.conv1'; similar: 'layer\d\.1\.conv1'"):
        module.capture("layer1.conv1")
    with pytest.raises(ValueError, match=r"names must match .* got none"):
        module.capture()


def test_training_it_trains_the_module() -> None:
    module, inputs, network = imported(RESNET), RESNET.batch(0)[0], RESNET.original().eval()
    features = module.capture("layer2")
    assert {id(p) for p in features.parameters()} == {id(p) for p in module.parameters()}
    features(*inputs)["layer2"].square().mean().backward()
    by_hooks(network, inputs)["layer2"][0].square().mean().backward()
    for name, parameter in network.named_parameters():
        got = module.weights[name].grad
        if parameter.grad is None:
            assert got is None, name
        else:
            torch.testing.assert_close(got, parameter.grad, rtol=1e-3, atol=1e-6)
    before = features(*inputs)["layer2"].detach()
    torch.optim.SGD(features.parameters(), 0.5).step()
    assert not torch.allclose(features(*inputs)["layer2"], before)


def test_it_follows_the_module() -> None:
    module, inputs, network = imported(RESNET), RESNET.batch(0)[0], RESNET.original()
    features = module.capture("layer1")

    def check(inputs: tuple[Tensor, ...]) -> None:
        wanted = by_hooks(network, inputs)["layer1"][0]
        got = features(*inputs)["layer1"]
        assert got.dtype == wanted.dtype
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)

    for mode in (False, True, False):
        module.train(mode)
        network.train(mode)
        check(inputs)
    module.double()
    network.double()
    check(tuple(x.double() for x in inputs))
    module.float()
    network.float()
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.copy_(tensor * 1.5)
    module.load_state_dict(network.state_dict())
    check(inputs)
    module.train()
    network.train()
    module.freeze_statistics()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()
    check(inputs)


def test_training_mode_updates_the_statistics_that_the_part_computes() -> None:
    module, inputs, network = imported(RESNET).train(), RESNET.batch(0)[0], RESNET.original()
    module.capture("layer1")(*inputs)
    network.train()(*inputs)
    for name, after in network.named_buffers():
        if name.endswith("running_mean"):
            before = RESNET.original().get_buffer(name)
            runs = name.startswith(("bn1", "layer1"))
            torch.testing.assert_close(module.weights[name], after if runs else before)


class Doubled(nn.Module):
    """Around a module of the tree, as PEFT's adapters are."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    @property
    def weight(self) -> Tensor:
        return self.inner.get_parameter("weight")

    def forward(self, *args: Any, **keywords: Any) -> Any:
        return 2 * self.inner(*args, **keywords)


def test_what_wraps_a_module_is_called() -> None:
    module, network, inputs = imported(RESNET), RESNET.original().eval(), RESNET.batch(0)[0]
    features = module.capture("layer1.0.conv2", "layer1.0")
    for block in (module.get_submodule("layer1.0"), network.get_submodule("layer1.0")):
        block.conv2 = Doubled(block.get_submodule("conv2"))
    wanted, got = by_hooks(network, inputs), features(*inputs)
    assert len(got) == 2
    for path, value in got.items():
        torch.testing.assert_close(value, wanted[path][0], rtol=1e-4, atol=1e-5)
    last = module.get_submodule("layer4.1")
    last.conv2 = Doubled(last.get_submodule("conv2"))  # the part does not reach it
    torch.testing.assert_close(features(*inputs), got)


def test_constants_are_followed() -> None:
    module = OnnxModule(
        onnx.parser.parse_model(f"""{HEADER} g (float[4] x) => (float[n] z)
        <int64[1] end = {{2}}, int64[1] start = {{0}}>
        {{ y = Slice(x, start, end)  z = Sin(y) }}""")
    )
    features, x = module.capture("y"), torch.arange(4.0)
    assert features(x)["y"].tolist() == [0, 1]
    module.weights["end"].fill_(3)
    module.refresh()
    assert features(x)["y"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"]
)
def test_a_copy_has_a_module_of_its_own(copied: Callable[[nn.Module], Any]) -> None:
    module, inputs = imported(RESNET), RESNET.batch(0)[0]
    features = module.capture("layer1", "fc")
    other = copied(features)
    torch.testing.assert_close(other(*inputs), features(*inputs), rtol=0, atol=0)
    with torch.no_grad():
        module.weights["fc.bias"].add_(1)
    torch.testing.assert_close(other(*inputs)["fc"] + 1, features(*inputs)["fc"])
    other.model.double()
    assert other(*[x.double() for x in inputs])["fc"].dtype == torch.float64
    assert features(*inputs)["fc"].dtype == torch.float32


def test_torch_compiles_and_exports_it() -> None:
    module, inputs = imported(TWICE), TWICE.batch(0)[0]
    features = module.capture("0.relu", "0.halves")
    compiled = torch.compile(features, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*inputs), features(*inputs))
    module.double()  # new plans: compiled code must not use those of before
    double = tuple(x.double() for x in inputs)
    torch.testing.assert_close(compiled(*double), features(*double))
    program = torch.export.export(features, double).module()
    torch.testing.assert_close(program(*double), features(*double))
    torch.testing.assert_close(torch.fx.symbolic_trace(features)(*double), features(*double))


def test_it_is_freed_with_its_last_reference() -> None:
    module = imported(TWICE)
    module.capture("0.relu")
    gc.collect()
    assert not list(module._plans._parts)


def test_its_repr_is_short_whatever_the_names_are() -> None:
    module = imported(RESNET)
    assert "layer1.0.conv1" in repr(module.capture("layer1.0*"))
    assert len(repr(module.capture("*"))) < 5000

"""Weights that a model ties stay tied; those that an exporter merged train apart."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import onnx
import onnx.parser
import pytest
import torch
from torch import Tensor, nn

from onnxinterp import Limits, OnnxModule, UnsafeModelError, checkpoints
from onnxinterp.graph.build import build
from onnxinterp.graph.ties import untie_weights
from tests.training.merged import IDS, Normalized, Twins, dynamo, torchscript

by_both = pytest.mark.parametrize("write", [torchscript, dynamo])
Write = Callable[[nn.Module, Tensor], onnx.ModelProto]


@by_both
def test_equal_layers_train_apart_under_their_torch_names(write: Write) -> None:
    torch.manual_seed(0)
    network = Twins()
    model = write(network, IDS)
    module = OnnxModule(model)
    norms = {n for n, _ in network.named_parameters() if "layers" in n or "again" in n}
    assert norms <= set(module.weights)
    network(IDS).square().sum().backward()
    module(IDS).square().sum().backward()
    for name in norms:
        want = network.get_parameter(name).grad
        torch.testing.assert_close(module.weights[name].grad, want, rtol=1e-4, atol=1e-4)
    storages = {module.weights[name].data_ptr() for name in norms}
    assert len(storages) == len(norms)


def test_what_the_model_ties_stays_tied() -> None:
    torch.manual_seed(0)
    network = Twins()
    module = OnnxModule(torchscript(network, IDS))
    assert len([w for w in module.parameters() if w.shape == (10, 8)]) == 1
    network(IDS).square().sum().backward()
    module(IDS).square().sum().backward()
    want = network.embedding.weight.grad
    torch.testing.assert_close(module.weights["embedding.weight"].grad, want, rtol=1e-4, atol=1e-4)


@by_both
def test_false_keeps_what_the_file_says(write: Write) -> None:
    torch.manual_seed(0)
    module = OnnxModule(write(Twins(), IDS), untie=False)
    assert len([w for w in module.parameters() if w.shape == (8,)]) == 2


@by_both
def test_a_state_dict_of_the_original_loads(write: Write) -> None:
    torch.manual_seed(0)
    network = Twins()
    module = OnnxModule(write(network, IDS))
    torch.manual_seed(1)
    for weight in network.parameters():
        nn.init.normal_(weight)
    state = network.state_dict()
    mine = {k: v for k, v in state.items() if k in module.weights}
    loaded = module.weights.load_state_dict(mine, strict=False)
    assert all(key.startswith("val_") for key in loaded.missing_keys), "copies that were folded"
    again = OnnxModule(write(network, IDS))
    again.load_state_dict(OnnxModule(write(network, IDS)).state_dict())
    torch.testing.assert_close(again(IDS), network(IDS))


@by_both
def test_statistics_are_no_parameters(write: Write) -> None:
    """A fresh BatchNorm's variance equals its weight; exporters may keep one tensor for both."""
    torch.manual_seed(0)
    x, network = torch.randn(16, 4), Normalized()
    module = OnnxModule(write(network, x)).train()
    network.train()
    for _ in range(3):
        want, got = network(x), module(x)
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
        (network(x).square().sum() + network(x).sum()).backward()
        (module(x).square().sum() + module(x).sum()).backward()
        with torch.no_grad():
            for weights in (network.parameters(), module.parameters()):
                for weight in weights:
                    weight -= 0.1 * weight.grad
                    weight.grad = None
    parameters = list(module.parameters())
    assert len(parameters) == 4
    statistics = [w for w in module.weights.values() if not isinstance(w, nn.Parameter)]
    assert len(statistics) == 4
    means = [network.first.running_mean, network.second.running_mean]
    for mean in means:
        assert any(torch.allclose(mean, s, atol=1e-5) for s in statistics)


MERGED = """<ir_version: 8, opset_import: ["": 17]> g (float[2,3] x) => (float[2,3] y)
<float[3] w = {1, 2, 3}> { a = Mul(x, w) b = Sin(a) y = Add(b, w) }"""


@pytest.mark.parametrize("untie", ["w", ["?", "w*"], lambda name: name == "w"])
def test_names_untie_what_the_file_does_not_tell(untie: object) -> None:
    x = torch.randn(2, 3)
    tied = OnnxModule(onnx.parser.parse_model(MERGED))
    apart = OnnxModule(onnx.parser.parse_model(MERGED), untie=untie)  # type: ignore[arg-type]
    assert list(tied.weights) == ["w"]
    assert len(apart.weights) == 2
    torch.testing.assert_close(apart(x), tied(x))
    apart(x).sum().backward()
    tied(x).sum().backward()
    total = sum(w.grad for w in apart.parameters())
    torch.testing.assert_close(total, tied.weights["w"].grad)


def scoped(op: str, inputs: list[str], output: str, scope: str) -> onnx.NodeProto:
    """A node of a torch module, as the newer exporter writes it."""
    node = onnx.helper.make_node(op, inputs, [output])
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=f"['', '{scope}', 'op']")
    return node


def crowded(count: int, scope: str = "s", leaf: str = "w", size: int = 1) -> onnx.ModelProto:
    """One torch module that reads vectors of so many others, all of one name."""
    held = [f"h{i}.{leaf}" for i in range(count)]
    nodes = [scoped("Neg", [name], f"n{i}", f"h{i}") for i, name in enumerate(held)]
    nodes.append(scoped("Sum", [*held, *(f"n{i}" for i in range(count))], "y", scope))
    weights = [
        onnx.TensorProto(name=name, data_type=1, dims=[size], raw_data=bytes(4 * size))
        for name in held
    ]
    end = onnx.helper.make_tensor_value_info("y", 1, None)
    graph = onnx.helper.make_graph(nodes, "g", [], [end], weights)
    imports = [onnx.helper.make_opsetid("", 17)]
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=8)


def test_weights_that_want_one_name_are_numbered() -> None:
    names = list(OnnxModule(crowded(6)).weights)[6:]
    assert names[:4] == ["s.w", "s.w.untied", "s.w.untied.untied", "s.w.untied.untied.untied"]
    assert names[4:] == ["s.w.untied.4", "s.w.untied.5"]
    assert max(map(len, OnnxModule(crowded(500)).weights)) < 30


@pytest.mark.parametrize(("scope", "leaf"), [("s" * 10**5, "w"), ("s", "w" * 10**5)])
def test_long_names_are_not_made_again_for_each_weight(scope: str, leaf: str) -> None:
    model = build(crowded(20, scope, leaf))
    tracemalloc.start()
    ties = untie_weights(model, True).ties
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not ties
    assert peak < 10**6


def test_copies_of_a_large_tensor_are_held_to_the_limit_on_weights() -> None:
    model = crowded(50, size=1000)
    assert len(OnnxModule(model, limits=Limits(weight_bytes=200_000)).weights) == 100
    model.graph.node[-1].input.append("m")
    model.graph.node.append(scoped("Neg", ["h0.w"], "m", "k"))
    with pytest.raises(UnsafeModelError, match="too large for as many copies"):
        OnnxModule(model, limits=Limits(weight_bytes=200_000))


def test_untied_weights_of_a_mapped_file_have_memory_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(
        torchscript(Twins(), IDS),
        path,
        save_as_external_data=True,
        location="data",
        size_threshold=0,
    )
    module = OnnxModule(path)
    with torch.no_grad():
        module.weights["layers.0.weight"].zero_()
    assert module.weights["layers.1.weight"].eq(1).all()


@pytest.mark.parametrize("untie", [True, False])
def test_checkpoints_keep_them(tmp_path: Path, untie: bool) -> None:
    model, path = torchscript(Twins(), IDS), tmp_path / "m.pth"
    module = OnnxModule(model, untie=untie)
    with torch.no_grad():
        for number, weight in enumerate(module.parameters()):
            weight.add_(number)
    checkpoints.save(model, path, module=module)
    twin = checkpoints.load(path)
    assert list(twin.weights) == list(module.weights)
    torch.testing.assert_close(twin(IDS), module(IDS))

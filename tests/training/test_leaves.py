"""Modules that are one layer become that layer of torch: `leaves="nn"`, judged by the originals."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import quantize_dynamic
from torch.func import functional_call
from torch.nn import functional

from onnxinterp import OnnxModule, checkpoints
from onnxinterp.errors import NodeError, SaveError
from onnxinterp.limits import Limits
from tests.exporting import export
from tests.exports.case import Export
from tests.exports.modules import SEGMENTATION, SPEECH
from tests.training.exporting import write
from tests.training.merged import Twins
from tests.training.networks import ENCODER, RESNET, TAGGER, VIT

LAYERS = (
    nn.Linear,
    nn.Embedding,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
)


class Network(NamedTuple):
    """A network and inputs for it."""

    name: str
    make: Callable[[], nn.Module]
    inputs: tuple[Tensor, ...]


class Layers(nn.Module):
    """Layers of other kinds, one after another; the last one is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.points = nn.Conv1d(4, 6, 3, 2, padding=1, dilation=2, groups=2)
        self.points_norm = nn.BatchNorm1d(6, momentum=0.3)
        self.up = nn.ConvTranspose2d(1, 3, (3, 2), 2, padding=1, output_padding=1, bias=False)
        self.instances = nn.InstanceNorm2d(3, affine=True)
        self.volume = nn.Conv3d(1, 2, 2)  # without a bias, the newer exporter writes a wrong one
        self.volume_norm = nn.BatchNorm3d(2)
        self.grow = nn.ConvTranspose1d(2, 4, 2, 2, groups=2)
        self.rows = nn.LayerNorm((4, 8), eps=1e-3)
        self.twice = nn.Linear(8, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 4, 14] -> [batch, 4, 8]."""
        x = functional.relu(self.points_norm(self.points(x)))
        x = torch.tanh(self.instances(self.up(x[:, None])))
        x = torch.tanh(self.volume_norm(self.volume(x[:, None])))
        x = self.rows(self.grow(x.flatten(2)[:, :, :4]))
        return self.twice(torch.tanh(self.twice(x)))


def initialized(make: Callable[[], nn.Module]) -> nn.Module:
    """A network in which no two weights are equal."""
    torch.manual_seed(0)
    network = make()
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point() and tensor.ndim == 1:
                tensor.add_(0.1 * torch.rand(tensor.shape))
    return network.eval()


NETWORKS = {
    network.name: network
    for network in (
        *(Network(t.name, t.original, t.batch(0)[0]) for t in (RESNET, VIT, ENCODER, TAGGER)),
        *(Network(c.name, c.module, c.arguments(c.sizes[0])) for c in (SPEECH, SEGMENTATION)),
        Network("layers", lambda: initialized(Layers), (torch.randn(2, 4, 14),)),
    )
}
HOWS = {"dynamo": Export("dynamo", 18), "torchscript": Export("torchscript", 17)}
each_export = pytest.mark.parametrize("how", HOWS)
each_network = pytest.mark.parametrize("name", NETWORKS)


@cache
def written(name: str, how: str) -> onnx.ModelProto:
    return write(NETWORKS[name].make(), NETWORKS[name].inputs, HOWS[how])


def original(name: str) -> nn.Module:
    return NETWORKS[name].make().eval()


def imported(name: str, how: str = "torchscript") -> OnnxModule:
    return OnnxModule(written(name, how), leaves="nn")


def layers(module: nn.Module) -> dict[str, str]:
    """Path of each layer -> its class and settings."""
    found = {n: m for n, m in module.named_modules() if isinstance(m, LAYERS)}
    return {name: f"{type(m).__module__} {m!r}" for name, m in found.items()}


def results(module: nn.Module, name: str) -> tuple[Tensor, ...]:
    found = module(*NETWORKS[name].inputs)
    return tuple(found) if isinstance(found, (tuple, list)) else (found,)


def check_same(module: nn.Module, network: nn.Module, name: str, tolerance: float = 1e-5) -> None:
    got, want = results(module, name), results(network, name)
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


@each_network
@each_export
def test_layers_are_those_of_the_original(name: str, how: str) -> None:
    """GroupNorm is several nodes below opset 21."""
    module, network = imported(name, how), original(name)
    wanted = layers(network)
    if HOWS[how].opset < 21:
        wanted = {path: kind for path, kind in wanted.items() if "GroupNorm" not in kind}
    assert wanted
    assert layers(module) == wanted
    assert not layers(OnnxModule(written(name, how)))


@each_network
@each_export
def test_outputs_are_those_of_the_original(name: str, how: str) -> None:
    module = imported(name, how)
    check_same(module, original(name), name)
    without = OnnxModule(written(name, how))
    torch.testing.assert_close(results(module, name), results(without, name))


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("name", ["vit", "encoder"])
def test_default_exports_have_the_linear_layers_too(name: str, dynamo: bool) -> None:
    """They transpose the weights, and rename them."""
    network, inputs = original(name), NETWORKS[name].inputs
    module = OnnxModule(
        export(network, inputs, dynamo=dynamo, opset_version=18 if dynamo else 17), leaves="nn"
    )
    got, want = layers(module), layers(network)
    assert got.items() <= want.items()
    assert {n for n in want if "Linear" in want[n]} == {n for n in got if "Linear" in got[n]}
    check_same(module, network, name)


def test_tied_layers_have_one_parameter() -> None:
    network, ids = Twins().eval(), torch.tensor([[1, 2, 3]])
    module = OnnxModule(write(network, (ids,), HOWS["torchscript"]), leaves="nn")
    assert layers(module) == layers(network)
    assert module.get_parameter("head.weight") is module.get_parameter("embedding.weight")
    torch.testing.assert_close(module(ids), network(ids))


@each_export
def test_the_layers_hold_the_weights(how: str) -> None:
    module = imported("resnet18", how)
    names = dict(original("resnet18").named_parameters())
    assert list(dict(module.named_parameters())) == list(names)
    assert all(module.weights[n] is p for n, p in module.named_parameters())
    layer = module.get_submodule("bn1")
    assert layer.running_mean is module.weights["bn1.running_mean"]


@each_export
@pytest.mark.parametrize("name", ["resnet18", "vit", "layers"])
def test_training_is_that_of_the_original(name: str, how: str, tmp_path: Path) -> None:
    """Also the statistics, which have the variance of torch, and their count."""
    module, network = imported(name, how).train(), original(name).train()
    for trained in (module, network):
        optimizer = torch.optim.SGD(trained.parameters(), lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            results(trained, name)[0].square().mean().backward()
            optimizer.step()
    state, wanted = module.state_dict(), network.state_dict()
    assert list(state) == list(wanted)
    torch.testing.assert_close(dict(state), dict(wanted), rtol=1e-4, atol=1e-5)
    before = original(name).state_dict()
    assert not any(torch.equal(before[n], p) for n, p in network.named_parameters() if p.ndim > 1)
    module.save_onnx(tmp_path / "trained.onnx")
    check_same(OnnxModule(tmp_path / "trained.onnx"), network.eval(), name, 1e-4)


@each_export
def test_gradients_reach_embeddings(how: str) -> None:
    module, network = imported("encoder", how), original("encoder")
    for model in (module, network):
        results(model, "encoder")[0].square().sum().backward()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(module.weights[name].grad, parameter.grad, rtol=1e-4, atol=1e-5)


def test_the_state_of_the_original_loads() -> None:
    network = original("resnet18").train()
    network(*NETWORKS["resnet18"].inputs)
    module = imported("resnet18")
    module.load_state_dict(network.state_dict(), strict=True)
    torch.testing.assert_close(dict(module.state_dict()), dict(network.state_dict()))
    check_same(module, network.eval(), "resnet18")
    assert module.get_submodule("bn1").num_batches_tracked == 1


def test_a_checkpoint_has_the_weights_of_the_layers(tmp_path: Path) -> None:
    module, network = imported("resnet18").train(), original("resnet18").train()
    check_same(module, network, "resnet18")
    source = written("resnet18", "torchscript")
    checkpoints.save(source, tmp_path / "trained.pth", module=module)
    check_same(checkpoints.load(tmp_path / "trained.pth"), network.eval(), "resnet18")


def test_a_state_without_counts_loads() -> None:
    module, without = imported("resnet18"), OnnxModule(written("resnet18", "torchscript"))
    module.load_state_dict(without.state_dict(), strict=True)
    without.load_state_dict(module.state_dict(), strict=True)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_trains_by_itself(copied: Callable[[OnnxModule], OnnxModule]) -> None:
    module, network = imported("resnet18"), original("resnet18")
    twin = copied(module).train()
    assert layers(twin) == layers(network)
    results(twin, "resnet18")[0].sum().backward()
    torch.optim.SGD(twin.parameters(), lr=1.0).step()
    check_same(module, network, "resnet18")
    assert module.get_submodule("bn1").num_batches_tracked == 0
    assert all(twin.weights[n] is p for n, p in twin.named_parameters())


def test_a_module_in_another_type_is_the_original_in_it() -> None:
    module, network = imported("resnet18").double(), original("resnet18").double()
    x = NETWORKS["resnet18"].inputs[0].double()
    torch.testing.assert_close(module(x), network(x), rtol=1e-12, atol=1e-12)


def test_a_functional_call_computes_with_other_weights() -> None:
    module, network = imported("vit"), original("vit")
    other = {n: p.detach() * 1.5 for n, p in network.named_parameters()}
    inputs = NETWORKS["vit"].inputs
    want = functional_call(network, other, inputs)
    torch.testing.assert_close(functional_call(module, other, inputs), want)
    assert not torch.allclose(want, network(*inputs))


def test_weights_are_frozen_by_name() -> None:
    module = OnnxModule(written("vit", "torchscript"), leaves="nn", trainable="head.*")
    assert isinstance(module.get_submodule("conv_proj"), nn.Conv2d)
    training = {n for n, p in module.named_parameters() if p.requires_grad}
    assert training == {"head.weight", "head.bias"}
    module.freeze("head.bias")
    results(module, "vit")[0].sum().backward()
    assert {n for n, p in module.named_parameters() if p.grad is not None} == {"head.weight"}


def test_frozen_statistics_stay() -> None:
    module, network = imported("resnet18"), original("resnet18")
    module.freeze_statistics("bn1.*")
    network.train()
    network.bn1.eval()
    check_same(module.train(), network, "resnet18")
    assert torch.equal(module.weights["bn1.running_mean"], network.bn1.running_mean)
    module.unfreeze_statistics("bn1.*")
    check_same(module, network.train(), "resnet18")
    torch.testing.assert_close(module.weights["bn1.running_mean"], network.bn1.running_mean)


def test_fx_sees_the_layers() -> None:
    module, network = imported("resnet18"), original("resnet18")
    traced = torch.fx.symbolic_trace(module)
    called = [n.target for n in traced.graph.nodes if n.op == "call_module"]
    assert sorted(called) == sorted(layers(network))
    check_same(traced, network, "resnet18")


def test_hooks_of_layers_run() -> None:
    module, network, seen = imported("encoder"), original("encoder"), dict[str, list[Tensor]]()
    for key, model in (("module", module), ("network", network)):
        for path in layers(network):
            layer = model.get_submodule(path)
            layer.register_forward_hook(
                lambda _, __, result, key=key: seen.setdefault(key, []).append(result)
            )
        results(model, "encoder")
    torch.testing.assert_close(seen["module"], seen["network"], rtol=1e-5, atol=1e-5)


# torch means to replace torch.ao.quantization
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize_per_tensor")
def test_dynamic_quantization_is_that_of_the_original(tmp_path: Path) -> None:
    """And the file has no place for what became of the weights."""
    module, network = imported("encoder"), original("encoder")
    quantized, wanted = (quantize_dynamic(m, {nn.Linear}) for m in (module, network))
    check_same(quantized, wanted, "encoder")
    check_same(copy.deepcopy(quantized).to("cpu"), wanted, "encoder")
    differences = (results(wanted, "encoder")[0] - results(network, "encoder")[0]).abs()
    assert differences.max() > 1e-3
    with pytest.raises(SaveError, match="'pooler' was replaced by a Linear"):
        quantized.save_onnx(tmp_path / "quantized.onnx")
    check_same(module, network, "encoder")


class Adapted(nn.Module):
    """A layer and a product of small matrices beside it, as adapters of other libraries do it."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(layer.in_features)
        self.layer = layer
        self.down = nn.Parameter(0.1 * torch.randn(2, layer.in_features, generator=generator))
        self.up = nn.Parameter(0.1 * torch.randn(layer.out_features, 2, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return self.layer(x) + x @ self.down.T @ self.up.T


def adapt(module: nn.Module) -> dict[str, Adapted]:
    """Put adapters around the linear layers."""
    adapted = {}
    for name, layer in list(module.named_modules()):
        if isinstance(layer, nn.Linear):
            around, _, attribute = name.rpartition(".")
            adapted[name] = Adapted(layer)
            setattr(module.get_submodule(around), attribute, adapted[name])
    return adapted


@each_export
def test_adapters_around_layers_are_those_of_the_original(how: str, tmp_path: Path) -> None:
    module, network = imported("encoder", how), original("encoder")
    before = results(network, "encoder")[0]
    got, want = adapt(module), adapt(network)
    assert list(got) == list(want)
    check_same(module, network, "encoder")
    assert not torch.allclose(results(network, "encoder")[0], before)
    for model in (module, network):
        results(model, "encoder")[0].square().sum().backward()
    for name in want:
        torch.testing.assert_close(got[name].up.grad, want[name].up.grad)
        torch.testing.assert_close(got[name].down.grad, want[name].down.grad)
    check_same(copy.deepcopy(module), network, "encoder")
    with pytest.raises(SaveError, match="Adapted: merge adapters first"):
        module.save_onnx(tmp_path / "adapted.onnx")
    for name, adapter in got.items():  # merged, and the layers in their places again
        with torch.no_grad():
            adapter.layer.weight += adapter.up @ adapter.down
        around, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(around), attribute, adapter.layer)
    module.save_onnx(tmp_path / "merged.onnx")
    check_same(OnnxModule(tmp_path / "merged.onnx"), network, "encoder")


def test_a_weight_of_another_class_is_not_saved(tmp_path: Path) -> None:
    class Other(Tensor):
        """What a tool makes of a weight."""

    module = imported("vit")
    head = module.get_submodule("head")
    head.weight = nn.Parameter(head.weight.detach().as_subclass(Other))
    assert isinstance(results(module, "vit")[0], Tensor)
    with pytest.raises(
        SaveError, match=r"'head.weight' must be a plain torch.Tensor, got a .*Other"
    ):
        module.save_onnx(tmp_path / "other.onnx")


def test_an_error_names_the_node() -> None:
    module = imported("vit")
    module.get_submodule("head").weight.data = torch.zeros(5, 7)
    with pytest.raises(NodeError, match=r"/head/Gemm.*cannot be multiplied"):
        results(module, "vit")


def test_limits_hold() -> None:
    limited = OnnxModule(written("vit", "torchscript"), leaves="nn", limits=Limits(seconds=60))
    check_same(limited, original("vit"), "vit")


def test_other_values_are_refused() -> None:
    with pytest.raises(ValueError, match="leaves must be None or \"nn\", got 'torch'"):
        OnnxModule(written("vit", "torchscript"), leaves="torch")  # type: ignore[arg-type]

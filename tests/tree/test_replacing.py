"""Modules of an import are wrapped, replaced and hooked like those of any torch module."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from onnxinterp import OnnxModule, SaveError
from tests.exports.case import Export
from tests.models import HEADER, parse
from tests.training.exporting import write
from tests.training.networks import VIT

EXPORTS = [Export("torchscript", 17), Export("dynamo", 18)]
BLOCK = "layers.1"


@pytest.fixture(params=EXPORTS, ids=lambda how: how.exporter)
def model(request: pytest.FixtureRequest) -> onnx.ModelProto:
    return write(original(), inputs(), request.param)


def original() -> nn.Module:
    return VIT.original().eval()


def inputs() -> tuple[Tensor, ...]:
    return VIT.batch(0)[0]


def replace(network: nn.Module, path: str, new: nn.Module) -> None:
    around, _, name = path.rpartition(".")
    setattr(network.get_submodule(around), name, new)


class Negated(nn.Module):
    """A wrapper written by hand: it knows of no keyword arguments."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return -self.block(x)  # type: ignore[no-any-return]  # a tensor


class Checkpointed(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, *args: Any, **keywords: Any) -> Any:
        return checkpoint(self.block, *args, use_reentrant=False, **keywords)


def test_a_wrapper_runs(model: onnx.ModelProto) -> None:
    network, module = original(), OnnxModule(model)
    for net in (network, module):
        replace(net, BLOCK, Negated(net.get_submodule(BLOCK)))
    torch.testing.assert_close(module(*inputs()), network(*inputs()), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(module(*inputs()), OnnxModule(model)(*inputs()), atol=1e-2)
    names = {n for n, _ in network.named_parameters()}
    assert {n for n, _ in module.named_parameters()} == names
    module.double().float()
    torch.testing.assert_close(module(*inputs()), network(*inputs()), rtol=1e-4, atol=1e-5)
    assert module.weights["layers.1.ln_1.weight"].requires_grad


@pytest.mark.parametrize("wrap", [Checkpointed, checkpoint_wrapper])
def test_checkpointed_blocks_have_the_same_gradients(wrap: Any, model: onnx.ModelProto) -> None:
    network, module = original(), OnnxModule(model)
    for path in ("layers.0", "layers.1"):
        replace(module, path, wrap(module.get_submodule(path)))
    for net in (network, module):
        net(*inputs()).square().sum().backward()
    for name, parameter in network.named_parameters():
        got = module.weights[name].grad
        torch.testing.assert_close(got, parameter.grad, rtol=1e-4, atol=1e-5)


def test_a_new_head_takes_the_place_of_the_old_one(model: onnx.ModelProto) -> None:
    network, module = original(), OnnxModule(model)
    head = nn.Linear(network.get_parameter("head.weight").shape[1], 3)
    network.head = module.head = head
    torch.testing.assert_close(module(*inputs()), network(*inputs()), rtol=1e-4, atol=1e-5)
    module(*inputs()).sum().backward()
    assert head.weight.grad is not None
    module.head = nn.Identity()
    module.double()
    assert module(inputs()[0].double()).dtype is torch.float64


@pytest.mark.parametrize("new", [nn.Identity(), nn.Linear(16, 3)])
def test_a_new_module_cannot_be_saved(
    new: nn.Module, model: onnx.ModelProto, tmp_path: Path
) -> None:
    module = OnnxModule(model)
    replace(module, BLOCK, checkpoint_wrapper(module.get_submodule(BLOCK)))
    module.save_onnx(tmp_path / "wrapped.onnx")
    replace(module, BLOCK, Negated(module.get_submodule(BLOCK)))
    with pytest.warns(UserWarning, match="what the Negated around '1' computes"):
        module.save_onnx(tmp_path / "wrapped.onnx")
    assert (tmp_path / "wrapped.onnx").read_bytes() == model.SerializeToString()
    module.head = new
    with pytest.raises(SaveError, match="'head' was replaced by a"):
        module.save_onnx(tmp_path / "m.onnx")


def test_a_block_runs_by_itself(model: onnx.ModelProto) -> None:
    network, module, seen = original(), OnnxModule(model), []
    handle = network.get_submodule(BLOCK).register_forward_pre_hook(lambda _m, x: seen.extend(x))
    network(*inputs())
    handle.remove()
    want = network.get_submodule(BLOCK)(*seen)
    for twin in (module, copy.deepcopy(module)):
        got = twin.get_submodule(BLOCK)(*seen)
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    with pytest.raises(RuntimeError, match="got 2 values"):
        module.get_submodule(BLOCK)(*seen, *seen)
    with pytest.raises(RuntimeError, match="0 calls of it"):
        module.get_submodule("layers")(*seen)


def test_a_module_called_parametrizations_is_one_of_the_file() -> None:
    network = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    net, x = nn.Sequential(network, nn.ReLU()).eval(), torch.randn(2, 4)
    module = OnnxModule(write(net, (x,), EXPORTS[0]))
    module.get_submodule("0").register_forward_hook(lambda *_: None)
    torch.testing.assert_close(module(x), net(x))


def test_a_hook_may_change_the_output_or_end_the_call(model: onnx.ModelProto) -> None:
    class Stop(Exception):  # noqa: N818 - no error
        pass

    def stop(*_: Any) -> None:
        raise Stop

    network, module = original(), OnnxModule(model)
    results = []
    for net in (network, module):
        handle = net.get_submodule(BLOCK).register_forward_hook(lambda _m, _i, y: -y)
        results.append(net(*inputs()))
        handle.remove()
        results.append(net(*inputs()))
    changed, plain, ours, ours_plain = results
    torch.testing.assert_close(ours, changed, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours_plain, plain, rtol=1e-4, atol=1e-5)
    module.get_submodule(BLOCK).register_forward_pre_hook(stop)
    with pytest.raises(Stop):
        module(*inputs())


def test_backward_hooks_see_the_gradients(model: onnx.ModelProto) -> None:
    seen: list[Tensor] = []
    for net in (original(), OnnxModule(model)):
        net.get_submodule(BLOCK).register_full_backward_hook(
            lambda _m, _inputs, outputs: seen.append(outputs[0])
        )
        net(*inputs()).square().sum().backward()
    torch.testing.assert_close(seen[1], seen[0], rtol=1e-4, atol=1e-5)


def test_copies_keep_hooks_and_wrappers(model: onnx.ModelProto) -> None:
    module = OnnxModule(model)
    replace(module, BLOCK, Negated(module.get_submodule(BLOCK)))
    want = module(*inputs())
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(*inputs()), want)
        assert twin.weights["head.weight"] is not module.weights["head.weight"]


def test_a_module_whose_nodes_are_unknown_cannot_be_replaced() -> None:
    text = f"""{HEADER} g (float[2,3] x) => (float[2,3] y)
        <float[3] a = {{1, 2, 3}}, float[3] b = {{4, 5, 6}}> {{ w = Mul(a, b)  y = Add(x, w) }}"""
    file = parse(text)
    for name, tensor in zip(["first.w", "second.w"], file.graph.initializer, strict=True):
        tensor.name = name
    file.graph.node[0].input[:] = ["first.w", "second.w"]
    module = OnnxModule(file)
    module.first = nn.Identity()
    with pytest.raises(RuntimeError, match="it would change nothing"):
        module(torch.ones(2, 3))


def test_calls_take_the_flat_plan_while_nothing_is_attached(model: onnx.ModelProto) -> None:
    module = OnnxModule(model)
    assert not module._plans.is_nested(False)
    handle = module.get_submodule(BLOCK).register_forward_hook(lambda *_: None)
    assert module._plans.is_nested(False)
    handle.remove()
    assert not module._plans.is_nested(False)
    parametrize.register_parametrization(module.get_submodule("head"), "weight", nn.Identity())
    assert not module._plans.is_nested(False), "weights are read in any case"
    module.get_submodule("head").forward = lambda *_: 0
    assert module._plans.is_nested(False)


def test_a_graph_without_module_notes_has_blocks_by_the_names_of_weights() -> None:
    model = write(original(), inputs(), EXPORTS[1])
    for node in model.graph.node:
        del node.metadata_props[:]
    module, network, outputs = OnnxModule(model), original(), []
    for net in (network, module):
        net.get_submodule("head").register_forward_pre_hook(lambda _m, x: outputs.append(x[0]))
        net(*inputs())
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-4, atol=1e-5)

"""train(), eval() and frozen statistics; what momentum means; normalisation put back."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import onnx
import onnx.parser
import pytest
import torch
from torch import Tensor, nn

from onnxinterp import OnnxModule, reinsert_batchnorm
from tests.exporting import export
from tests.training.networks import RESNET

BODY = """(float[n,2] x) => (float[n,2] y)
<float[2] s = {1, 2}, float[2] b = {0, 1}, float[2] mean = {0.5, -1}, float[2] var = {2, 0.5}>"""
EXPORTED = {
    "1": ("6", "y = BatchNormalization<is_test = 1>(x, s, b, mean, var)"),
    "7": ("7", "y = BatchNormalization(x, s, b, mean, var)"),
    "9": ("9", "y = BatchNormalization(x, s, b, mean, var)"),
    "9 training": ("9", "y, m, v, sm, sv = BatchNormalization(x, s, b, mean, var)"),
    "14": ("14", "y = BatchNormalization(x, s, b, mean, var)"),
    "15 training": ("15", "y, m, v = BatchNormalization<training_mode = 1>(x, s, b, mean, var)"),
}


def normalizing(version: str) -> OnnxModule:
    opset, node = EXPORTED[version]
    return OnnxModule(
        onnx.parser.parse_model(
            f'<ir_version: 8, opset_import: ["": {opset}]> g {BODY} {{ {node} }}'
        )
    )


def batch_norm(momentum: float = 0.1) -> nn.BatchNorm1d:
    network = nn.BatchNorm1d(2, momentum=momentum)
    network.load_state_dict(
        {
            "weight": torch.tensor([1.0, 2.0]),
            "bias": torch.tensor([0.0, 1.0]),
            "running_mean": torch.tensor([0.5, -1.0]),
            "running_var": torch.tensor([2.0, 0.5]),
        },
        strict=False,
    )
    return network


@pytest.mark.parametrize("version", EXPORTED)
def test_train_uses_the_batch_and_keeps_statistics(version: str) -> None:
    """The momentum of torch is one minus that of ONNX, its variance that of the sample."""
    module, network = normalizing(version).train(), batch_norm(momentum=0.1).train()
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)) * 3
    torch.testing.assert_close(module(x), network(x))
    torch.testing.assert_close(module.weights["mean"], network.running_mean)
    old, population = torch.tensor([2.0, 0.5]), x.var(0, correction=0)
    torch.testing.assert_close(module.weights["var"], 0.9 * old + 0.1 * population)
    torch.testing.assert_close(network.running_var, 0.9 * old + 0.1 * population * 8 / 7)
    if "training" not in version:
        network.load_state_dict({"running_var": module.weights["var"]}, strict=False)
        torch.testing.assert_close(module.eval()(x), network.eval()(x))


@pytest.mark.parametrize("version", EXPORTED)
def test_frozen_statistics_are_used_and_kept(version: str) -> None:
    module, x = normalizing(version).train(), torch.randn(8, 2)
    want = batch_norm().eval()(x)
    assert module.freeze_statistics() == ("mean", "var")
    for twin in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        torch.testing.assert_close(twin(x), want)
        assert twin.weights["mean"].tolist() == [0.5, -1.0]
        twin(x).sum().backward()
        assert twin.weights["s"].grad is not None
    torch.testing.assert_close(module.eval()(x), want)
    module.train().unfreeze_statistics("mean")
    torch.testing.assert_close(module(x), want)  # one frozen statistic freezes its node
    module.unfreeze_statistics()
    torch.testing.assert_close(module(x), batch_norm().train()(x))
    assert module.weights["mean"].tolist() != [0.5, -1.0]


def test_dropout_that_a_file_left_off_drops_in_train() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[n] x) => (float[n] y)
        <float ratio = {0.25}, bool off = {0}> { y = Dropout(x, ratio, off) }"""
    module, x = OnnxModule(onnx.parser.parse_model(text)), torch.ones(10_000)
    assert torch.equal(module(x), x)
    dropped = module.train()(x)
    assert 0.2 < float((dropped == 0).float().mean()) < 0.3
    torch.testing.assert_close(dropped.max(), torch.tensor(4 / 3))
    assert torch.equal(module.eval()(x), x)


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.ConvTranspose2d(4, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.norm(self.first(x)).relu())


def folded(opset: int) -> onnx.ModelProto:
    torch.manual_seed(0)
    network = Convolutions()
    for _ in range(3):
        network(torch.randn(8, 3, 9, 9))  # statistics of their own
    return export(network.eval(), (torch.randn(8, 3, 9, 9),), dynamo=False, opset_version=opset)


@pytest.mark.parametrize("opset", [9, 17])
def test_reinserted_normalization_changes_no_answer(opset: int, tmp_path: Path) -> None:
    model, x = folded(opset), torch.randn(8, 3, 9, 9)
    assert not any(n.op_type == "BatchNormalization" for n in model.graph.node)
    path = tmp_path / "model.onnx"
    onnx.save(folded(opset), path, save_as_external_data=True, size_threshold=0)
    normalized = reinsert_batchnorm(path, x, where="onnx::Conv*")
    assert len([n for n in normalized.graph.node if n.op_type == "BatchNormalization"]) == 1
    onnx.checker.check_model(normalized)
    before, module = OnnxModule(model), OnnxModule(reinsert_batchnorm(model, x))
    other = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(module(other), before(other), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(OnnxModule(normalized)(other), before(other), rtol=1e-4, atol=1e-5)
    # on the calibration batch even train() gives the same, and then normalises what comes
    torch.testing.assert_close(module.train()(x), before(x), rtol=1e-3, atol=1e-4)
    assert {n for n in module.weights if n.endswith("running_var")} == {
        f"{layer}.normalization.running_var" for layer in ("first", "second")
    }
    module(3 * x + 1).sum().backward()
    module.eval()
    assert not torch.allclose(module(other), before(other), rtol=1e-2)
    assert all(p.grad is not None for p in module.parameters())


def test_the_state_of_the_original_restores_what_was_folded() -> None:
    """The newer exporter tells the names of the layers; none of their numbers is left."""
    original, ((x,), _) = RESNET.original().eval(), RESNET.batch(0)
    file = export(original, (x,), dynamo=True, opset_version=18)
    module = OnnxModule(file, reinsert_normalization=x)
    torch.testing.assert_close(module(x), original(x), rtol=1e-3, atol=1e-3)
    module.load_state_dict(original.state_dict())
    torch.testing.assert_close(module(x), original(x), rtol=1e-4, atol=1e-4)
    for network in (original.train(), module.train()):
        network(x).square().sum().backward()
    for name, parameter in original.named_parameters():
        got = module.get_parameter(name).grad
        torch.testing.assert_close(got, parameter.grad, rtol=1e-3, atol=1e-3)
    assert list(module.state_dict()) == [n for n in original.state_dict() if "num_b" not in n]


def test_reinserting_where_nothing_fits_is_an_error() -> None:
    x = torch.randn(8, 3, 9, 9)
    wanted = "where must match the weight of a convolution that no BatchNormalization follows"
    with pytest.raises(ValueError, match=rf"^{wanted}, got 'fc\.\*'"):
        reinsert_batchnorm(folded(17), x, where="fc.*")
    with pytest.raises(ValueError, match=rf"^{wanted}, got '\*'$"):
        reinsert_batchnorm(reinsert_batchnorm(folded(17), x), x)

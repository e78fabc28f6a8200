"""Written networks train as the module does, and go back to ONNX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from onnxinterp import OnnxModule
from tests.exporting import expected_warnings
from tests.exports.case import Case
from tests.exports.exporting import export
from tests.exports.modules import ENCODER, SPEECH
from tests.python_source.writing import assert_same, outputs, parsed, written

N_STEPS = 5
BATCH_NORM = """g (float[n, 2, l] x) => (float[n, 2, l] y)
    <float[2] scale = {1, 2}, float[2] shift = {0, 1},
     float[2] mean = {1, 0}, float[2] variance = {4, 1}>
    { y = BatchNormalization (x, scale, shift, mean, variance) }"""
MLP = """g (float[n, 4] x) => (float[n, 2] y)
    <float[3, 4] w = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.1, 0.2, 0.3},
     float[3] b = {0, 1, 0.5}, float[2, 3] v = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6}, float[2] c = {0, 1}>
    { h = Gemm <transB = 1> (x, w, b) r = Relu(h) y = Gemm <transB = 1> (r, v, c) }"""


def losses(network: nn.Module, *inputs: Tensor, rate: float) -> list[float]:
    """The losses of a few steps of gradient descent with momentum."""
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9)
    found = []
    for _ in range(N_STEPS):
        optimizer.zero_grad()
        results = network(*inputs)
        loss = (results if isinstance(results, Tensor) else results[0]).square().mean()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return found


def assert_trains_alike(module: OnnxModule, net: nn.Module, *inputs: Tensor, rate: float) -> None:
    got, wanted = (losses(m, *inputs, rate=rate) for m in (net, module))
    torch.testing.assert_close(torch.tensor(got), torch.tensor(wanted), rtol=1e-4, atol=1e-6)
    assert wanted[-1] < 0.99 * wanted[0], "nothing is learned: the steps say nothing"
    assert_same(net, module, *inputs)


def test_steps_of_training_are_those_of_the_module(tmp_path: Path) -> None:
    module, x = parsed(MLP), torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    net, _ = written(module, tmp_path, x)
    assert_trains_alike(module, net, x, rate=0.1)


def test_another_rate_is_noticed(tmp_path: Path) -> None:
    """The negative control."""
    module, x = parsed(MLP), torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    net, _ = written(module, tmp_path, x)
    losses(net, x, rate=0.11)
    losses(module, x, rate=0.1)
    with pytest.raises(AssertionError):
        assert_same(net, module, x)


@pytest.mark.capture
def test_a_network_of_attention_trains_as_the_module_does(tmp_path: Path) -> None:
    module = OnnxModule(export(ENCODER, ENCODER.exports()[-1]))
    inputs = ENCODER.arguments(ENCODER.sizes[0])
    net, _ = written(module, tmp_path, *inputs)
    assert_trains_alike(module, net, *inputs, rate=0.01)


def test_batch_normalization_uses_statistics_of_the_batch_in_train_mode(tmp_path: Path) -> None:
    """They are kept as torch keeps them: the variance of a sample. ONNX keeps that of the batch."""
    module, x = parsed(BATCH_NORM), torch.randn(4, 2, 5)
    net, text = written(module, tmp_path, x)
    assert "nn.BatchNorm1d(2)" in text
    assert_same(net, module, x)
    net.train()
    module.train()
    assert_same(net, module, x)
    kept = {name.split(".")[-1]: buffer for name, buffer in net.named_buffers()}
    torch.testing.assert_close(kept["running_mean"], module.get_buffer("mean"))
    for variance, correction in ((kept["running_var"], 1), (module.get_buffer("variance"), 0)):
        of_batch = x.var([0, 2], correction=correction)
        torch.testing.assert_close(variance, 0.9 * torch.tensor([4.0, 1.0]) + 0.1 * of_batch)


def to_torchscript(net: nn.Module, inputs: tuple[Tensor, ...], path: Path) -> None:
    torch.onnx.export(net, inputs, path, dynamo=False, opset_version=17)


def to_dynamo(net: nn.Module, inputs: tuple[Tensor, ...], path: Path) -> None:
    program = torch.onnx.export(net, inputs, dynamo=True, verbose=False)
    assert program is not None
    program.save(path)


@pytest.mark.parametrize("exporter", [to_torchscript, to_dynamo])
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(ENCODER, id="encoder"),
        pytest.param(SPEECH, id="speech", marks=pytest.mark.capture),
    ],
)
def test_written_source_goes_back_to_onnx(
    case: Case,
    exporter: Callable[[nn.Module, tuple[Tensor, ...], Path], None],
    tmp_path: Path,
) -> None:
    module = OnnxModule(export(case, case.exports()[-1]))
    inputs = case.arguments(case.sizes[0])
    net, _ = written(module, tmp_path, *inputs)
    with expected_warnings(), torch.no_grad():
        exporter(net, inputs, tmp_path / "again.onnx")
    onnx.checker.check_model(tmp_path / "again.onnx")
    again = OnnxModule(tmp_path / "again.onnx")
    torch.testing.assert_close(
        outputs(again, *inputs), outputs(module, *inputs), rtol=1e-4, atol=1e-5
    )
    other = case.arguments(case.sizes[0], seed=1)
    torch.testing.assert_close(outputs(again, *other), outputs(net, *other), rtol=1e-4, atol=1e-5)

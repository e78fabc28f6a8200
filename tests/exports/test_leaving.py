"""Imported modules leave by a trace and in transforms of torch.func, as written ones do."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from onnxinterp import OnnxModule
from tests import exporting
from tests.exports.comparison import as_tuple, disagreements
from tests.exports.conftest import OLDEST_AND_NEWEST, Subject
from tests.exports.exporting import dynamic_shapes

TRANSFORMERS = [e for e in OLDEST_AND_NEWEST if e.values[0][0].name in ("encoder", "decoder")]


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # shapes that are compared
@pytest.mark.filterwarnings("ignore:Constant folding:UserWarning")
@pytest.mark.parametrize("subject", TRANSFORMERS, indirect=True)
def test_transformers_are_exported_again_from_a_trace(subject: Subject) -> None:
    case, network, module = subject.case, subject.case.module(), subject.module().eval()
    names = [f"in{i}" for i in range(len(dynamic_shapes(case)))]
    pairs = zip(names, dynamic_shapes(case), strict=True)
    axes = {name: {k: f"{name}_{k}" for k in free} for name, free in pairs if free}
    options: dict[str, Any] = {"opset_version": 17, "input_names": names, "dynamic_axes": axes}
    file = io.BytesIO()
    with exporting.expected_warnings():
        inputs = case.arguments(case.sizes[0])
        torch.onnx.export(module, inputs, file, dynamo=False, **options)
    session = onnxruntime.InferenceSession(file.getvalue())
    for sizes in case.sizes:
        inputs = case.arguments(sizes)
        feeds = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
        got = [torch.from_numpy(y) for y in session.run(None, feeds)]
        assert disagreements(got, as_tuple(network(*inputs))) == {}, sizes


class Recurrent(nn.Module):
    """A recurrent layer with the head of a classifier."""

    def __init__(self, layer: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.layer = layer(4, 5, bidirectional=True, batch_first=True)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_gradients_of_each_sample(layer: Callable[..., nn.Module]) -> None:
    """Torch itself has no rule for a batch of torch.gru."""
    network, x = Recurrent(layer).eval(), torch.randn(3, 6, 4)
    options = {"dynamo": False, "input_names": ["x"], "dynamic_axes": {"x": {0: "n"}}}
    module = OnnxModule(exporting.export(network, (x,), opset_version=17, **options))
    parameters = {name: p.detach() for name, p in module.named_parameters()}

    def loss(parameters: dict[str, Tensor], row: Tensor) -> Tensor:
        return functional_call(module, parameters, (row[None],)).square().sum()

    got = vmap(grad(loss), (None, 0))(parameters, x)
    assert got.keys() == dict(network.named_parameters()).keys()
    for i, row in enumerate(x):
        network.zero_grad()
        network(row[None]).square().sum().backward()
        for name, p in network.named_parameters():
            torch.testing.assert_close(got[name][i], p.grad, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        rows = vmap(lambda row: module(row[None])[0])(x)
    torch.testing.assert_close(rows, network(x))
    assert not torch.allclose(got["head.weight"][0], got["head.weight"][1])

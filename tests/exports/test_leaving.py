"""Imported modules leave by traces, OpenVINO and transforms of torch.func, as written ones do."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from onnxinterp import OnnxModule
from tests import exporting
from tests.exports.columns import run_by_openvino
from tests.exports.comparison import as_tuple, disagreements
from tests.exports.conftest import OLDEST_AND_NEWEST, Subject
from tests.exports.exporting import dynamic_shapes
from tests.exports.modules.recurrent import Recurrent

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


def _in_openvino(module: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[..., list[Tensor]]:
    """The module as `openvino.convert_model` understands it by a trace of one call."""
    ov = pytest.importorskip("openvino", reason="openvino is an extra")
    return run_by_openvino(ov.convert_model(module, example_input=inputs))


@pytest.mark.filterwarnings("ignore:`torch.jit.:FutureWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # sizes that are compared
@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_openvino_converts_recurrent_layers(layer: Callable[..., nn.Module]) -> None:
    """Of a recorded call it takes only layers that do not train, gradients enabled or not."""
    network, x = Recurrent(layer).eval(), torch.randn(2, 6, 4)
    names = {"input_names": ["x"], "dynamic_axes": {"x": {0: "n", 1: "t"}}}
    module = OnnxModule(exporting.export(network, (x,), opset_version=17, dynamo=False, **names))
    run = _in_openvino(module.eval(), (x,))
    for sizes in ((2, 6, 4), (3, 5, 4)):
        other = torch.randn(sizes)
        assert disagreements(run(other), as_tuple(network(other))) == {}, sizes
        assert disagreements(run(other), as_tuple(network(other + 1))), sizes


BOXES = """<ir_version: 9, opset_import: ["": 18]>
boxes (float[1, n, 4] boxes, float[1, 2, n] scores) => (int64[k, 3] rows)
<int64[1] most = {3}, float[1] overlap = {0.5}, float[1] least = {0.1}>
{ rows = NonMaxSuppression (boxes, scores, most, overlap, least) }"""

NORMALIZED = """<ir_version: 10, opset_import: ["": 23]>
normalized (float[n, 6] x, float[6] scale) => (float[n, 6] y)
{ y = RMSNormalization <epsilon = 1e-5> (x, scale) }"""

LARGEST = """<ir_version: 8, opset_import: ["": 17]>
largest (float[n, 6] x) => (float[n, 3] values, int64[n, 3] places)
<int64[1] k = {3}> { values, places = TopK <axis = 1> (x, k) }"""


def _boxes(count: int) -> tuple[Tensor, ...]:
    corner = torch.rand(1, count, 2) * 3
    return torch.cat([corner, corner + torch.rand(1, count, 2) * 4], 2), torch.rand(1, 2, count)


def _ties(count: int) -> tuple[Tensor, ...]:
    return (torch.randint(3, (count, 6)).float(),)


RESIZED = """<ir_version: 10, opset_import: ["": 23]>
resized (float[n, 2, 3, 4] x) => (float[n, 2, 6, 12] y) <float[4] scales = {1, 1, 2, 3}>
{ y = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric",
nearest_mode = "floor"> (x, , scales) }"""


def _images(count: int) -> tuple[Tensor, ...]:
    return (torch.randn(count, 2, 3, 4),)


LEAVING: dict[str, tuple[str, Callable[[int], tuple[Tensor, ...]]]] = {
    "NonMaxSuppression": (BOXES, _boxes),
    "RMSNormalization": (NORMALIZED, lambda count: (torch.randn(count, 6), torch.randn(6))),
    "TopK with equal elements": (LARGEST, _ties),
    "Resize to whole multiples": (RESIZED, _images),
}
"""What a file has, by name: its text, and inputs of a count."""


def _session(file: bytes) -> Callable[..., list[Tensor]]:
    """By onnxruntime without optimization."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(file, options)
    names = [entry.name for entry in session.get_inputs()]

    def run(*inputs: Tensor) -> list[Tensor]:
        feeds: dict[str, np.ndarray[Any, Any]] = {
            name: x.numpy() for name, x in zip(names, inputs, strict=True)
        }
        return [torch.from_numpy(y) for y in session.run(None, feeds)]

    return run


@pytest.mark.filterwarnings("ignore:`torch.jit.:FutureWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # sizes that are compared
@pytest.mark.parametrize("name", LEAVING)
def test_a_trace_computes_other_data_than_it_was_recorded_with(name: str, tmp_path: Path) -> None:
    text, inputs = LEAVING[name]
    module = OnnxModule(onnx.parser.parse_model(text)).eval()
    torch.jit.trace(module, inputs(20), check_trace=False).save(tmp_path / "m.pt")
    traced, results = torch.jit.load(tmp_path / "m.pt"), []
    for _ in range(4):
        values = inputs(20)
        results.append(as_tuple(module(*values)))
        assert disagreements(as_tuple(traced(*values)), results[-1]) == {}
    assert not all(torch.equal(results[0][-1], other[-1]) for other in results[1:])


@pytest.mark.filterwarnings("ignore:`torch.jit.:FutureWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # sizes that are compared
@pytest.mark.parametrize("name", LEAVING)
def test_a_trace_is_exported_again(name: str) -> None:
    text, inputs = LEAVING[name]
    module, values, file = (
        OnnxModule(onnx.parser.parse_model(text)).eval(),
        inputs(20),
        io.BytesIO(),
    )
    names = [f"in{i}" for i in range(len(values))]
    with exporting.expected_warnings():
        torch.onnx.export(module, values, file, dynamo=False, opset_version=17, input_names=names)
    right, again = (
        _session(onnx.parser.parse_model(text).SerializeToString()),
        _session(file.getvalue()),
    )
    for _ in range(4):
        values = inputs(20)
        assert disagreements(again(*values), right(*values)) == {}


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

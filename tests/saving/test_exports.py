"""What exporters write: tuned, saved, and judged by onnxruntime."""

from __future__ import annotations

import copy
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime.quantization as quantization
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from onnxinterp import OnnxModule
from tests import exporting
from tests.saving.models import differences, mean_square_error, run, saved, tune


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            # normalised behind the ReLU: behind a convolution, exporters fold it away
            nn.Conv2d(3, 16, 3, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(16),
            nn.Conv2d(16, 8, 3),
        )
        self.head = nn.Linear(8, 5)
        for tensor in (*self.body[2].parameters(), *self.body[2].buffers()):
            if tensor.is_floating_point():
                nn.init.uniform_(tensor, 0.5, 1.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(2))
        for tensor in self.norms.parameters():  # equal tensors would be exported as one
            nn.init.uniform_(tensor, 0.5, 1.5)
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
        self.mlp = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = self.qkv(self.norms[0](x)).unflatten(2, (3, 4, 8)).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norms[1](x))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 16, num_layers=2, bidirectional=True, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(x)[0]


NETWORKS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "convolutions": (Convolutions, (2, 3, 12, 12)),
    "transformer": (Transformer, (2, 7, 32)),
    "lstm": (Recurrent, (2, 5, 8)),
}


def network(name: str) -> tuple[nn.Module, torch.Tensor]:
    """A network and an input for it."""
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    x = torch.randn(shape)
    return make().eval(), x


def export(name: str, path: Path) -> torch.Tensor:
    """Write a network with the older exporter and give an input for it."""
    module, x = network(name)
    shutil.copy(exporting.export_file(module, (x,), dynamo=False, opset_version=17), path)
    return x


def judge(path: Path, folder: Path, x: torch.Tensor, module: OnnxModule | None = None) -> Path:
    """Untouched: the bytes. Tuned: what onnxruntime says, and a second save changes nothing."""
    module = OnnxModule(path) if module is None else module
    beside = [p.name for p in path.parent.iterdir() if p != path]
    folder.mkdir()
    target = folder / path.name
    assert saved(module, target) == path.read_bytes()
    for name in beside:
        assert (folder / name).read_bytes() == (path.parent / name).read_bytes()
    before = copy.deepcopy(module)
    tune(module)
    first = saved(module, target)
    got = module(x)
    assert mean_square_error(before(x), run(target, x)) > 1e-6, "tuning has changed the answer"
    assert mean_square_error(got, run(target, x)) < 1e-10
    data = {name: (folder / name).read_bytes() for name in beside}
    assert saved(OnnxModule(target), target) == first
    assert {name: (folder / name).read_bytes() for name in beside} == data
    return target


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("exporter", ["torchscript", "dynamo", "dynamo, external"])
def test_tuned_exports(name: str, exporter: str, tmp_path: Path) -> None:
    module, x = network(name)
    options: dict[str, Any] = (
        {"dynamo": False, "opset_version": 17} if exporter == "torchscript" else {"dynamo": True}
    )
    with warnings.catch_warnings():
        if options["dynamo"]:
            warnings.simplefilter("ignore")  # what exporters warn of is asked of them elsewhere
        exported = exporting.export_file(module, (x,), **options)
    folder = "external" if exporter.endswith("external") else "."
    shutil.copytree(exported.parent / folder, tmp_path / "a", ignore=lambda *_: ["external"])
    path = tmp_path / "a" / "m.onnx"
    target = judge(path, tmp_path / "b", x)
    before, after = (onnx.load(p) for p in (path, target))
    assert all("initializer" in d or "/t:" in d for d in differences(before, after))


def test_batch_normalization_learns_and_is_written(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    x = export("convolutions", path)
    module = OnnxModule(path).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()
    module.eval()
    module.save_onnx(tmp_path / "tuned.onnx")
    before, after = (onnx.load(p).graph.initializer for p in (path, tmp_path / "tuned.onnx"))
    changed = {a.name for a, b in zip(before, after, strict=True) if a != b}
    assert {"body.2.running_mean", "body.2.running_var", "head.weight"} <= changed
    assert mean_square_error(module(x), run(tmp_path / "tuned.onnx", x)) < 1e-10


def test_half_precision(tmp_path: Path) -> None:
    """The module computes in float32; both are held to what the float16 weights mean."""
    path = tmp_path / "m.onnx"
    w = numpy_helper.from_array(np.random.default_rng(0).random((8, 8)).astype(np.float16), "w")
    nodes = [
        helper.make_node("Cast", ["w"], ["v"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "v"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 8]) for n in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], [w])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    module = OnnxModule(path, trainable="all")
    judge(path, tmp_path / "b", torch.randn(2, 8), module)


class _Reader(quantization.CalibrationDataReader):
    def __init__(self, name: str, x: torch.Tensor) -> None:
        self.feeds = iter([{name: x.numpy()}])

    def get_next(self) -> Any:
        return next(self.feeds, None)


def test_quantized_weights_stay_and_scales_are_tuned(tmp_path: Path) -> None:
    path, quantized = tmp_path / "m.onnx", tmp_path / "a" / "q.onnx"
    quantized.parent.mkdir()
    x = export("convolutions", path)
    quantization.quantize_static(
        path,
        quantized,
        _Reader(onnx.load(path).graph.input[0].name, x),
        quant_format=quantization.QuantFormat.QDQ,
        extra_options={"AddQDQPairToWeight": False},
    )
    module = OnnxModule(quantized, trainable="*_scale")
    (tmp_path / "b").mkdir()
    target = tmp_path / "b" / "q.onnx"
    assert saved(module, target) == quantized.read_bytes()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.03)
    saved(module, target)
    before, after = (onnx.load(p).graph.initializer for p in (quantized, target))
    kinds = {a.data_type for a, b in zip(before, after, strict=True) if a != b}
    assert kinds == {TensorProto.FLOAT}
    assert mean_square_error(module(x), run(target, x, as_written=True)) < 1e-10
    assert torch.equal(OnnxModule(target)(x), module(x))


def test_loop_bodies(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[2] x) => (float[2] y) <float[2] b = {0.5, 0.25}> {
      n = Constant<value = int64 {3}>()
      yes = Constant<value = bool {1}>()
      y = Loop(n, yes, x) <body = step (int64 i, bool c, float[2] h) => (bool d, float[2] z)
        <float[2] w = {0.9, 1.1}> {
          d = Identity(c)
          k = Constant<value_floats = [0.1, 0.2]>()
          p = Mul(h, w)
          q = Add(p, k)
          z = Add(q, b)
      }>
    }"""
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "m.onnx"
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    target = judge(path, tmp_path / "b", torch.randn(2))
    assert len(list(differences(onnx.load(path), onnx.load(target)))) == 3

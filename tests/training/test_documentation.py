"""The examples of docs/fine-tuning.md run, one after the other."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import onnx
import onnx.parser
import pytest
import torch
from torch import Tensor, nn

from onnxinterp import OnnxModule, reinsert_batchnorm, replace_head
from tests.exporting import expected_warnings, export_file

PAGE = Path(__file__).parents[2] / "docs" / "fine-tuning.md"


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for number in range(1, 5):
            layer = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3))
            self.add_module(f"layer{number}", layer)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.head(x.relu().mean((2, 3)))


MERGED = """<ir_version: 8, opset_import: ["": 17]> g (float[2,3] x) => (float[2,3] y)
<float[3] weight = {1, 2, 3}> { a = Mul(x, weight) y = Mul(a, weight) }"""
INT8 = """<ir_version: 8, opset_import: ["": 17]> g (float[2,3] x) => (float[2,3] y)
<float[3] weight = {1, 2, 3}, float scale = {0.1}, int8 zero = {0}> {
    q = QuantizeLinear(weight, scale, zero)
    d = DequantizeLinear(q, scale, zero)
    y = Mul(x, d)
}"""


PACKED = """<ir_version: 8, opset_import: ["": 17]> g (float[2,16] x) => (float[2,2] y)
<uint8[2,1,8] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
 float[2,1] scale = {0.5, 0.25}> {
    y = com.microsoft.MatMulNBits <K = 16, N = 2, block_size = 16> (x, w, scale)
}"""


def write_models(network: Network, x: Tensor) -> None:
    """The files that the examples open: with folded normalization, tied, quantized, packed."""
    shutil.copy(export_file(network.eval(), (x,), dynamo=False, opset_version=17), "folded.onnx")
    merged = onnx.parser.parse_model(MERGED)
    merged.graph.initializer[0].name = "a.norm.weight"
    for node in merged.graph.node:
        node.input[1] = "a.norm.weight"
    onnx.save(merged, "merged.onnx")
    onnx.save(onnx.parser.parse_model(INT8), "int8.onnx")
    onnx.save(onnx.parser.parse_model(PACKED), "packed.onnx")


def test_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network, x = Network(), torch.randn(4, 3, 8, 8)
    write_models(network, x)
    names = {
        "torch": torch,
        "onnx": onnx,
        "network": network,
        "x": x,
        "calibration_batch": x,
        "OnnxModule": OnnxModule,
        "reinsert_batchnorm": reinsert_batchnorm,
        "replace_head": replace_head,
    }
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 11
    ends: list[OnnxModule] = []
    for block in blocks:
        with expected_warnings(), torch.enable_grad():
            exec(block, names)
        if isinstance(names.get("m"), OnnxModule):
            ends.append(names["m"])
    named, _, headed, merged, adapted, layered, _, normalized, untied, quantized = ends
    assert isinstance(layered.get_submodule("head"), nn.Linear)
    for name, weight in network.named_parameters():
        assert torch.equal(named.get_parameter(name), weight)
    assert headed.weights["head.weight"].shape == (5, 3)
    assert {n for n, w in headed.weights.items() if w.requires_grad} == {"head.weight", "head.bias"}
    assert {n for n, w in merged.weights.items() if w.requires_grad} == {"head.bias"}
    assert torch.equal(
        OnnxModule("tuned.onnx").weights["head.weight"], merged.weights["head.weight"]
    )
    assert {n for n, w in adapted.weights.items() if w.requires_grad} == {"w.lora_A", "w.lora_B"}
    assert [n.op_type for n in onnx.load("float.onnx").graph.node] == ["MatMul"]
    assert len(normalized.train().freeze_statistics()) == 8
    assert len(untied.weights) == 2
    assert {n for n, w in quantized.weights.items() if w.requires_grad} == {"weight", "scale"}

"""Names in the tree that tools which place modules on devices and disks go by."""

from __future__ import annotations

import onnx
import pytest
import torch
from torch import nn

from onnxinterp import OnnxModule
from tests.distributed.network import DEPTH, EXPORTERS, exported, original


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_children_are_those_of_the_original_in_the_order_of_calls(exporter: str) -> None:
    module, network = OnnxModule(exported(exporter)), original()
    assert [n for n, _ in module.named_children()] == [n for n, _ in network.named_children()]
    (kind,) = {type(block).__name__ for block in module.get_submodule("blocks").children()}
    assert kind == {"dynamo": "Block", "torchscript": "Blocks"}[exporter]
    named = [name for name, level in module.named_modules() if type(level).__name__ == kind]
    assert named == [f"blocks.{place}" for place in range(DEPTH)]
    assert type(module.get_submodule("blocks")).__name__ == nn.ModuleList.__name__


def test_a_key_is_a_file_name() -> None:
    """A key with a slash would be a folder to what writes a file for each weight."""
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        g (float[2, 3] x) => (float[2, 3] y) <float[3] w = {1, 2, 3}> { y = Mul(x, w) }""")
    name = "model/dense.0/kernel"
    model.graph.initializer[0].name = model.graph.node[0].input[1] = name
    module, x = OnnxModule(model), torch.randn(2, 3)
    assert list(module.state_dict()) == [module.weights.path(name)] == ["model_dense_0_kernel"]
    module.load_state_dict({name: torch.ones(3)})
    torch.testing.assert_close(module(x), x)

"""torch.fx sees one node for each step, in the module itself and within another one."""

from __future__ import annotations

import onnx
import pytest
import torch
from torch import Tensor, nn

from onnxinterp import OnnxModule

HEADER = '<ir_version: 8, opset_import: ["": 17]>'
NETWORK = f"""{HEADER} g (float[n, 4] x, float[4, 6] w) => (float[n, a, b] y, float[n, 3] p)
<float[6] b = {{1, 2, 3, 4, 5, 6}}, int64[3] parts = {{1, 2, 3}}, int64[1] two = {{2}},
 int64[1] minus = {{-1}}> {{
  m = MatMul(x, w)  h = Add(m, b)  q, r, p = Split<axis = 1>(h, parts)
  n = Shape<end = 1>(x)  s = Concat<axis = 0>(n, two, minus)  y = Reshape(h, s)
}}"""
NORMALIZED = f"""{HEADER} g (float[n, 2] x) => (float[n, 2] y) <float[2] a = {{1, 1}},
float[2] b = {{0, 0}}, float[2] mean = {{0, 0}}, float[2] var = {{1, 1}}>
{{ y = BatchNormalization(x, a, b, mean, var) }}"""


class Around(nn.Module):
    def __init__(self, inner: OnnxModule) -> None:
        super().__init__()
        self.inner = inner
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return self.head(self.inner(x, w=w)[1])


@pytest.fixture
def network() -> OnnxModule:
    return OnnxModule(onnx.parser.parse_model(NETWORK))


def test_each_step_is_a_node(network: OnnxModule) -> None:
    traced = torch.fx.symbolic_trace(network)
    calls = [n.name for n in traced.graph.nodes if n.op == "call_function"]
    assert {"linear_of_columns", "split_13", "shape", "concat", "reshape"} <= set(calls)
    for count in (2, 5):
        x, w = torch.randn(count, 4), torch.randn(4, 6)
        torch.testing.assert_close(traced(x, w), network(x, w), rtol=0, atol=0)


def test_gradients_reach_the_weights_through_a_traced_module(network: OnnxModule) -> None:
    traced = torch.fx.symbolic_trace(network)
    traced(torch.randn(2, 4), torch.randn(4, 6))[0].square().sum().backward()
    grad = traced.get_parameter("b").grad
    assert grad is not None
    assert grad.abs().min() > 0


def test_a_module_around_it_is_traced(network: OnnxModule) -> None:
    around = Around(network)
    x, w = torch.randn(3, 4), torch.randn(4, 6)
    traced = torch.fx.symbolic_trace(around)
    assert [n.target for n in traced.graph.nodes if n.op == "call_module"] == ["head"]
    torch.testing.assert_close(traced(x, w), around(x, w))


def test_updates_of_statistics_are_refused() -> None:
    module = OnnxModule(onnx.parser.parse_model(NORMALIZED))
    x = torch.randn(4, 2)
    torch.testing.assert_close(torch.fx.symbolic_trace(module)(x), module(x))
    with pytest.raises(NotImplementedError, match="eval"):
        torch.fx.symbolic_trace(module.train())

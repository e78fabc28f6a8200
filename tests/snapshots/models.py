"""Small models, and example inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from onnxinterp import OnnxModule
from tests.models import parse

MLP = """
mlp (float[n, 4] x) => (float[n, 2] y)
<float[4, 3] w1 = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, float[3] b1 = {1, -20, 3},
 float[3, 2] w2 = {1, -1, 0.5, 2, -2, 1}, float[2] b2 = {0.5, 0.25}>
{
    h = MatMul(x, w1)
    s = Add(h, b1)
    r = Relu(s)
    z = MatMul(r, w2)
    y = Add(z, b2)
}
"""
TWO_OUTPUTS = """
two (float[n, 4] first_x, int64[n] index) => (float[n, 4] y, int64[n] z)
<float[4] w = {1, 2, 3, 4}, int64[1] one = {1}>
{
    y = Mul(first_x, w)
    z = Add(index, one)
}
"""
FIXED = MLP.replace("float[n,", "float[2,")


def mlp() -> OnnxModule:
    return OnnxModule(parse(MLP))


def two_outputs() -> OnnxModule:
    model = parse(TWO_OUTPUTS)
    model.graph.input[0].name = model.graph.node[0].input[0] = "first.x"  # no identifier
    return OnnxModule(model)


def rows(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))


def right(module: OnnxModule, *inputs: Tensor) -> Tensor:
    """What the module computes."""
    with torch.no_grad():
        result: Tensor = module(*inputs)
    return result

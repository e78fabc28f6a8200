"""Adapters of weights that wrap a module and change one of its parameters while it is called."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from onnxinterp import OnnxModule
from tests.exports.case import Export
from tests.models import parse
from tests.training.exporting import write
from tests.training.networks import ENCODER

HOWS = (Export("dynamo", 18), Export("torchscript", 17))
ADAPTED = ("layers.0.attention.query", "layers.1.intermediate", "pooler")


class Product(nn.Module):
    """A product of small matrices, added to a weight."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(weight.numel())
        rows, columns = weight.shape
        self.down = nn.Parameter(0.1 * torch.randn(2, columns, generator=generator))
        self.up = nn.Parameter(0.1 * torch.randn(rows, 2, generator=generator))

    def forward(self, weight: Tensor) -> Tensor:
        """[rows, columns] -> the same."""
        return weight + self.up @ self.down


class Wrapper(nn.Module):
    """In the place of a module; it has the parametrization only during a call."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.product = Product(inner.get_parameter("weight"))

    def forward(self, *args: Any, **keywords: Any) -> Any:
        """As the module inside."""
        parametrize.register_parametrization(self.inner, "weight", self.product)
        try:
            return self.inner(*args, **keywords)
        finally:
            parametrize.remove_parametrizations(self.inner, "weight", leave_parametrized=False)


def wrap(module: nn.Module, *paths: str) -> list[Wrapper]:
    wrappers = []
    for path in paths:
        around, _, name = path.rpartition(".")
        wrappers.append(Wrapper(module.get_submodule(path)))
        setattr(module.get_submodule(around), name, wrappers[-1])
    return wrappers


@pytest.mark.parametrize("how", HOWS)
def test_wrapped_modules_compute_what_those_of_the_original_do(how: Export) -> None:
    network, (inputs, _) = ENCODER.original().eval(), ENCODER.batch(0)
    module = OnnxModule(write(network, inputs, how))
    before = network(*inputs)
    got, want = wrap(module, *ADAPTED), wrap(network, *ADAPTED)
    torch.testing.assert_close(module(*inputs), network(*inputs), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(network(*inputs), before)
    for model in (module, network):
        model(*inputs).square().sum().backward()
    for mine, other in zip(got, want, strict=True):
        for parameter, wanted in zip(
            mine.product.parameters(), other.product.parameters(), strict=True
        ):
            torch.testing.assert_close(parameter.grad, wanted.grad, rtol=1e-4, atol=1e-5)


def model() -> onnx.ModelProto:
    """The file tells of one node which module it is of, and of another one nothing."""
    proto = parse(
        """g (float[2, 3] x) => (float[2, 4] y)
        <float[4, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}>
        { h = Gemm<transB = 1>(x, w) y = Relu(h) }"""
    )
    proto.graph.initializer[0].name = proto.graph.node[0].input[1] = "fc.weight"
    proto.graph.node[1].name = "/act/Relu"
    return proto


def test_a_wrapper_that_would_change_nothing_is_an_error() -> None:
    module, x = OnnxModule(model()), torch.randn(2, 3)
    want = module(x)
    wrapper = wrap(module, "fc")[0]
    with pytest.raises(
        RuntimeError, match=r"'fc' was replaced by a Wrapper.* would change nothing"
    ):
        module(x)
    module.fc = wrapper.inner
    torch.testing.assert_close(module(x), want)

"""Derivatives by torch.func, torch.fx and AOTInductor take imports as they take written modules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import hessian, jacfwd, jacrev

from onnxinterp import OnnxModule
from tests import exporting
from tests.exports.modules.recurrent import Recurrent


def imported(network: nn.Module, x: Tensor) -> OnnxModule:
    """A network's import, with a free batch."""
    options = {"dynamo": False, "input_names": ["x"], "dynamic_axes": {"x": {0: "n"}}}
    return OnnxModule(exporting.export(network, (x,), opset_version=17, **options)).eval()


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def convolutional() -> nn.Module:
    layers = nn.Conv1d(6, 5, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(20, 3)
    return nn.Sequential(*layers)


NETWORKS = {
    "perceptron": (perceptron, (4,)),
    "convolutional": (convolutional, (6, 4)),
    "LSTM": (lambda: Recurrent(nn.LSTM), (6, 4)),
}


@pytest.mark.filterwarnings("ignore:`torch.jit.script:FutureWarning")  # of torch.func itself
@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")  # of turning oneDNN off
@pytest.mark.parametrize("transform", [jacrev, jacfwd, hessian])
@pytest.mark.parametrize(("network", "shape"), NETWORKS.values(), ids=NETWORKS)
def test_derivatives_are_those_of_the_original(
    transform: Any, network: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    original, row = network().eval(), torch.randn(shape)
    module = imported(original, row[None])
    got = transform(lambda row: module(row[None])[0])(row)
    assert got.abs().max() > 0

    def plain(row: Tensor) -> Tensor:
        return original(row[None])[0]

    with torch.backends.mkldnn.flags(enabled=False):  # mkldnn's layer has no second derivative
        if transform is hessian:
            want = torch.stack(
                [
                    torch.autograd.functional.hessian(lambda row, k=k: plain(row)[k], row)
                    for k in range(3)
                ]
            )
        else:
            want = torch.autograd.functional.jacobian(plain, row)
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-5)


class Tower(nn.Module):
    """An import inside of a written module."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(x).relu())


class KeepsImports(torch.fx.Tracer):
    """Imports are leaves, as layers of torch are."""

    def is_leaf_module(self, m: nn.Module, name: str) -> bool:
        return isinstance(m, OnnxModule) or super().is_leaf_module(m, name)


def test_an_import_is_a_leaf_of_a_symbolic_trace() -> None:
    original, x = perceptron().eval(), torch.randn(3, 4)
    tower = Tower(imported(original, x)).eval()
    graph = KeepsImports().trace(tower)
    assert ("call_module", "inner") in [(node.op, node.target) for node in graph.nodes]
    traced = torch.fx.GraphModule(tower, graph)
    torch.testing.assert_close(traced(x), tower.head(original(x).relu()))
    traced(x).square().sum().backward()
    gradients = [p.grad for p in traced.inner.parameters()]
    assert gradients
    assert all(g is not None and g.abs().max() > 0 for g in gradients)


@pytest.mark.capture  # compiles C++
def test_aot_inductor_compiles_an_import(tmp_path: Path) -> None:
    from torch._inductor import aoti_compile_and_package, aoti_load_package

    original, x = perceptron().eval(), torch.randn(3, 4)
    program = torch.export.export(imported(original, x), (x,))
    package = aoti_compile_and_package(program, package_path=str(tmp_path / "m.pt2"))
    compiled = aoti_load_package(package)
    other = torch.randn(3, 4)
    with torch.no_grad():
        torch.testing.assert_close(compiled(other), original(other))

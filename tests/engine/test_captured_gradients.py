"""Gradients of captured If, Loop and Scan, and what `torch.vmap` does with If.

Gradients are compared with those of eager mode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from onnxinterp import NodeError, OnnxModule
from tests.engine.test_captured_control_flow import (
    CASES,
    LEAVES,
    ROWS,
    WEIGHTS,
    Inputs,
    as_list,
    compiled,
    exported,
    number,
)
from tests.engine.test_control_flow import X, parse

pytestmark = LEAVES
NESTED = "torch's joint graph of a cond around a while_loop, in the body of another, has aliases"


def gradients(module: OnnxModule, function: Callable[..., Any], inputs: Inputs) -> list[Any]:
    """Of a sum in which each element of a result has its own factor, by the inputs and weights."""
    inputs = tuple(x.clone().requires_grad_(x.is_floating_point()) for x in inputs)
    wanted = [x for x in (*inputs, *module.parameters()) if x.requires_grad]
    loss: Any = 0
    for result in as_list(function(*inputs)):
        if result.is_floating_point():
            factors = torch.linspace(0.5, 2, result.numel()).reshape(result.shape)
            loss = loss + (result * factors).square().sum()
    assert loss.requires_grad
    return list(torch.autograd.grad(loss, wanted, allow_unused=True))


@pytest.mark.parametrize(
    ("graph", "calls"),
    [
        pytest.param(*case, id=name, marks=pytest.mark.xfail(strict=True, reason=NESTED))
        if name == "Loop in Loop"
        else pytest.param(*case, id=name)
        for name, case in CASES.items()
    ],
)
def test_compiled_gradients_are_those_of_eager_mode(graph: str, calls: list[Inputs]) -> None:
    """A gradient that does not exist in eager mode is 0: no graph knows which branch will run."""
    module = OnnxModule(parse(graph))
    function = compiled(module, calls)
    seen = []
    for inputs in calls:
        got, want = gradients(module, function, inputs), gradients(module, module, inputs)
        seen += [g for g in want if g is not None and g.any()]
        for g, w in zip(got, want, strict=True):
            torch.testing.assert_close(g, w) if w is not None else _assert_zero(g)
    assert len(seen) >= len(calls)


def _assert_zero(gradient: Tensor | None) -> None:
    assert gradient is None or not gradient.any()


def test_a_count_of_0_or_1_compiles_anew_where_rows_are_kept() -> None:
    """Torch compiles sizes of 0 and 1 apart."""
    module = OnnxModule(parse(ROWS))
    torch.compiler.reset()
    function = torch.compile(module, fullgraph=True, backend="aot_eager")
    for n in (2, 0, 1, 3):
        torch.testing.assert_close(function(number(n), X), module(number(n), X))
        got, want = (
            gradients(module, function, (number(n), X)),
            gradients(module, module, (number(n), X)),
        )
        torch.testing.assert_close(got, want)


FLOATING = ("If with weights", "Loop by a count", "If in Loop", "Loop in Loop")


@pytest.mark.parametrize("name", FLOATING)
def test_an_exported_program_trains(name: str) -> None:
    graph, calls = CASES[name]
    module = OnnxModule(parse(graph))
    program = exported(module, calls)
    for inputs in calls:
        inputs = tuple(x.clone().requires_grad_(x.is_floating_point()) for x in inputs)
        wanted = [x for x in inputs if x.requires_grad]
        both = [
            torch.autograd.grad(
                sum(r.square().sum() for r in as_list(f(*inputs))),
                wanted,
                allow_unused=True,
                materialize_grads=True,
            )
            for f in (program, module)
        ]
        torch.testing.assert_close(*both)


@pytest.mark.parametrize("name", ["If", "If with weights"])
def test_vmap_takes_for_each_sample_its_branch(name: str) -> None:
    graph, calls = CASES[name]
    module = OnnxModule(parse(graph))
    batch = [torch.stack(values) for values in zip(*calls, strict=True)]
    got = as_list(torch.vmap(module)(*batch))
    want = zip(*[as_list(module(*inputs)) for inputs in calls], strict=True)
    torch.testing.assert_close(got, [torch.stack(values) for values in want])


def test_vmap_of_gradients_takes_for_each_sample_its_branch() -> None:
    module = OnnxModule(parse(WEIGHTS))
    parameters = {n: p.detach() for n, p in module.named_parameters()}

    def loss(parameters: dict[str, Tensor], *inputs: Tensor) -> Tensor:
        return torch.func.functional_call(module, parameters, inputs).square().sum()

    conditions = torch.tensor([True, False, True])
    got = torch.vmap(torch.func.grad(loss), (None, 0, None))(parameters, conditions, X)
    for i, condition in enumerate(conditions):
        want = torch.func.grad(loss)(parameters, condition, X)
        torch.testing.assert_close({n: g[i] for n, g in got.items()}, want)
    assert all(g.any() for g in got.values())


def test_vmap_refuses_branches_of_different_shapes() -> None:
    graph = """g (bool c, float[4,3] x) => (y) {
      y = If (c) <
        then_branch = a () => (float[M,K] r) { r = Tanh (x) },
        else_branch = b () => (float[M,K] r) { r = ReduceSum<keepdims = 1>(x) }
      >
    }"""
    module = OnnxModule(parse(graph))
    with pytest.raises(NodeError, match=r"under torch\.vmap.*the same dtypes and shapes"):
        torch.vmap(module, (0, None))(torch.tensor([True, False]), X)

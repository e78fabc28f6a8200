"""Training steps written in ONNX, Gradient and an optimizer in one graph, against torch.optim."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx.parser
import pytest
import torch
from torch import Tensor

from onnxinterp import NodeError, OnnxModule

DOMAIN = "ai.onnx.preview.training"
HEADER = f'<ir_version: 8, opset_import: ["": 21, "{DOMAIN}": 1]>\n'
SHAPES = {"w1": "4,5", "b1": "5", "w2": "5,1", "b2": "1"}

STEP = """step (double r, int64 t, double[8,4] x, double[8,1] target, {inputs})
=> (double loss, {outputs}) {{
  h = MatMul(x, w1) hb = Add(h, b1) a = Tanh(hb)
  o = MatMul(a, w2) y = Add(o, b2)
  e = Sub(y, target) square = Mul(e, e) loss = ReduceMean<keepdims = 0>(square)
  gw1, gb1, gw2, gb2 = {domain}.Gradient<
    xs = ["w1", "b1", "w2", "b2"], zs = ["x", "target"], y = "loss"
  >(w1, b1, w2, b2, x, target)
  {news} = {domain}.{optimizer}(r, t, w1, b1, w2, b2, gw1, gb1, gw2, gb2, {states})
}}"""


def training_step(optimizer: str, states: int) -> OnnxModule:
    """A step: rate, count, data, weights and n states of each in; loss and the new ones out."""
    kept = [f"s{i}{name}" for i in range(states) for name in SHAPES]
    shapes = [*SHAPES.values(), *list(SHAPES.values()) * states]
    typed = [f"double[{s}] {n}" for s, n in zip(shapes, [*SHAPES, *kept], strict=True)]
    news = [f"new_{n}" for n in [*SHAPES, *kept]]
    text = STEP.format(
        domain=DOMAIN,
        optimizer=optimizer,
        inputs=", ".join(typed),
        outputs=", ".join(f"double[{s}] {n}" for s, n in zip(shapes, news, strict=True)),
        news=", ".join(news),
        states=", ".join(kept),
    )
    return OnnxModule(onnx.parser.parse_model(HEADER + text))


def network(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    return (x @ w1 + b1).tanh() @ w2 + b2


RATE = 0.05
CASES: list[tuple[str, int, int, Callable[[list[Tensor]], torch.optim.Optimizer]]] = [
    (
        "Momentum<alpha = 0.75, beta = 1.0, mode = 'standard', norm_coefficient = 0.125>",
        1,
        0,
        lambda p: torch.optim.SGD(p, RATE, momentum=0.75, weight_decay=0.125),
    ),
    (
        "Momentum<alpha = 0.75, beta = 1.0, mode = 'nesterov', norm_coefficient = 0.0>",
        1,
        0,
        lambda p: torch.optim.SGD(p, RATE, momentum=0.75, nesterov=True),
    ),
    (
        "Adam<alpha = 0.5, beta = 0.75, epsilon = 1e-12, norm_coefficient = 0.125>",
        2,
        1,
        lambda p: torch.optim.Adam(p, RATE, (0.5, 0.75), eps=1e-12, weight_decay=0.125),
    ),
    (
        "Adagrad<decay_factor = 0.125, epsilon = 1e-12>",
        1,
        0,
        lambda p: torch.optim.Adagrad(p, RATE, lr_decay=0.125, eps=1e-12),
    ),
]


@pytest.mark.parametrize(("optimizer", "states", "first", "make"), CASES, ids=[c[0] for c in CASES])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_twenty_steps(
    optimizer: str,
    states: int,
    first: int,
    make: Callable[[list[Tensor]], torch.optim.Optimizer],
    compiled: bool,
) -> None:
    """`first` is the count that torch has at its first step."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    step: Any = training_step(optimizer.replace("'", '"'), states)
    if compiled:
        step = torch.compile(step, fullgraph=True, backend="aot_eager")
    x, target = randn(8, 4), randn(8, 1)
    weights = [randn(*map(int, shape.split(","))) for shape in SHAPES.values()]
    held = [*weights, *(torch.zeros_like(w) for _ in range(states) for w in weights)]
    trained = [w.clone().requires_grad_() for w in weights]
    judge, rate = make(trained), torch.tensor(RATE, dtype=torch.float64)
    losses = []
    for t in range(first, first + 20):
        judge.zero_grad()
        want = (network(x, *trained) - target).square().mean()
        want.backward()
        judge.step()
        loss, *held = step(rate, torch.tensor(t), x, target, *held)
        torch.testing.assert_close(loss, want.detach())
        losses.append(float(loss))
    assert losses[-1] < losses[0] / 2
    for got, wanted in zip(held[:4], trained, strict=True):
        torch.testing.assert_close(got, wanted.detach())


ONE = (
    HEADER
    + """g ({rate} r, int64 t, float[2] x, float[2] g, float[2] v, float[2] h)
=> (float[2] xn, float[2] vn, float[2] hn) {{
  xn, vn, hn = {domain}.Adam<epsilon = 0.0>(r, t, x, g, v, h)
}}"""
)


@pytest.mark.parametrize("rate", ["float", "double"])
def test_adam_keeps_the_type_of_its_tensors(rate: str) -> None:
    """Late in training and at the first step, where 1 - beta is all that float32 has to lose."""
    m = OnnxModule(onnx.parser.parse_model(ONE.format(rate=rate, domain=DOMAIN)))
    r = torch.tensor(0.5, dtype=torch.float64 if rate == "double" else torch.float32)
    x, g = torch.tensor([1.0, 2.0]), torch.tensor([0.5, -3.0])
    xn, vn, hn = m(r, torch.tensor(1), x, g, torch.zeros(2), torch.zeros(2))
    torch.testing.assert_close((xn, vn, hn), (x - 0.5 * g.sign(), g / 10, g * g / 1000))
    xn, _, _ = m(r, torch.tensor(0), x, g, torch.zeros(2), torch.zeros(2))
    torch.testing.assert_close(xn, x - 0.5 * 0.1 / 0.001**0.5 * g.sign())
    xn, _, _ = m(r, torch.tensor(100_000), x, g, torch.zeros(2), g * g)
    torch.testing.assert_close(xn, x - 0.05 * g.sign())


def test_groups_of_different_length_are_refused() -> None:
    text = ONE.replace("v, h)", "v, h, x)")
    m = OnnxModule(onnx.parser.parse_model(text.format(rate="float", domain=DOMAIN)))
    with pytest.raises(NodeError) as error:
        m(torch.tensor(0.5), torch.tensor(1), *[torch.ones(2)] * 4)
    assert "inputs must be 4 groups of one length, got 5 tensors" in str(error.value.__cause__)

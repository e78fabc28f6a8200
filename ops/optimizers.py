"""One step of an optimizer: Adagrad, Adam, Momentum (ai.onnx.preview.training).

History: all 1.

The inputs of a step are groups: n tensors, then their n gradients, then n of each state. So are the
outputs: the n new tensors, then n of each new state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call, draw_reals

DOMAIN = "ai.onnx.preview.training"


@op("Adagrad", since=1, domain=DOMAIN, data_shaped=False)
def adagrad(
    R: Tensor,
    T: Tensor,
    *inputs: Tensor,
    decay_factor: float = 0.0,
    epsilon: float = 1e-6,
    norm_coefficient: float = 0.0,
) -> tuple[Tensor, ...]:
    rate = R / (1 + T.to(R.dtype) * decay_factor)
    steps = []
    for x, gradient, squares in _groups(inputs, 3):
        g = norm_coefficient * x + gradient
        h = squares + g * g
        steps.append((x - rate.to(x.dtype) * g / (h.sqrt() + epsilon), h))
    return _by_group(steps)


@op("Adam", since=1, domain=DOMAIN, data_shaped=False)
def adam(
    R: Tensor,
    T: Tensor,
    *inputs: Tensor,
    alpha: float = 0.9,
    beta: float = 0.999,
    epsilon: float = 1e-6,
    norm_coefficient: float = 0.0,
    norm_coefficient_post: float = 0.0,
) -> tuple[Tensor, ...]:
    """The averages, which begin at zero, are not corrected for this if T = 0."""
    t = T.clamp(min=1).double()  # float32 cannot hold the difference of beta**t and 1
    correction = (1 - beta**t).sqrt() / (1 - alpha**t)
    rate = R * correction.where(T > 0, 1)
    steps = []
    for x, gradient, average, squares in _groups(inputs, 4):
        g = norm_coefficient * x + gradient
        v = alpha * average + (1 - alpha) * g
        h = beta * squares + (1 - beta) * g * g
        moved = x - rate.to(x.dtype) * v / (h.sqrt() + epsilon)
        steps.append(((1 - norm_coefficient_post) * moved, v, h))
    return _by_group(steps)


@op("Momentum", since=1, domain=DOMAIN, data_shaped=False)
def momentum(
    R: Tensor,
    T: Tensor,
    *inputs: Tensor,
    alpha: float,
    beta: float,
    mode: str,
    norm_coefficient: float,
) -> tuple[Tensor, ...]:
    """The first step, T = 0, uses the whole gradient for each `beta`."""
    if mode not in ("standard", "nesterov"):
        raise ValueError(f"mode must be standard or nesterov, got {mode!r}")
    steps = []
    for x, gradient, velocity in _groups(inputs, 3):
        g = norm_coefficient * x + gradient
        v = alpha * velocity + torch.where(T > 0, beta * g, g)
        direction = g + alpha * v if mode == "nesterov" else v
        steps.append((x - R.to(x.dtype) * direction, v))
    return _by_group(steps)


def _groups(inputs: tuple[Tensor, ...], groups: int) -> Iterable[tuple[Tensor, ...]]:
    """Rows of a tensor, its gradient and its states."""
    n, rest = divmod(len(inputs), groups)
    if rest:
        raise ValueError(f"inputs must be {groups} groups of one length, got {len(inputs)} tensors")
    return zip(*(inputs[i * n : (i + 1) * n] for i in range(groups)), strict=True)


def _by_group(steps: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """The outputs in the order of the specification, from the results for each tensor."""
    return tuple(tensor for group in zip(*steps, strict=True) for tensor in group)


def _draw_groups(d: Draw, n: int, states: int) -> list[Tensor]:
    """The inputs for n tensors: rate, count, tensors, gradients, states.

    The rate has their type: for another one the reference evaluator returns the wider type.
    """
    shapes = [d.shape() for _ in range(n)]
    rate, count = d.tensor((), "T3", lo=0, hi=1), d.ints((), 0, 5)
    groups = [d.tensor(s, "T3") for _ in range(2) for s in shapes]
    return [
        rate,
        count,
        *groups,
        *(d.tensor(s, "T3", lo=0.5) for _ in range(states) for s in shapes),
    ]


@sample(adagrad)
def _(d: Draw) -> Call:
    n = d.integer(1, 3)
    return call(
        *_draw_groups(d, n, 1),
        **draw_reals(d, decay_factor=(0, 1), epsilon=(0, 0.5), norm_coefficient=(0, 1)),
        outputs=2 * n,
    )


@sample(adam)
def _(d: Draw) -> Call:
    """The reference evaluator is the only oracle: float64 for one tensor, float32 for more."""
    n = 1 if d.dtype("T3") is torch.float64 else d.integer(2, 3)
    return call(
        *_draw_groups(d, n, 2),
        **draw_reals(d, alpha=(0, 0.875), beta=(0, 0.875), epsilon=(0, 0.5)),
        **draw_reals(d, norm_coefficient=(0, 1), norm_coefficient_post=(0, 1)),
        outputs=3 * n,
    )


@sample(momentum)
def _(d: Draw) -> Call:
    n = d.integer(1, 3)
    return call(
        *_draw_groups(d, n, 1),
        alpha=d.real(0, 1),
        beta=d.real(0, 1),
        mode=d.choice(["standard", "nesterov"]),
        norm_coefficient=d.real(0, 1),
        outputs=2 * n,
    )

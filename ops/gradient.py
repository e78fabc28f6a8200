"""Gradient of a value with respect to others of the same graph (ai.onnx.preview.training).

History: 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Host, Subgraph


@op(
    "Gradient",
    since=1,
    domain="ai.onnx.preview.training",
    subgraph_of={"y": ("xs", "zs")},
    data_shaped=False,
    any_type=True,
)
def gradient(
    *Inputs: Tensor,
    xs: list[str],
    y: Subgraph,
    zs: list[str] | None = None,
    device: torch.device,
) -> tuple[Tensor, ...]:
    """The gradient of the sum of `y`; 0 if `y` does not depend on x.

    The part of the graph that computes `y` runs again with the inputs.
    """
    del zs
    x, z = Inputs[: len(xs)], Inputs[len(xs) :]

    def function(*x: Tensor) -> Tensor:
        (value,) = y(*x, *z)
        return value.tensor(device) if isinstance(value, Host) else value

    return _gradient_of_sum(function, x)


def _gradient_of_sum(function: Callable[..., Tensor], x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The gradient, itself differentiable if the caller needs it, in each mode of torch."""
    if torch.compiler.is_exporting():  # tensors of torch.func would become constants
        with torch.enable_grad():
            here = [value.view_as(value).requires_grad_() for value in x]
            y = function(*here)
            return torch.autograd.grad(
                y, here, torch.ones_like(y), create_graph=True, materialize_grads=True
            )
    if not torch.compiler.is_compiling() and torch.is_inference_mode_enabled():
        # torch.func of torch 2.11 returns zeros in this mode
        with torch.inference_mode(False), torch.no_grad():
            return _gradient_of_sum(function, x)
    y, pull_back = torch.func.vjp(function, *x)[:2]
    gradients: tuple[Tensor, ...] = pull_back(torch.ones_like(y))
    return gradients


@sample(gradient)
def _(d: Draw) -> Call:
    """In a graph of one node the only values are its inputs."""
    inputs = [d.tensor(d.shape(), "T2") for _ in range(d.integer(1, 3))]
    names = [f"x{i}" for i in range(len(inputs))]
    n = d.integer(1, len(inputs))
    return call(*inputs, xs=names[:n], zs=names[n:] or None, y=d.choice(names), outputs=n)

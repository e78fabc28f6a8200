"""Which weights of a model must get a gradient: those that reach an output through numbers.

Found without autograd: a weight has an influence when noise on it changes a floating output.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from onnxinterp import OnnxModule

CALLS_UNTIL_PROGRAM = 3
NOISE = 0.3  # of a weight's root mean square, so that it also crosses steps and bounds


def floating_outputs(module: OnnxModule, arguments: tuple[Tensor, ...]) -> list[Tensor]:
    """The floating tensors among the outputs, those in sequences included."""
    outputs = module(*arguments)
    return [t for t in _flat(outputs) if t.is_floating_point()]


def _flat(value: Any) -> list[Tensor]:
    if isinstance(value, (tuple, list)):
        return [t for v in value for t in _flat(v)]
    return [value] if isinstance(value, Tensor) else []


def influences(module: OnnxModule, name: str, arguments: tuple[Tensor, ...]) -> bool:
    """Whether noise on a weight changes a floating output."""
    weight = module.weights[name]
    before, generator = weight.detach().clone(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        wanted = floating_outputs(module, arguments)
        scale = NOISE * before.double().square().mean().sqrt().clamp(min=1e-2)
        noise = torch.randn(weight.shape, generator=generator)
        weight.add_((scale * noise).to(weight.dtype))
        try:
            found = floating_outputs(module, arguments)
        finally:
            weight.copy_(before)
    return not all(torch.equal(f, w) for f, w in zip(found, wanted, strict=True))


def without_gradient(module: OnnxModule, arguments: tuple[Tensor, ...]) -> list[str]:
    """Weights that train, get no gradient or one of zeros, and have an influence even so."""
    outputs = floating_outputs(module, arguments)
    differentiable = [o for o in outputs if o.requires_grad]
    generator = torch.Generator().manual_seed(1)
    cotangents = [torch.randn(o.shape, generator=generator).to(o.dtype) for o in differentiable]
    module.zero_grad()
    torch.autograd.backward(differentiable, cotangents)
    silent = [
        name
        for name, weight in module.weights.items()
        if weight.requires_grad and (weight.grad is None or not bool(weight.grad.any()))
    ]
    module.zero_grad()
    with torch.no_grad():  # later calls run one program, whose sums are all in the same order
        for _ in range(CALLS_UNTIL_PROGRAM if silent else 0):
            module(*arguments)
    return [name for name in silent if influences(module, name, arguments)]

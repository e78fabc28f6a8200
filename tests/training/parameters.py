"""What holds for the parameters of every export: the network has them, and they can learn."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from onnxinterp import OnnxModule
from tests.exports.test_gradients import backward


def check_parameters(
    network: nn.Module,
    module: OnnxModule,
    inputs: tuple[Tensor, ...],
    folded: Sequence[str] = (),
    fills: bool = False,
) -> None:
    """Each parameter is made of the network's, is finite, and gets a gradient.

    Exporters rename, transpose, join and copy parameters, but the elements stay: those of the
    networks are random, so that none is found by chance.

    Args:
        network: the original.
        module: its import.
        inputs: of one call.
        folded: patterns of the parameters that the exporter may multiply into others: at most as
            many products may stand in their place.
        fills: whether initializers that repeat one number may be parameters, too: the newer
            exporter stores the constants of a decomposed GroupNorm as it stores weights.
    """
    original = dict(network.named_parameters())
    elements = torch.cat([p.detach().flatten() for p in original.values()]).unique()
    found = torch.zeros_like(elements, dtype=torch.bool)
    others: list[str] = []
    for name, weight in trained(module).items():
        assert torch.isfinite(weight).all(), name
        flat = weight.detach().flatten()
        index = torch.searchsorted(elements, flat).clamp(max=len(elements) - 1)
        if torch.equal(elements[index], flat):
            found[index] = True
        elif not fills or len(flat.unique()) > 1:
            others.append(name)
    products = [
        name
        for name, p in original.items()
        if not found[torch.searchsorted(elements, p.detach().flatten())].all()
        and any(fnmatch.fnmatch(name, pattern) for pattern in folded)
    ]
    assert len(others) <= len(products), (others, products)
    backward(module, inputs)
    for name, weight in trained(module).items():
        assert weight.grad is not None, name
        assert weight.grad.any(), name


def trained(module: OnnxModule) -> dict[str, Tensor]:
    """The parameters by their ONNX names."""
    return {n: w for n, w in module.weights.items() if isinstance(w, nn.Parameter)}

"""The gradients of the imported weights are those of the network's own parameters.

Exporters rename, transpose, reorder (the gates of an LSTM), join and copy (tied) weights. The
values are random, hence their own names: the gradient of an element of the network is compared
with the sum of the gradients of all imported elements of the same value. An imported weight counts
when all its values are the network's, so that none is matched by chance; the parameters that are
then found nowhere must be those that an exporter is known to fold into others.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tests.exports.conftest import Subject


def backward(module: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Send one fixed random cotangent back through every floating output."""
    outputs = module(*inputs)
    outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
    floating = [output for output in outputs if output.is_floating_point()]
    generator = torch.Generator().manual_seed(7)
    torch.autograd.backward(
        floating, [torch.randn(output.shape, generator=generator) for output in floating]
    )


def gradient(parameter: Tensor) -> Tensor:
    """Return the gradient, flat; zeros where none arrived."""
    arrived = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return arrived.flatten()


def test_gradients_equal_the_networks(subject: Subject) -> None:
    case, network, module = subject.case, subject.case.module(), subject.module()
    inputs = case.arguments(case.sizes[0])
    backward(network, inputs)
    backward(module, inputs)
    parameters = dict(network.named_parameters())
    elements = torch.cat([p.detach().flatten() for p in parameters.values()])
    values, place, count = torch.unique(elements, return_inverse=True, return_counts=True)
    want = torch.cat([gradient(p) for p in parameters.values()])

    sums, found = torch.zeros_like(values), torch.zeros_like(values, dtype=torch.bool)
    for weight in module.weights.values():
        if not weight.is_floating_point():
            continue
        flat = weight.detach().flatten()
        index = torch.searchsorted(values, flat).clamp(max=len(values) - 1)
        if torch.equal(values[index], flat):
            sums.index_add_(0, index, gradient(weight))
            found[index] = True

    sizes = [p.numel() for p in parameters.values()]
    shares = zip(parameters, found[place].split(sizes), strict=True)
    missing = [name for name, share in shares if not share.all()]
    folded = [name for pattern in case.folded for name in fnmatch.filter(missing, pattern)]
    assert sorted(missing) == sorted(folded)
    compared = found[place] & (count == 1)[place]
    largest = float(want.abs().max())
    torch.testing.assert_close(
        sums[place][compared], want[compared], rtol=1e-4, atol=1e-6 * largest
    )

"""Random weights that keep activations near unit variance.

The default initialisation shrinks a signal layer by layer; a network with outputs near zero would
pass any absolute tolerance, whatever its importer got wrong.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def _values(owner: nn.Module, weight: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(weight.shape, generator=generator)
    if isinstance(owner, nn.Embedding):
        return noise
    if weight.ndim == 1:
        return 0.1 * noise
    incoming = weight.shape[0] if isinstance(owner, nn.ConvTranspose2d) else weight[0].numel()
    gain = 4.0 if isinstance(owner, nn.LSTM) else 1.0  # its gates and tanh shrink every state
    return gain * noise / math.sqrt(incoming)


def seed_weights(network: nn.Module, seed: int = 0) -> None:
    """Draw every parameter and every running statistic of `network` anew, in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for owner in network.modules():
            for name, weight in owner.named_parameters(recurse=False):
                centre = 1.0 if weight.ndim == 1 and name == "weight" else 0.0  # scale of a norm
                weight.copy_(centre + _values(owner, weight, generator))
            for name, statistic in owner.named_buffers(recurse=False):
                if name == "running_mean":
                    statistic.copy_(0.1 * torch.randn(statistic.shape, generator=generator))
                elif name == "running_var":
                    statistic.copy_(0.5 + torch.rand(statistic.shape, generator=generator))

"""Copies of a network that are no longer the original: the checks must notice."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from tests.citizen.networks import blocks, layers


def noise(original: nn.Module) -> nn.Module:
    """10 % noise on every weight of one linear layer or convolution."""
    changed = copy.deepcopy(original)
    noisy = layers(original, nn.Linear, nn.Conv2d)[0]
    weight = changed.get_submodule(noisy).weight
    with torch.no_grad():
        weight.mul_(1 + 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(9)))
    return changed


def renamed(original: nn.Module) -> nn.Module:
    """One layer under another name in its parent, which calls it as before."""
    changed = copy.deepcopy(original)
    name = next(n for n in layers(original, nn.Linear) if not n.rpartition(".")[2].isdigit())
    parent_name, _, leaf = name.rpartition(".")
    parent = changed.get_submodule(parent_name)
    child = parent._modules[leaf]
    parent._modules = {k + "_" * (k == leaf): v for k, v in parent._modules.items()}
    parent.__dict__[leaf] = child
    return changed


def unknown(original: nn.Module) -> nn.Module:
    """A constant hangs at the root."""
    changed = copy.deepcopy(original)
    changed.register_buffer("constant", torch.ones(1), persistent=False)
    return changed


def shadow(original: nn.Module) -> nn.Module:
    """The tree has the weights and is never called: hooks and what is put into it do nothing."""
    changed, hidden = copy.deepcopy(original), copy.deepcopy(original)
    for name, module in hidden.named_modules():
        module._parameters = changed.get_submodule(name)._parameters
        module._buffers = changed.get_submodule(name)._buffers
    changed.forward = hidden.forward  # type: ignore[method-assign]
    return changed


def untyped(original: nn.Module) -> nn.Module:
    """Modules that do the same and are none of torch's classes."""
    changed = copy.deepcopy(original)
    for module in [*changed.modules()][1:]:
        bases = [b for b in reversed(type(module).__mro__) if b not in nn.Module.__mro__]
        body = {key: value for base in bases for key, value in vars(base).items()}
        module.__class__ = type("Level", (nn.Module,), body)
    return changed


def detached(original: nn.Module) -> nn.Module:
    """No gradient reaches what comes before the last block."""
    changed = copy.deepcopy(original)
    last = changed.get_submodule(blocks(original)[-1])
    last.register_forward_pre_hook(_detach)
    return changed


def _detach(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0].detach(), *inputs[1:])


CHANGES = {f.__name__: f for f in (noise, renamed, unknown, shadow, untyped, detached)}

"""Weights that `torch.nn.utils.parametrize` computes: the parameters they come from, and copies.

torch gives the level that holds such a weight a class of its own, with a property in place of the
weight. It does not pickle that class, and a deep copy shares it: removing the parametrization of
either would break the other. `make_copyable` changes both.
"""

from __future__ import annotations

from typing import Any, SupportsIndex

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrize import ParametrizationList

from onnxinterp.weights.lora import LoRA


def parametrizations_of(holder: nn.Module, attribute: str) -> ParametrizationList | None:
    """The parametrizations of a weight, with what it is computed from; None if it has none."""
    found = holder._modules.get("parametrizations")
    if not isinstance(found, nn.ModuleDict) or attribute not in found:
        return None
    listed = found[attribute]
    return listed if isinstance(listed, ParametrizationList) else None


def adapter_of(holder: nn.Module, attribute: str) -> LoRA | None:
    """The LoRA adapter of a weight."""
    listed = parametrizations_of(holder, attribute)
    return None if listed is None else next((p for p in listed if isinstance(p, LoRA)), None)


def parameters_of(holder: nn.Module, attribute: str) -> tuple[nn.Parameter, ...]:
    """The parameters that train a weight; none if it is a buffer.

    They are the weight itself, or all from which parametrizations compute it. Of a weight with a
    LoRA adapter they are those of the adapter: what it is added to stays frozen.
    """
    plain = holder._parameters.get(attribute)
    if isinstance(plain, nn.Parameter):
        return (plain,)
    listed = adapter_of(holder, attribute) or parametrizations_of(holder, attribute)
    return () if listed is None else tuple(listed.parameters())


def check_can_parametrize(holder: nn.Module, attribute: str, name: str) -> None:
    """Check that a parameter can get its first parametrization.

    Raises:
        ValueError: it has one, or torch would replace an attribute or a level of that name.
    """
    if parametrizations_of(holder, attribute) is not None:
        raise ValueError(f"names must match weights without a parametrization, got {name!r}")
    level = holder._modules.get("parametrizations")
    if hasattr(type(holder), attribute) or not isinstance(level, nn.ModuleDict | None):
        raise ValueError(f"names must match weights that torch can parametrize, got {name!r}")


def merge_state(module: nn.Module, state: dict[str, Any]) -> None:
    """Replace the entries of each parametrized weight in a state dict by its current value."""
    for prefix, level in module.named_modules():
        place = f"{prefix}." if prefix else ""
        found = level._modules.get("parametrizations")
        for name, listed in found.items() if isinstance(found, nn.ModuleDict) else ():
            own = f"{place}parametrizations.{name}."
            for key in [key for key in state if key.startswith(own)]:
                del state[key]
            state[place + name] = listed().detach()


def make_copyable(level: nn.Module) -> None:
    """Allow pickling of a level with parametrized weights; each copy gets a class of its own."""
    kind = type(level)
    for method in ("__getstate__", "__deepcopy__"):
        if method in vars(kind):
            delattr(kind, method)
    kind.__reduce_ex__ = _reduce  # type: ignore[assignment, method-assign]


def _reduce(level: nn.Module, protocol: SupportsIndex) -> tuple[Any, ...]:
    names = tuple(level.parametrizations)  # type: ignore[arg-type]  # the ModuleDict of torch
    base = parametrize.type_before_parametrizations(level)
    state = object.__reduce_ex__(level, protocol)[2]
    return _empty_level, (base, names), state


def _empty_level(base: type[nn.Module], names: tuple[str, ...]) -> nn.Module:
    """A level of a class with these properties, for a state that has the parametrizations."""
    level = base.__new__(base)
    nn.Module.__init__(level)
    for name in names:
        level.register_buffer(name, torch.empty(0))
        parametrize.register_parametrization(level, name, nn.Identity())
    make_copyable(level)
    return level

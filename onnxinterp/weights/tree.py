"""The modules between an `OnnxModule` and its weights: the tree that torch's tools walk."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from torch import Tensor, nn

RESERVED = frozenset({*(name.rstrip("_") for name in dir(nn.Module())), "training", ""})
"""Names that every module uses itself, without underscores at their end."""


class Level(nn.Module):
    """A module that holds weights and other levels."""


def level_at(root: nn.Module, path: Iterable[str]) -> nn.Module:
    """The module at a path below `root`."""
    level = root
    for part in path:
        level = cast("nn.Module", level._modules[part])
    return level


def escape(part: str, reserved: frozenset[str] = RESERVED) -> str:
    """`half` -> `half_`, `half_` -> `half__`: different from names that need no escape.

    NUL becomes an underscore: the guards of torch.compile cannot contain it.
    """
    part = part.replace("\0", "_")
    return part + "_" if part.rstrip("_") in reserved else part


def register(level: nn.Module, kind: str, name: str, value: Any, **keywords: Any) -> None:
    """Register a "parameter", "buffer" or "module" as torch does, so that torch's hooks see it."""
    getattr(level, f"register_{kind}")(name, value, **keywords)


def read_weight(holder: nn.Module, attribute: str) -> Tensor:
    """The current value of a weight: a parameter, a buffer, or the result of a parametrization."""
    found: Tensor | None = holder._parameters.get(attribute)
    if found is None:
        found = holder._buffers.get(attribute)
    return cast("Tensor", getattr(holder, attribute)) if found is None else found

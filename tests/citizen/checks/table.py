"""The rows of the report: a check is a function of the original, the import and the inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from torch import nn

from tests.citizen.checks.comparing import Inputs

GROUPS = ("names", "hooks", "scale-out", "adapters", "training")
LEAVES: Mapping[str, Any] = {"leaves": "nn"}
"""Options of OnnxModule with which single layers are torch's own modules."""

Check = Callable[[nn.Module, nn.Module, Inputs], None]


@dataclass(frozen=True)
class Row:
    """A check.

    Attributes:
        group: one of GROUPS.
        name: of the tool or the use.
        check: raises where the second module does not do as the first. It may change both.
        package: that it needs beside torch, "" if none.
        options: with which the import is made.
        notices: what changes of a copy must make it fail (see changes.py).
        only: whether it means something for a network.
    """

    group: str
    name: str
    check: Check
    package: str
    notices: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    only: Callable[[nn.Module], bool] = lambda _: True

    @property
    def is_installed(self) -> bool:
        """Whether the package that it needs can be imported."""
        return not self.package or find_spec(self.package) is not None


ROWS: dict[str, Row] = {}


def row(
    group: str,
    name: str,
    *notices: str,
    package: str = "",
    options: Mapping[str, Any] | None = None,
    only: Callable[[nn.Module], bool] = lambda _: True,
) -> Callable[[Check], Check]:
    """Register a check."""

    def register(check: Check) -> Check:
        if group not in GROUPS or name in ROWS:
            raise ValueError(f"a row must have a group and a name of its own, got {group}, {name}")
        ROWS[name] = Row(group, name, check, package, notices, options or {}, only)
        return check

    return register

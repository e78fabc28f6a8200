"""All checks, by the name of their row."""

from tests.citizen.checks import adapters, hooks, names, scale, training
from tests.citizen.checks.table import GROUPS, ROWS, Row

__all__ = ["GROUPS", "ROWS", "Row", "adapters", "hooks", "names", "scale", "training"]

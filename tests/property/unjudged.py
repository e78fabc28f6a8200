"""The element types that no oracle answers for, and those that we refuse: unjudged.txt."""

from __future__ import annotations

from pathlib import Path


def _read() -> dict[tuple[str, str], str]:
    lines = Path(__file__).with_name("unjudged.txt").read_text().splitlines()
    cells = [line.split(" | ") for line in lines if line and not line.startswith("#")]
    return {(operator, cell): how for operator, cell, how, _why in cells}


UNJUDGED = _read()
"""(operator-version, parameter=type) -> "unjudged" or "refused"."""

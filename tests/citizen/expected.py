"""The reader and writer of expected.txt: `check | column | reason`, a line for each red cell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

FILE = Path(__file__).with_name("expected.txt")
HEAD = """\
# check | column | reason
#
# The red cells of docs/citizenship.md. Written by `python -m tests.citizen.report`; do not edit.
"""

Cell = tuple[str, str]


def read() -> dict[Cell, str]:
    """Reasons by check and column."""
    cells = {}
    for line in FILE.read_text().splitlines():
        if line and not line.startswith("#"):
            check, column, reason = (field.strip() for field in line.split(" | "))
            cells[check, column] = reason
    return cells


def write(cells: Mapping[Cell, str]) -> None:
    """Replace the file."""
    lines = [f"{check} | {column} | {reason}\n" for (check, column), reason in cells.items()]
    FILE.write_text(HEAD + "".join(lines))

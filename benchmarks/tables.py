"""Results as tables with a title and a note, in Markdown or JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Table:
    """Rows of numbers and strings; `note` says what was measured, and the target."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float, ...], ...]

    def markdown(self) -> str:
        """Return heading, note and table, aligned for reading as plain text."""
        cells = [self.columns, *(tuple(_format(cell) for cell in row) for row in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        head, *body = (_line(row, widths) for row in cells)
        rule = "|".join(["", "-" * (widths[0] + 2), *("-" * (w + 1) + ":" for w in widths[1:]), ""])
        return "\n".join([f"## {self.title}", "", self.note, "", head, rule, *body, ""])


def _format(cell: str | float) -> str:
    return cell if isinstance(cell, str) else f"{cell:,.2f}" if cell < 100 else f"{cell:,.0f}"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (
        f"{cell:<{width}}" if i == 0 else f"{cell:>{width}}"
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return f"| {' | '.join([first, *others])} |"


def write_json(path: Path, tables: Sequence[Table]) -> None:
    path.write_text(json.dumps([asdict(table) for table in tables], indent=1) + "\n")


def main(*measures: Callable[[], Table]) -> None:
    """Run one benchmark from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the table as JSON")
    options = parser.parse_args()
    tables = []
    for measure in measures:
        tables.append(measure())
        print(tables[-1].markdown())
    if options.json:
        write_json(options.json, tables)

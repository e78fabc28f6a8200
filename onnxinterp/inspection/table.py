"""Tables of untrusted names, as text and as HTML: bounded and escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import islice

from onnxinterp.errors import plain

MAX_ROWS = 1000
MAX_CELL_BYTES = 200
STYLE = "text-align: left; white-space: pre; font-family: monospace"


def text(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], totals: str) -> str:
    """A table whose columns from the third one hold numbers, aligned to the right."""
    shown, more = _first(rows)
    lines = [tuple(columns), *shown]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    lines.insert(1, tuple("-" * width for width in widths))
    drawn = [
        "  ".join(
            cell.rjust(width) if i > 1 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([plain(title, MAX_CELL_BYTES), *drawn, *more, totals])


def html(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], totals: str) -> str:
    """The same as an HTML table."""
    shown, more = _first(rows)
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f'<td style="{STYLE}">{escape(cell)}</td>' for cell in row) + "</tr>"
        for row in shown
    )
    caption = escape(plain(title, MAX_CELL_BYTES))
    below = "".join(f"<p>{escape(line)}</p>" for line in (*more, totals))
    return f"<table><caption>{caption}</caption><tr>{head}</tr>{body}</table>{below}"


def preformatted(lines: str) -> str:
    """Lines as they are, in HTML."""
    return f"<pre>{escape(lines)}</pre>"


def _first(rows: Iterable[Sequence[str]]) -> tuple[list[tuple[str, ...]], list[str]]:
    """The first rows, escaped and cut, and a line about the others."""
    rest = iter(rows)
    shown = [tuple(plain(c, MAX_CELL_BYTES) for c in row) for row in islice(rest, MAX_ROWS)]
    more = sum(1 for _ in rest)
    return shown, [f"... {more:,} more rows"] if more else []

"""All printing of the command line: tables, progress, remarks.

With rich installed and a terminal to print to, they are drawn; otherwise they are plain text that
reads well in a log and in a pipe.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from onnxinterp.errors import plain
from onnxinterp.training.loop import Advance

LONGEST_CELL = 200  # bytes


def fancy(stream: TextIO | None = None) -> bool:
    """Whether to draw: rich is installed and `stream` (stdout by default) is a terminal."""
    stream = stream or sys.stdout
    return stream is not None and stream.isatty() and importlib.util.find_spec("rich") is not None


def say(*lines: str) -> None:
    """Print lines, or an empty one: names of a model are no markup, and break no line."""
    print("\n".join(map(plain, lines)))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; columns whose values are all numbers align right."""
    title, cells = plain(title), [[plain(c, LONGEST_CELL) for c in row] for row in rows]
    right = [bool(cells) and all(_is_number(row[i]) for row in cells) for i in range(len(columns))]
    (_drawn if fancy() else _plain)(title, columns, cells, right)


def _is_number(cell: str) -> bool:
    bare = cell.rstrip("%").replace(",", "")
    try:
        float(bare or "0")
    except ValueError:
        return False
    return True


def _plain(
    title: str, columns: Sequence[str], cells: list[list[str]], right: Sequence[bool]
) -> None:
    lines = [list(columns), *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    lines[:1] = [lines[0], ["-" * w for w in widths]] if any(columns) else []
    print(title)
    for line in lines:
        padded = [
            cell.rjust(w) if r else cell.ljust(w)
            for cell, w, r in zip(line, widths, right, strict=True)
        ]
        print("  " + "  ".join(padded).rstrip())
    print()


def _drawn(
    title: str, columns: Sequence[str], cells: list[list[str]], right: Sequence[bool]
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(
        title=Text(title), title_justify="left", title_style="bold", show_header=any(columns)
    )
    for column, r in zip(columns, right, strict=True):
        drawn.add_column(Text(column), justify="right" if r else "left", overflow="fold")
    for row in cells:
        drawn.add_row(*map(Text, row))
    Console().print(drawn)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table in Markdown."""
    for row in (columns, ["---"] * len(columns), *rows):
        print("| " + " | ".join(plain(c, LONGEST_CELL).replace("|", "\\|") for c in row) + " |")


@contextmanager
def progress(title: str, total: int) -> Iterator[Advance]:
    """Show how far a loop of `total` rounds is: call what it yields once a round, with a remark."""
    with _bar(title, total) if fancy() else _quarters(title, total) as advance:
        yield advance


@contextmanager
def _quarters(title: str, total: int) -> Iterator[Advance]:
    done = 0

    def advance(remark: str) -> None:
        nonlocal done
        done += 1
        if done * 4 // total > (done - 1) * 4 // total:
            print(f"{title} {100 * done // total:3d} %  {remark}".rstrip(), flush=True)

    yield advance


@contextmanager
def _bar(title: str, total: int) -> Iterator[Advance]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(title), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[r]}"))
    with Progress(*columns) as bar:
        task = bar.add_task(title, total=total, r="")
        yield lambda remark: bar.update(task, advance=1, r=remark)


def bytes_text(count: int) -> str:
    """A file size for people: 31.0 kB, 2.5 GB."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{int(size)} B" if units[0] == "B" else f"{size:.1f} {units[0]}"


def percentages(before: float, after: float) -> tuple[str, str, str]:
    """Two parts of a whole, and their difference: 10.0%, 95.0%, +85.0%."""
    return f"{before:.1%}", f"{after:.1%}", f"{after - before:+.1%}"

"""All output of the command line: tables, progress, messages.

If rich is installed and stdout is a terminal, rich draws them. Otherwise they are plain text, which
also suits logs and pipes.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from onnxinterp.errors import plain
from onnxinterp.training.loop import Advance

MAX_CELL_BYTES = 200


def uses_rich() -> bool:
    """Whether rich is installed and stdout is a terminal."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return is_terminal and importlib.util.find_spec("rich") is not None


def say(*lines: str) -> None:
    """Print lines, or an empty line; names from a model are escaped."""
    print("\n".join(map(plain, lines)))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; columns that contain only numbers are right-aligned."""
    title, cells = plain(title), [[plain(c, MAX_CELL_BYTES) for c in row] for row in rows]
    right = [bool(cells) and all(_is_number(row[i]) for row in cells) for i in range(len(columns))]
    (_print_rich if uses_rich() else _print_plain)(title, columns, cells, right)


def _is_number(cell: str) -> bool:
    bare = cell.rstrip("%").replace(",", "")
    try:
        float(bare or "0")
    except ValueError:
        return False
    return True


def _print_plain(
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


def _print_rich(
    title: str, columns: Sequence[str], cells: list[list[str]], right: Sequence[bool]
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(
        title=Text(title), title_justify="left", title_style="bold", show_header=any(columns)
    )
    for column, r in zip(columns, right, strict=True):
        grid.add_column(Text(column), justify="right" if r else "left", overflow="fold")
    for row in cells:
        grid.add_row(*map(Text, row))
    Console().print(grid)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table in Markdown."""
    for row in (columns, ["---"] * len(columns), *rows):
        print("| " + " | ".join(plain(c, MAX_CELL_BYTES).replace("|", "\\|") for c in row) + " |")


def progress(title: str, total: int) -> AbstractContextManager[Advance]:
    """Show the progress of a loop: call the yielded function once per iteration, with a message."""
    return _bar(title, total) if uses_rich() else _lines(title, total)


@contextmanager
def _lines(title: str, total: int) -> Iterator[Advance]:
    """Print a line after each quarter of the iterations."""
    done = 0

    def advance(message: str) -> None:
        nonlocal done
        done += 1
        if done * 4 // total > (done - 1) * 4 // total:
            print(f"{title} {100 * done // total:3d} %  {message}".rstrip(), flush=True)

    yield advance


@contextmanager
def _bar(title: str, total: int) -> Iterator[Advance]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    note = TextColumn("{task.description}")
    columns = (TextColumn(title), BarColumn(), TimeElapsedColumn(), note)
    with Progress(*columns) as bar:
        task = bar.add_task("", total=total)
        yield lambda message: bar.update(task, advance=1, description=message)


def format_bytes(count: int) -> str:
    """Format a file size: 31.0 kB, 2.5 GB."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{int(size)} B" if units[0] == "B" else f"{size:.1f} {units[0]}"


def percentages(before: float, after: float) -> tuple[str, str, str]:
    """Format two fractions and their difference: 10.0%, 95.0%, +85.0%."""
    return f"{before:.1%}", f"{after:.1%}", f"{after - before:+.1%}"

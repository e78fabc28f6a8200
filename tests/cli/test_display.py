"""Tables and progress: drawn by rich on a terminal, plain text elsewhere."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from onnxinterp.cli import display

Captured = pytest.CaptureFixture[str]
COLUMNS = ("name", "size")
ROWS = [("[red]conv[/red]", 1.5), ("b", 1200)]


def test_plain_table_aligns_text_left_and_numbers_right(capsys: Captured) -> None:
    display.table("things", COLUMNS, ROWS)
    assert capsys.readouterr().out == (
        "things\n"
        "  name             size\n"
        "  ---------------  ----\n"
        "  [red]conv[/red]   1.5\n"
        "  b                1200\n"
        "\n"
    )


def test_a_table_without_column_names_has_no_header(capsys: Captured) -> None:
    display.table("things", ("", ""), [("a", "b")])
    assert capsys.readouterr().out == "things\n  a  b\n\n"


def test_an_empty_table_has_a_header(capsys: Captured) -> None:
    display.table("things", COLUMNS, [])
    assert "name  size" in capsys.readouterr().out


def test_rich_draws_on_a_terminal_and_ignores_markup(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    assert display.uses_rich()
    display.table("things", COLUMNS, ROWS)
    out = capsys.readouterr().out
    assert "[red]conv[/red]" in out
    assert "│" in out or "|" in out


def test_a_terminal_without_rich_gets_plain_text(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    display.table("things", COLUMNS, ROWS)
    with display.progress("work", 1) as advance:
        advance("")
    assert capsys.readouterr().out.splitlines()[1:3] == [
        "  name             size",
        "  ---------------  ----",
    ]


@pytest.mark.parametrize(("total", "lines"), [(1, 1), (2, 2), (4, 4), (100, 4)])
def test_plain_progress_prints_each_quarter_once(total: int, lines: int, capsys: Captured) -> None:
    with display.progress("work", total) as advance:
        for i in range(total):
            advance(f"round {i}")
    out = capsys.readouterr().out.splitlines()
    assert len(out) == lines
    assert out[-1] == f"work 100 %  round {total - 1}"


def test_rich_progress_ends_with_the_last_message(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with display.progress("work", 2) as advance:
        advance("first")
        advance("last")
    assert "last" in capsys.readouterr().out


def test_markdown_escapes_bars(capsys: Captured) -> None:
    display.markdown(("a", "b"), [("x|y", 1)])
    assert capsys.readouterr().out == "| a | b |\n| --- | --- |\n| x\\|y | 1 |\n"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2.5e9, "2.5 GB"), (9e15, "9000.0 TB")],
)
def test_format_bytes(count: int, text: str) -> None:
    assert display.format_bytes(count) == text

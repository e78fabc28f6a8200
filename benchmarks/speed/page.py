"""Writes the measured part of docs/performance.md, and its picture."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks.report import load
from benchmarks.speed.picture import picture
from benchmarks.speed.rates import machine, rates
from benchmarks.speed.results import Result, number_of, table_of
from benchmarks.zoo.entries import KINDS

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "performance.md"
BEGIN, END = "<!-- begin: measured -->", "<!-- end: measured -->"
PACKAGES = ("torch", "onnx", "onnxruntime", "openvino", "numpy")


def measured(results: Sequence[Result], rounds: int) -> str:
    """Return the generated part of the page."""
    threads = sorted({result.threads for result in results})
    versions = [f"{p} {version(p)}" for p in PACKAGES if importlib.util.find_spec(p)]
    missing = [name for name in KINDS if name not in {result.model for result in results}]
    absent = f"\nNot measured here: {', '.join(missing)}.\n" if missing else ""
    images = "\n\n".join(
        f"![ratios to onnxruntime, {number_of(n)}]({_picture_path(n).name})" for n in threads
    )
    return f"""
{machine()}.
Python {platform.python_version()}, {", ".join(versions)}; {load()}. Minima of {rounds} interleaved
rounds.
{absent}
{images}

{"".join(f"{table_of(results, n).markdown()}{chr(10)}" for n in threads)}
{rates().markdown()}"""


def _picture_path(threads: int) -> Path:
    return PAGE.with_name(f"performance-{number_of(threads).replace(' ', '-')}.svg")


def write_page(results: Sequence[Result], rounds: int) -> None:
    """Replace the measured part of the page, and its pictures.

    Raises:
        ValueError: the page lacks the marks around it.
    """
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} must contain {BEGIN} and {END}")
    PAGE.write_text(f"{before}{BEGIN}\n{measured(results, rounds)}\n{END}{after}")
    for threads in {result.threads for result in results}:
        _picture_path(threads).write_text(picture(results, threads))

"""The store of the report: a line of JSON for each run, in results.jsonl beside this file.

All runs together take hours; what is stored is not run again. The last line of a run counts. A run
of other versions of the packages does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from tests.exports.judging import Outcome, Run

PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")
Found = dict[Run, Outcome]


def versions() -> str:
    """Of the packages that decide a result."""
    return " ".join(metadata.version(name) for name in PACKAGES)


def read(file: Path) -> Found:
    """All outcomes of these versions."""
    lines = file.read_text().splitlines() if file.exists() else []
    return dict(_entries(map(json.loads, lines)))


def _entries(lines: Iterator[Mapping[str, dict[str, str]]]) -> Iterator[tuple[Run, Outcome]]:
    for line in lines:
        if line["versions"] == versions():
            yield Run(**line["run"]), Outcome(**line["outcome"])  # type: ignore[arg-type]


def add(file: Path, run: Run, outcome: Outcome) -> None:
    """Append one outcome."""
    line = {"versions": versions(), "run": run._asdict(), "outcome": asdict(outcome)}
    with file.open("a") as lines:
        lines.write(f"{json.dumps(line)}\n")


def tidy(file: Path) -> None:
    """Leave one line for each run of these versions, in the order of their names."""
    found = read(file)
    file.unlink(missing_ok=True)
    for run in sorted(found):
        add(file, run, found[run])

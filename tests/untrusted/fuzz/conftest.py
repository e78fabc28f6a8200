"""What a run of the fuzz tests tells at its end: counts, rates, and what broke the promise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import Child
from tests.untrusted.fuzz.judging import Judge
from tests.untrusted.fuzz.oracle import answer

TOLD: list[str] = []


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    child = Child(answer)
    yield Judge(child)
    child.close()


@pytest.fixture
def found(pytestconfig: pytest.Config) -> Path:
    """Where a case that fails is written to."""
    return Path(pytestconfig.cache.mkdir("fuzz"))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    TOLD.extend(str(text) for kind, text in report.user_properties if kind == "fuzz")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for text in dict.fromkeys(TOLD):
        terminalreporter.write_line(text)

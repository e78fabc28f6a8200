"""What concerns all tests: the command line, and processes of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.forking import fork as fork


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--coverage-page", type=Path, help="write the table of operators here")

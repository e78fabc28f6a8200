"""What concerns all tests: the command line."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--coverage-page", type=Path, help="write the table of operators here")

"""What concerns all tests: the command line."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--coverage-page", type=Path, help="write the table of operators here")
    parser.addoption("--case", help="of the hostile files, only those of such a name (fnmatch)")
    parser.addoption("--write-security", action="store_true", help="write the table of SECURITY.md")

"""The children, and what became of the cases of this run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase

import pytest

from tests.untrusted.files import report
from tests.untrusted.files.case import Case
from tests.untrusted.files.collection import FAMILIES, cases
from tests.untrusted.files.judging import Verdict
from tests.untrusted.files.pool import Pool

if sys.platform != "linux":
    collect_ignore_glob = ["test_*.py"]  # only /proc tells what a child takes

VERDICTS = pytest.StashKey[dict[str, list[Verdict]]]()


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with Pool(tmp_path_factory.mktemp("hostile")) as made:
        yield made


@pytest.fixture(scope="session")
def verdicts(pytestconfig: pytest.Config) -> dict[str, list[Verdict]]:
    """Class -> verdicts, of the classes that have been tried whole."""
    return pytestconfig.stash.setdefault(VERDICTS, {})


@pytest.fixture
def chosen(pytestconfig: pytest.Config, group: str) -> list[Case]:
    """The cases of a class, or those that `--case` asks for."""
    pattern = pytestconfig.getoption("--case")
    return [c for c in cases(group) if pattern is None or fnmatchcase(c.name, pattern)]


def pytest_collection_modifyitems(config: pytest.Config) -> None:
    """A pattern that names no case would pass without having tried any."""
    pattern = config.getoption("--case")
    every = (case.name for group in FAMILIES for case in cases(group))
    if pattern is not None and not any(fnmatchcase(name, pattern) for name in every):
        raise pytest.UsageError(f"--case {pattern!r} names none of the hostile files")


def pytest_sessionfinish(session: pytest.Session) -> None:
    tried = session.config.stash.get(VERDICTS, {})
    if session.config.getoption("--write-security") and tried:
        report.write(tried)

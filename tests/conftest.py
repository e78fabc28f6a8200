"""What concerns all tests: the command line, hypothesis profiles, and processes of their own.

pytest tests/property                                   every day: few examples, repeatable
pytest tests/property --hypothesis-profile=shrink       the same, failures reduced to the smallest
pytest tests/property --hypothesis-profile=nightly      2,000 examples, new ones each night
"""

from __future__ import annotations

import gc
import secrets
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests import exporting
from tests.processes import fork as fork

# Samples draw until they are valid, so slow generation is expected; time is never judged.
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile(
    "day",
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=SLOW,
    phases=[Phase.explicit, Phase.generate],  # shrinking a known failure takes up to a minute
)
settings.register_profile("shrink", settings.get_profile("day"), phases=list(Phase))
settings.register_profile("nightly", max_examples=2000, deadline=None, suppress_health_check=SLOW)
settings.load_profile("day")


def pytest_configure(config: pytest.Config) -> None:
    exporting.FOLDER = Path(config.cache.mkdir("exports"))


def pytest_collection_finish() -> None:
    """Spare the collector of cycles the modules and the 13,000 tests: they live to the end."""
    gc.collect()
    gc.freeze()


def _seed(text: str) -> int:
    return secrets.randbelow(10**9) * 1000 if text == "new" else int(text)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--coverage-page", type=Path, help="write the table of operators here")
    fuzz = parser.getgroup("fuzz", "random graphs and broken files (docs/fuzzing.md)")
    fuzz.addoption("--fuzz-seconds", type=float, default=60, help="how long to try broken files")
    fuzz.addoption("--fuzz-count", type=int, help="how many to try, whatever the time")
    fuzz.addoption("--fuzz-first", type=_seed, default=0, help="the first seed; `new` is any")
    fuzz.addoption("--fuzz-workers", type=int, default=1, help="how many processes try them")
    fuzz.addoption("--fuzz-graphs", type=int, default=40, help="how many graphs of a seed each")
    parser.addoption("--zoo-times", action="store_true", help="time whole models (docs/models.md)")
    parser.addoption("--case", help="of the hostile files, only those of such a name (fnmatch)")
    parser.addoption("--write-security", action="store_true", help="write the table of SECURITY.md")

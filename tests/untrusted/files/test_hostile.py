"""Every hostile file ends in the right answer or in an OnnxError, and in nothing else.

python -m pytest tests/untrusted/files -k bombs               one class
python -m pytest tests/untrusted/files --case 'bombs/Tile*'   some cases
python -m pytest tests/untrusted/files --write-security       and write SECURITY.md
python -m tests.untrusted.files 'bombs/Tile*' -v              by hand, with everything observed
"""

from __future__ import annotations

import pytest

from tests.untrusted.files import report
from tests.untrusted.files.case import Case
from tests.untrusted.files.collection import FAMILIES, cases
from tests.untrusted.files.judging import BROKEN, COLUMNS, Verdict
from tests.untrusted.files.pool import Pool


@pytest.mark.parametrize("group", list(FAMILIES))
def test_the_promise_holds(
    group: str,
    chosen: list[Case],
    pool: Pool,
    verdicts: dict[str, list[Verdict]],
    pytestconfig: pytest.Config,
) -> None:
    found = pool.run(chosen)
    if pytestconfig.getoption("--case") is None:
        verdicts[group] = found
    broken = [str(verdict) for verdict in found if not verdict.fine]
    assert not broken, f"{len(broken)} of {len(found)}:\n" + "\n".join(broken)


def test_there_are_more_than_a_thousand_cases() -> None:
    assert sum(len(cases(group)) for group in FAMILIES) > 1000


def test_the_page_tells_of_these_cases_and_of_no_breach(pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("--write-security"):
        pytest.skip("the page is written at the end of this run")
    rows = report.cells(report.written())
    for group in FAMILIES:
        count, *columns = rows[report.TITLES[group]]
        assert count == len(cases(group)), f"SECURITY.md is stale: {group}; see report.py"
        told = dict(zip(COLUMNS, columns, strict=True))
        assert not any(told[column] for column in BROKEN), f"SECURITY.md tells of breaches: {group}"
        assert sum(columns) == count
    assert rows["**all**"] == [sum(n) for n in zip(*(rows[t] for t in report.TITLES.values()))]  # noqa: B905 - lines of one table

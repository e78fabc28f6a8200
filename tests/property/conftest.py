"""Known failures, and the coverage page."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.property import locales, record
from tests.property.served import label

BY_CHANCE = "by chance: "  # before the reason of what depends on more than the drawn call
KNOWN_FAILURES = Path(__file__).with_name("known_failures.txt")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Send what a test found out along with its report: tests may run in other processes."""
    schema = getattr(item, "callspec", None) and item.callspec.params.get("schema")
    if schema is not None:
        name = label(schema)
        item.user_properties.append(("judged", [name, *record.JUDGED[name]]))
        if name in record.GRADIENT:
            item.user_properties.append(("gradient", [name, record.GRADIENT[name]]))
        for how, cells in record.TYPES[name].items():
            item.user_properties.append(("types", [name, how, *cells]))
    return (yield)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    for kind, value in report.user_properties:
        if kind == "judged":
            record.JUDGED[value[0]].update(value[1:])
        elif kind == "types":
            record.TYPES[value[0]][value[1]].update(value[2:])
        elif kind == "gradient":
            record.gradient(*value)


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--coverage-page")
    if path is not None and not hasattr(session.config, "workerinput"):
        path.write_text(record.page(known_failures()))


def known_failures() -> dict[str, str]:
    """test[operator-version] -> why, from lines `operator-version | when | why | link`.

    `when` names a test or several: "values and types".
    """
    known = {}
    for line in KNOWN_FAILURES.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            operator, when, why, _link = (part.strip() for part in line.split("|"))
            known.update({f"test_{w}[{operator}]": why for w in when.split(" and ")})
    return known


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Expect what is known to fail; a line that names no test fails the run."""
    known = known_failures()
    here = [item for item in items if Path(item.path).parent == KNOWN_FAILURES.parent]
    of_locale = [item for item in here if "[StringNormalizer-" in item.name]
    if of_locale and not locales.provide(config.cache.mkdir("locales")):
        for item in of_locale:
            item.add_marker(pytest.mark.skip(reason=locales.REMEDY))
    for item in here:
        if item.name in known:
            why = known.pop(item.name)
            item.add_marker(pytest.mark.xfail(reason=why, strict=not why.startswith(BY_CHANCE)))
    whole = not config.getoption("keyword") and not any("::" in a for a in config.args)
    files = {Path(item.path).name for item in here}
    if known and whole and len(files) >= 6:
        raise pytest.UsageError(f"known_failures.txt names no test: {', '.join(known)}")

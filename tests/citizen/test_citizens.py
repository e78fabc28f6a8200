"""A selection of the cells of docs/citizenship.md: green and red as expected.txt says.

Each check runs in one column of each network; from check to check it is another one. Checks that
need packages beyond those of the tests are left to `python -m tests.citizen.report`, which writes
expected.txt anew: a cell that has become green belongs there as much as one that has become red.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.citizen import expected
from tests.citizen.checks import ROWS, Row
from tests.citizen.columns import COLUMNS, Column
from tests.citizen.judging import applies, of_import, of_original
from tests.citizen.networks import NETWORKS

PACKAGES = ("", "safetensors")  # those of the extra `test`
SLOW = {  # how many networks, the others in the report alone
    "pipelining: two stages, split at a block": 2,
    "torch.compile (fullgraph, backend eager)": 2,
    "torch.export and unflatten": 2,
}
VARIANTS = len(COLUMNS) // len(NETWORKS)


def _selection() -> list[Any]:
    rows = [row for row in ROWS.values() if row.package in PACKAGES]
    return [
        pytest.param(row, column, id=f"{row.name}-{column.name}")
        for number, row in enumerate(rows)
        for column in COLUMNS[number % VARIANTS :: VARIANTS][: SLOW.get(row.name)]
        if applies(row, column.network)
    ]


@pytest.mark.parametrize(("row", "column"), _selection())
def test_a_cell_is_as_expected(row: Row, column: Column) -> None:
    if of_original(row.name, column.network.name).reason:
        return  # the tool is not for the network: test_checks has the list of these
    found = of_import(row, column)
    reason = expected.read().get((row.name, column.name))
    if reason is None:
        assert not found.reason, found.detail
    else:
        assert found.reason, f"green now, but expected.txt says: {reason}"


def test_each_line_names_a_check_and_a_column() -> None:
    columns = {column.name for column in COLUMNS}
    assert [c for c in expected.read() if c[0] not in ROWS or c[1] not in columns] == []

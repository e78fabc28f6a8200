"""Random graphs of any operators are written, or refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.python_source.share import REFUSED, WRITTEN, outcome
from tests.python_source.subjects import of_graph

FEW = range(2000, 2020)
MANY = range(3000, 3200)


@pytest.mark.parametrize(
    "seeds", [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.capture)]
)
def test_random_graphs_compute_the_same_or_are_refused(seeds: range, tmp_path: Path) -> None:
    found = [outcome(of_graph(seed), tmp_path) for seed in seeds]
    assert {one.name: one for one in found if one.what not in (WRITTEN, REFUSED)} == {}
    assert sum(one.what == WRITTEN for one in found) > len(found) / 3  # many have strings

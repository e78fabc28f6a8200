"""A broken file ends in an answer or in an `OnnxError`: nothing raw, no crash, no hang."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Child, Lost
from tests.untrusted.fuzz import campaign, lean, planted
from tests.untrusted.fuzz.keeping import CORPUS
from tests.untrusted.fuzz.mutation import bases, mutant
from tests.untrusted.fuzz.victim import Outcome, of_file

ENOUGH = 2000  # files, of which some must be answered, and as by onnxruntime

MOST_CUT = 5000  # files that are opened twice


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    process = Child(of_file)
    yield process
    process.close()


def test_mutated_files_are_answered_or_refused(request: pytest.FixtureRequest, found: Path) -> None:
    option = request.config.getoption
    count = option("--fuzz-count")
    tally = campaign.run(
        seconds=None if count else option("--fuzz-seconds"),
        count=count,
        first=option("--fuzz-first"),
        workers=option("--fuzz-workers"),
        keep=found,
    )
    request.node.user_properties.append(("fuzz", str(tally)))
    assert tally.count > 0
    if tally.count >= ENOUGH:  # a mutator that breaks everything, or nothing, tries nothing
        assert 0.05 < tally.outcomes["answered"] / tally.count < 0.95, tally
        assert tally.compared["same"] > 0, tally
    assert not tally.defects, f"kept in {found}: {tally}"


@pytest.mark.parametrize("path", sorted(CORPUS.glob("file-*.onnx")), ids=lambda p: p.stem)
def test_what_broke_once_is_answered_or_refused(child: Child, path: Path) -> None:
    outcome = child.ask(path.read_bytes())
    assert isinstance(outcome, Outcome), outcome
    assert outcome.kind in ("refused", "failed", "answered"), outcome


def test_cutting_out_data_changes_nothing_about_a_broken_file(
    request: pytest.FixtureRequest, found: Path
) -> None:
    option = request.config.getoption
    count = min(option("--fuzz-count") or MOST_CUT, MOST_CUT)
    first = option("--fuzz-first")
    tally = campaign.run(count=count, first=first, work=lean.of_seed, compare=False, keep=found)
    assert tally.outcomes["answered"] > count / 10, "data were cut out of many"
    assert not tally.defects, f"kept in {found}: {tally}"


def test_death_hanging_and_raw_errors_are_found() -> None:
    tally = campaign.run(count=24, work=planted.broken, compare=False, patience=1.0)
    found = {seed: what for what, seeds in tally.defects.items() for seed in seeds}
    assert found.keys() == {planted.DIES, planted.HANGS, planted.RAISES}
    assert found[planted.DIES].startswith("died of SIGABRT")
    assert found[planted.HANGS].startswith("hung")
    assert found[planted.RAISES] == "KeyError in planted.py:broken"
    assert tally.count == 24
    assert tally.outcomes["refused InvalidModelError"] == 21


def test_a_process_that_ends_is_another_one_then() -> None:
    child = Child(planted.echo, patience=1.0, memory=2**30)
    assert child.ask("hello") == "hello"
    assert child.ask("die") == Lost("ended with 3")
    assert child.ask("hang") == Lost("hung")
    assert child.ask("memory") == "refused"
    assert child.ask("hello") == "hello"
    child.close()


def test_a_seed_makes_the_same_file_again() -> None:
    found = bases()[:50]
    files = [mutant(found, seed)[0] for seed in range(200)]
    assert files == [mutant(found, seed)[0] for seed in range(200)]
    changed = sum(data not in {b.model for b in found} for data in files)
    assert changed > 150

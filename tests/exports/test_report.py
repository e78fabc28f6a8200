"""The report of docs/capture.md: its page from fixed results, its rules, a cell from end to end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.exports import judging, report, results
from tests.exports.columns import COLUMNS, Column
from tests.exports.judging import (
    FAIL,
    NONE,
    NOT_RUN,
    ORIGINAL,
    OURS,
    PASS,
    TORCH,
    DifferenceError,
    Outcome,
    Run,
    compare,
    isolated,
    relative_error,
    verdict,
)
from tests.exports.known_reasons import REASONS, reason_for
from tests.exports.rows import BY_NAME, ROWS, Row

RIGHT, WRONG = Outcome(), Outcome("RuntimeError: no")
KNOWN = Outcome("RuntimeError: vmap: operators that can output dynamic shape")


@pytest.mark.parametrize(
    ("ours", "original", "mark"),
    [
        (RIGHT, RIGHT, PASS),
        (RIGHT, WRONG, PASS),
        (WRONG, RIGHT, FAIL),
        (WRONG, WRONG, TORCH),
        (KNOWN, RIGHT, FAIL),  # a known limit that the original does not meet is ours
        (RIGHT, None, PASS),
        (WRONG, None, FAIL),
        (KNOWN, None, TORCH),
        (None, RIGHT, NOT_RUN),
    ],
)
def test_the_original_judges(ours: Outcome | None, original: Outcome | None, mark: str) -> None:
    assert verdict(ours, original) == mark


def test_a_cell_without_its_control_is_not_run() -> None:
    row, column = BY_NAME["encoder"], COLUMNS["jit.trace"]
    found = {Run(row.name, column.name, OURS): WRONG}
    assert report.mark(row, column, found) == NOT_RUN
    found[Run(row.name, column.name, ORIGINAL)] = RIGHT
    assert report.mark(row, column, found) == FAIL


def test_what_has_no_free_sizes_is_not_asked_for_them() -> None:
    fixed = replace(BY_NAME["digits"], inputs=lambda *_: (torch.ones(1, 1, 8, 8),))
    assert report.mark(fixed, COLUMNS["export dynamic"], {}) == NONE
    assert report.mark(fixed, COLUMNS["export static"], {}) == NOT_RUN
    assert report.mark(BY_NAME["forest"], COLUMNS["vmap(grad)"], {}) == NONE


def test_values_shapes_types_and_numbers_are_compared() -> None:
    x = torch.arange(1.0, 5.0)
    assert relative_error([x * (1 + 1e-5)], [x], 1e-4) == pytest.approx(1e-5, rel=0.1)
    different: list[list[Tensor]] = [
        [x * 1.001],
        [x * torch.nan],
        [x.double()],
        [x[None]],
        [x, x],
        [],
    ]
    for got in different:
        with pytest.raises(DifferenceError, match="other"):
            relative_error(got, [x], 1e-4)
    with pytest.raises(DifferenceError, match="other values"):
        relative_error([x], [torch.zeros(4)], 1e-4)
    assert relative_error([x, x * 1e-9], [x, x * 2e-9], 1e-4) == 0  # rounding
    with pytest.raises(DifferenceError, match="other outputs"):
        relative_error([], [], 1e-4)  # nothing was compared


def noisy(column: Column) -> Column:
    """A tool that is wrong: 10 % of noise on one weight of what it captures."""

    def capture(module: nn.Module, row: Row, folder: Path) -> Any:
        changed = judging.module_of(row, OURS)
        weight = next(p for p in changed.parameters() if p.dim() > 1)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            weight.mul_(1 + 0.1 * torch.randn(weight.shape, generator=generator))
        return column.capture(changed, row, folder)

    return replace(column, capture=capture)


@pytest.mark.parametrize("name", ["eager", "export static", "vmap(grad)"])
def test_a_wrong_result_fails(name: str, tmp_path: Path) -> None:
    row, column = BY_NAME["digits"], COLUMNS[name]
    module = judging.module_of(row, OURS)
    with torch.no_grad():
        compare(column, module, row, tmp_path)
        with pytest.raises(DifferenceError, match="other values"):
            compare(noisy(column), module, row, tmp_path)


def test_what_serves_the_example_alone_fails_in_a_dynamic_column(tmp_path: Path) -> None:
    row = BY_NAME["digits"]
    static = replace(COLUMNS["export static"], is_dynamic=True)
    with pytest.raises(Exception, match=r"size|shape|Guard"):
        compare(static, judging.module_of(row, OURS), row, tmp_path)


def test_a_cell_from_end_to_end(tmp_path: Path) -> None:
    """In its process, into the store, out of it again."""
    run = Run("digits", "eager", OURS)
    outcome = isolated(run, 120.0)
    assert (outcome.message, outcome.error < 1e-5) == ("", True)
    results.add(tmp_path / "r.jsonl", run, WRONG)
    results.add(tmp_path / "r.jsonl", run, outcome)
    assert results.read(tmp_path / "r.jsonl") == {run: outcome}  # the last counts
    results.tidy(tmp_path / "r.jsonl")
    assert results.read(tmp_path / "r.jsonl") == {run: outcome}
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 1


def test_a_process_that_does_not_end_is_an_outcome() -> None:
    outcome = isolated(Run("digits", "eager", OURS), 0.0)
    assert outcome.message == "Lost: the process no end in 0 s"


def test_results_of_other_versions_do_not_count(tmp_path: Path) -> None:
    run = Run("digits", "eager", OURS)
    results.add(tmp_path / "r.jsonl", run, RIGHT)
    line = json.loads((tmp_path / "r.jsonl").read_text())
    (tmp_path / "r.jsonl").write_text(json.dumps({**line, "versions": "torch 1"}))
    assert results.read(tmp_path / "r.jsonl") == {}


def test_the_page_says_what_was_found() -> None:
    found = dict.fromkeys(report.runs(), RIGHT)
    cell = ("encoder", "jit.trace")
    found[Run(*cell, OURS)] = Outcome("RuntimeError: a | b")
    tool = ("tagger", "vmap(grad)")
    limit = Outcome("RuntimeError: Batching rule not implemented for aten::lstm.input")
    found |= {Run(*tool, OURS): WRONG, Run(*tool, ORIGINAL): limit}
    lines = report.page(found).splitlines()
    assert "| encoder | jit.trace | `RuntimeError: a / b` |" in lines
    number = next(i for i, r in enumerate(REASONS, 1) if r == reason_for(limit.message))
    assert f"| tagger | vmap(grad) | {number} | `{limit.message}` |" in lines
    assert any(line.startswith(f"| {number} | vmap has no rule for LSTM") for line in lines)
    originals = sum(row.original is not None for row in ROWS)
    share = f"| with an original | jit.trace | {originals - 1}/{originals} |"
    assert any(line.startswith(share) for line in lines)
    head = next(line for line in lines if line.startswith("| model | eager |"))
    row = next(line for line in lines if line.startswith("| encoder | ✓ |"))
    columns = [c.strip() for c in head.split("|")]
    assert row.split("|")[columns.index("jit.trace")].strip() == FAIL


def test_reasons_have_threads() -> None:
    assert all(reason.link.startswith("https://github.com/") for reason in REASONS)

"""One cell: a tool on the import, and the same tool on the original torch module as its control."""

from __future__ import annotations

import math
import re
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from onnxinterp import OnnxModule
from tests import exporting
from tests.exports.columns import COLUMNS, Column
from tests.exports.known_reasons import reason_for
from tests.exports.rows import BY_NAME, EXAMPLE, OTHER, Row
from tests.processes import Child, Lost
from tests.zoo.fetch import cache_folder

OURS, ORIGINAL = "ours", "original"
PASS, TORCH, FAIL, NONE, NOT_RUN = "✓", "– torch", "✗", "·", "…"  # noqa: RUF001 - a dash
MAX_MESSAGE_CHARS = 400

FLOOR = 1e-6
"""Of the largest norm among the outputs: below it, all is rounding, as is the gradient of a bias
that softmax cancels."""


class Run(NamedTuple):
    """Which cell, and of which module."""

    row: str
    column: str
    subject: str


@dataclass(frozen=True)
class Outcome:
    """What a run said.

    Attributes:
        message: "" where the values were right; else the error.
        seconds: that it took.
        error: the largest relative error of an output.
    """

    message: str = ""
    seconds: float = 0.0
    error: float = 0.0


class DifferenceError(AssertionError):
    """A tool's result is not that of the module."""


def tensors(value: Any) -> list[Tensor]:
    """The tensors of a result, in order, detached."""
    if isinstance(value, Tensor):
        return [value.detach()]
    return [t for part in value for t in tensors(part)]


def relative_error(got: Sequence[Tensor], want: Sequence[Tensor], bound: float) -> float:
    """The largest of the outputs, where differences are above the floor.

    Raises:
        DifferenceError: it is above the bound, or shapes or types differ.
    """
    if not want or len(got) != len(want):
        raise DifferenceError(f"other outputs: {len(got)} for {len(want)}")
    worst = 0.0
    floor = FLOOR * max(float(judge.double().norm()) for judge in want)
    for number, (value, judge) in enumerate(zip(got, want, strict=True)):
        kinds = [f"{t.dtype} {list(t.shape)}" for t in (value, judge)]
        if kinds[0] != kinds[1]:
            raise DifferenceError(f"other shape or type: output {number} {' for '.join(kinds)}")
        difference = float((value.double() - judge.double()).norm())
        if difference <= floor:
            continue
        norm = float(judge.double().norm())
        error = difference / norm if norm else math.inf
        if not error <= bound:  # nan is not
            raise DifferenceError(f"other values: output {number}, relative error {error:.1e}")
        worst = max(worst, error)
    return worst


def compare(column: Column, module: nn.Module, row: Row, folder: Path) -> float:
    """Capture a module and compare at the sizes that the column is for; returns the error.

    Raises:
        Exception: what the tool raises.
        DifferenceError: the values are wrong.
    """
    right = column.reference(module, row)
    captured = column.capture(module, row, folder)
    error = 0.0
    for size in (EXAMPLE, OTHER) if column.is_dynamic else (EXAMPLE,):
        for seed in (0, 1):  # other data may not be those that were captured
            inputs = row.inputs(size, seed)
            want = tensors(right(*(x.clone() for x in inputs)))
            got = tensors(captured(*(x.clone() for x in inputs)))
            error = max(error, relative_error(got, want, column.error))
    return error


def module_of(row: Row, subject: str) -> nn.Module:
    """The import, or the original in eval mode."""
    if subject == OURS:
        return OnnxModule(row.path())
    assert row.original is not None
    return row.original()


def use_cache() -> None:
    """The exports are kept with the results, outside the tree."""
    exporting.FOLDER = cache_folder() / "exports"
    exporting.FOLDER.mkdir(exist_ok=True)


def attempt(run: Run) -> Outcome:
    """Do one run in this process."""
    use_cache()
    torch.manual_seed(0)
    start = time.perf_counter()
    row, column = BY_NAME[run.row], COLUMNS[run.column]
    message, error = "", 0.0
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder, torch.no_grad():
        warnings.simplefilter("ignore")  # the tools' own; what is judged is the result
        try:
            error = compare(column, module_of(row, run.subject), row, Path(folder))
        except Exception as raised:
            message = shortened(raised)
    return Outcome(message, time.perf_counter() - start, error)


def shortened(error: BaseException) -> str:
    """Type and message of an error in one line, and that of its causes where it has some."""
    whole = "".join(traceback.format_exception_only(error))
    cause = error.__cause__ or error.__context__
    if cause is not None:
        whole += f" <- {''.join(traceback.format_exception_only(cause))}"
    whole = re.sub(r"[^\s(\"']*/(?=[^/\s]+\.py)", "", whole)  # folders of this machine
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", whole).split())[:MAX_MESSAGE_CHARS]


def isolated(run: Run, seconds: float) -> Outcome:
    """Do one run in a process that may crash or hang."""
    start = time.perf_counter()
    child = Child(attempt, patience=seconds, memory=None)
    try:
        result = child.ask(run)
    finally:
        child.close()
    if isinstance(result, Lost):
        words = f"no end in {seconds:.0f} s" if result.how == "hung" else result.how
        return Outcome(f"Lost: the process {words}", time.perf_counter() - start)
    return result


def verdict(ours: Outcome | None, original: Outcome | None) -> str:
    """The mark of a cell; `original` is None where there is no torch module or no control."""
    if ours is None:
        return NOT_RUN
    if not ours.message:
        return PASS
    if original is not None:
        return TORCH if original.message else FAIL
    return TORCH if reason_for(ours.message) else FAIL

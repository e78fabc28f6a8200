"""What a report means: one column of the table for each case."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxinterp.limits import GIB
from tests.untrusted.files.case import Case, Lost, Report

FINE = ("refused", "right", "answered")
BROKEN = ("crashed", "hung", "memory", "raw", "leaked", "wrong")
COLUMNS = (*FINE, *BROKEN)

MEMORY_ALLOWED = 3 * GIB // 8  # beside what the limits say: torch's own, and the file
SECONDS_ALLOWED = 20.0  # beside what the limits say: loading, and the last torch function
LONGEST_MESSAGE = 20_000  # characters: many missing operators, each with the line to add
NO_MEMORY = ("can't allocate memory", "MemoryError", "bad_alloc", "Cannot allocate memory")


@dataclass(frozen=True)
class Verdict:
    """How a case ended: a column, and why."""

    case: Case
    column: str
    why: str = ""

    @property
    def fine(self) -> bool:
        """Whether the promise held."""
        return self.column in FINE

    def __str__(self) -> str:
        return f"{self.case.name}: {self.column}: {self.why}"


def wants_reference(case: Case, report: Report | Lost) -> bool:
    """Whether onnxruntime is to be asked."""
    answered = isinstance(report, Report) and not report.kind and report.outputs is not None
    return answered and case.must != "refused" and case.expected is None and case.asked


def judge(case: Case, report: Report | Lost, reference: Report | Lost | None) -> Verdict:
    """The verdict.

    Args:
        case: what was tried.
        report: how the module took it.
        reference: how onnxruntime did, where it was asked.
    """
    if isinstance(report, Lost):
        return Verdict(case, report.how, report.why)
    if report.touched:
        return Verdict(case, "leaked", "; ".join(report.touched)[:1000])
    if late := _late(case, report):
        return Verdict(case, "hung", late)
    if large := _large(case, report):
        return Verdict(case, "memory", large)
    if report.kind:
        return _refusal(case, report)
    if case.must == "refused":
        return Verdict(case, "wrong", f"accepted: {_shown(report.outputs)}")
    return _answer(case, report, reference)


def _late(case: Case, report: Report) -> str:
    seconds = case.held_to.seconds
    if seconds is None or report.seconds <= seconds + SECONDS_ALLOWED:
        return ""
    return f"{report.seconds:.1f} seconds, {seconds} were allowed"


def _large(case: Case, report: Report) -> str:
    limits = case.held_to
    if limits.live_bytes is None:
        return ""
    if any(sign in report.text for sign in NO_MEMORY):
        return f"the system refused memory, no limit did: {report.text[:300]}"
    most = limits.live_bytes + MEMORY_ALLOWED + 8 * len(case.content)
    return f"grew by {report.grown / 2**20:.0f} MiB" if report.grown > most else ""


def _refusal(case: Case, report: Report) -> Verdict:
    brief = f"at {report.stage}: {report.text[:500]!r}"
    if not report.known:
        return Verdict(case, "raw", brief)
    first = report.text.partition("\n")[0].partition(": ")[2]
    if not first:
        return Verdict(case, "raw", f"{report.kind} says nothing")
    if len(report.text) > LONGEST_MESSAGE:
        return Verdict(case, "raw", f"a message of {len(report.text)} characters")
    if odd := controls(report.text):
        return Verdict(case, "raw", f"control characters {odd[:3]!r} {brief}")
    if case.must == "right":
        return Verdict(case, "wrong", f"refused {brief}")
    return Verdict(case, "refused", brief)


def controls(text: str) -> list[str]:
    """What of a text a terminal would obey, or hide."""
    hidden = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return [c for c in set(text) - {"\n", "\t"} if unicodedata.category(c) in hidden]


def _answer(case: Case, report: Report, reference: Report | Lost | None) -> Verdict:
    if report.outputs is None:
        column = "wrong" if case.must == "right" else "answered"
        return Verdict(case, column, "too large to compare")
    expected = case.expected
    if expected is None and isinstance(reference, Report):
        expected = reference.outputs
    if expected is None:
        why = "" if reference is None else getattr(reference, "text", "") or str(reference)
        if case.must == "right":
            return Verdict(case, "wrong", f"nothing to compare with: {why}")
        return Verdict(case, "answered", f"no reference: {why}")
    difference = differ(report.outputs, expected)
    return Verdict(case, "wrong" if difference else "right", difference)


def differ(ours: Any, theirs: Any) -> str:
    """How two answers differ; "" where they do not."""
    if isinstance(ours, (list, tuple)) or isinstance(theirs, (list, tuple)):
        if not isinstance(ours, (list, tuple)) or len(ours) != len(theirs):
            return f"{_shown(ours)} instead of {_shown(theirs)}"
        return next(filter(None, map(differ, ours, theirs)), "")
    if ours is None or theirs is None:
        return "" if ours is theirs else f"{_shown(ours)} instead of {_shown(theirs)}"
    if isinstance(theirs, dict):
        return "" if ours == theirs else f"{_shown(ours)} instead of {_shown(theirs)}"
    a, b = np.asarray(ours), np.asarray(theirs)
    if a.shape != b.shape or a.dtype.kind != b.dtype.kind or a.dtype.itemsize != b.dtype.itemsize:
        return f"{a.dtype}{a.shape} instead of {b.dtype}{b.shape}"
    if a.dtype.kind in "OUSbiu":
        same = bool(np.all(a == b))
    else:
        wide = np.complex128 if a.dtype.kind == "c" else np.float64
        with np.errstate(all="ignore"):
            same = np.allclose(a.astype(wide), b.astype(wide), 1e-3, 1e-5, equal_nan=True)
    return "" if same else f"{_shown(ours)} instead of {_shown(theirs)}"


def _shown(value: Any) -> str:
    return f"{value!r:.300}"

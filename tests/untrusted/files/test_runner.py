"""A runner that sees nothing finds nothing: fake cases of every kind that it must tell apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from onnxinterp import Limits
from tests.untrusted.files.case import CANARY, Case, Must, Report
from tests.untrusted.files.judging import differ, judge
from tests.untrusted.files.models import one
from tests.untrusted.files.pool import Pool

SMALL = Limits(live_bytes=2**20)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """Children that are lost after a moment."""
    with Pool(tmp_path_factory.mktemp("fakes"), seconds=6.0) as made:
        yield made


FAKES = {
    "abort": ("either", "crashed", b""),
    "hang": ("either", "hung", b""),
    "read": ("either", "leaked", b""),
    "evaluate": ("either", "leaked", b"6 * 7"),
    "raise": ("refused", "raw", b""),
    "warn": ("either", "raw", b""),
    "answer": ("refused", "wrong", b""),
    "grow": ("either", "memory", b""),
    "tell": ("refused", "refused", b"the node 'a' is wrong"),
}


@pytest.mark.parametrize("fake", FAKES)
def test_each_breach_is_seen(fake: str, quick: Pool) -> None:
    must, column, content = FAKES[fake]
    case = Case(f"fakes/{fake}", content, must, fake=fake, limits=SMALL)  # type: ignore[arg-type]
    assert quick.judged(case).column == column


def test_a_lost_child_is_replaced(quick: Pool) -> None:
    quick.judged(Case("fakes/abort", b"", fake="abort"))
    content, feeds = one("Neg", [np.float32([1, 2])])
    right = Case("fakes/right", content, "right", feeds, (np.float32([-1, -2]),))
    verdict = quick.judged(right)
    assert verdict.column == "right", verdict


@pytest.mark.parametrize(
    ("message", "column"),
    [
        (b"the canary says " + CANARY, "leaked"),
        (b"\x1b[31mred", "raw"),
        (b"a\0b", "raw"),
        (b"", "raw"),
        (b"x" * 200_000, "raw"),
    ],
    ids=["canary", "escape", "nul", "nothing", "endless"],
)
def test_messages_are_read(message: bytes, column: str, quick: Pool) -> None:
    case = Case("fakes/tell", message, "refused", fake="tell")
    assert quick.judged(case).column == column


@pytest.mark.parametrize(("must", "column"), [("right", "wrong"), ("either", "refused")])
def test_a_refusal_is_wrong_where_an_answer_is_due(must: Must, column: str, quick: Pool) -> None:
    assert quick.judged(Case("fakes/cut", b"\x08", must)).column == column


def test_onnxruntime_is_the_judge_of_answers(quick: Pool) -> None:
    content, feeds = one("Neg", [np.float32([1, 2])])
    assert quick.judged(Case("fakes/asked", content, "right", feeds)).column == "right"
    told = Case("fakes/told", content, "right", feeds, (np.float32([1, 2]),))
    assert quick.judged(told).column == "wrong"


def test_late_is_hung() -> None:
    case = Case("fakes/late", b"", limits=Limits(seconds=1.0))
    assert judge(case, Report("answered", outputs=(), seconds=30.0), None).column == "hung"


def test_the_canary_is_seen_in_an_answer(quick: Pool, tmp_path: Path) -> None:
    data = np.frombuffer(CANARY * 2, np.uint8)
    content, feeds = one("Identity", [data])
    assert quick.judged(Case("fakes/canary", content, "right", feeds, (data,))).column == "leaked"


def test_answers_are_compared_by_shape_type_and_value() -> None:
    one_ = np.float32([1, np.nan])
    assert not differ((one_,), (one_.copy(),))
    assert differ((one_,), (one_[:1],))
    assert differ((one_,), (one_.astype(np.float64),))
    assert differ((one_,), (np.float32([2, np.nan]),))
    assert differ((one_,), (one_, one_))
    assert differ((None,), (one_,))

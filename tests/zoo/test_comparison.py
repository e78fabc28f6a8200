"""The comparison itself: what it lets pass and what it does not."""

from __future__ import annotations

import numpy as np
import pytest

from tests.zoo.comparison import Difference, compare, worst
from tests.zoo.known_failures import known_failures

REFERENCE = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)


@pytest.mark.parametrize(
    "wrong",
    [
        REFERENCE * np.float32(1.002),
        REFERENCE + np.float32(1e-3),
        np.where(np.eye(8) > 0, np.nan, REFERENCE).astype(np.float32),
        REFERENCE.astype(np.float64),
        REFERENCE[:, :4],
        REFERENCE.T,
    ],
    ids=["scaled", "shifted", "nan", "other type", "other shape", "transposed"],
)
def test_wrong_outputs_do_not_match(wrong: np.ndarray) -> None:
    assert not compare([wrong], [REFERENCE]).matches


def test_outputs_too_small_for_absolute_limits_are_judged_relatively() -> None:
    tiny = REFERENCE * np.float32(1e-6)
    assert compare(tiny, tiny).matches
    assert not compare(tiny * np.float32(1.1), tiny).matches


def test_rounding_matches() -> None:
    assert compare([REFERENCE + np.float32(1e-6)], [REFERENCE]).matches


def test_integers_must_be_equal() -> None:
    labels = np.arange(5)
    assert compare(labels, labels).matches
    assert not compare(labels + (labels == 3), labels).matches


def test_sequences_and_maps_are_compared_element_by_element() -> None:
    reference = [{0: 0.25, 1: 0.75}]
    assert compare([{0: 0.25, 1: 0.75}], reference).matches
    assert not compare([{0: 0.25, 1: 0.5}], reference).matches
    assert not compare([{0: 0.25, 2: 0.75}], reference).matches
    assert not compare([], reference).matches


def test_one_wrong_output_is_enough() -> None:
    right, wrong = Difference(), Difference(mse=1.0, max_abs=1.0, relative=1.0, close=False)
    assert not worst([right, wrong]).matches


def test_known_failures_need_all_four_fields() -> None:
    (entry,) = known_failures("# comment\n\nresnet | export | why | https://link\n")
    assert entry.covers("resnet", "export")
    assert not entry.covers("resnet", "outputs")
    with pytest.raises(ValueError, match="line 1"):
        known_failures("resnet | export | why |")

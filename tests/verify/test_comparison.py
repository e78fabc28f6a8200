"""Differences of two values, and the verdict on them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from onnxinterp.verify import Comparison, Tolerance, compare
from onnxinterp.verify.comparison import max_ulp

TOLERANCE = Tolerance()
NAN, INF = math.nan, math.inf


def one(ours: object, reference: object, tolerance: Tolerance = TOLERANCE) -> Comparison:
    (comparison,) = compare("y", ours, reference, tolerance)
    return comparison


def test_each_measure_has_its_definition() -> None:
    found = one(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.5, 2.0]))
    assert found.mse == pytest.approx((0.25 + 1.0) / 3)
    assert found.max_abs == 1.0
    assert (found.dtype, found.shape) == ("float32", (3,))
    assert not found.close
    assert not found.ok


def test_equal_tensors_agree_to_the_last_bit() -> None:
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    found = one(x, x.clone())
    assert (found.mse, found.max_abs, found.max_ulp, found.ok) == (0.0, 0.0, 0.0, True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_same_special_values_are_equal(dtype: torch.dtype) -> None:
    x = torch.tensor([NAN, INF, -INF, 0.0, 1.0], dtype=dtype)
    found = one(x, x.clone())
    assert (found.mse, found.max_ulp, found.ok) == (0.0, 0.0, True)


@pytest.mark.parametrize(("ours", "theirs"), [(NAN, 1.0), (1.0, NAN), (INF, -INF), (INF, 3e38)])
def test_special_values_beside_others_differ(ours: float, theirs: float) -> None:
    found = one(torch.tensor([ours]), torch.tensor([theirs]))
    assert found.mse == INF
    assert found.max_ulp is not None
    assert found.max_ulp > 0
    assert not found.ok


def test_the_verdict_needs_both_a_small_square_and_close_elements() -> None:
    reference = torch.zeros(1000)
    outlier = reference.clone()
    outlier[0] = 5e-3  # 2.5e-8 on average, but one element is far off
    assert one(outlier, reference).mse < TOLERANCE.mse
    assert not one(outlier, reference).ok
    large = torch.full((10,), 100.0)  # each within rtol, yet the square is not small
    assert one(large + 0.05, large).close
    assert not one(large + 0.05, large).ok


def test_integers_are_compared_exactly_even_beyond_doubles() -> None:
    big = torch.tensor([2**53 + 1])
    assert one(big, big.clone()).ok
    assert not one(big, big - 1).ok
    assert one(big, big.clone()).max_ulp is None


def test_other_types_and_shapes_are_named() -> None:
    x = torch.zeros(2, 3)
    assert one(x, x.double()).problem == "torch.float32 instead of torch.float64"
    assert one(x, x.T).problem == "shape [2, 3] instead of [3, 2]"
    assert one(x, None).problem == "Tensor instead of NoneType"
    assert not one(x, x.T).ok


def test_sequences_are_compared_element_by_element() -> None:
    x = torch.ones(2)
    found = compare("s", [x, x], [x, x + 1], TOLERANCE)
    assert [(c.name, c.ok) for c in found] == [("s[0]", True), ("s[1]", False)]
    short = compare("s", [x], [x, x], TOLERANCE)
    assert short[0].problem == "1 elements instead of 2"


def test_maps_are_compared_by_key() -> None:
    assert one({"a": 1.0, "b": 2.0}, {"b": 2.0, "a": torch.tensor(1.0)}).ok
    assert not one({"a": 1.0}, {"a": 1.1}).ok
    assert one({0: 1.0}, {1: 1.0}).problem == "keys [0] instead of [1]"


def test_strings_booleans_complex_and_nothing() -> None:
    words = np.array(["a", "b"], dtype=object)
    assert one(words, words.copy()).ok
    assert one(words, np.array(["a", "c"], dtype=object)).mse == 0.5
    assert not one(torch.tensor([True]), torch.tensor([False])).ok
    assert one(torch.tensor([1 + 2j]), torch.tensor([1 + 3j])).max_abs == 1.0
    assert one(torch.empty(0, 3), torch.empty(0, 3)).ok
    assert one(None, None).ok


@given(st.floats(-(2.0**100), 2.0**100, width=32), st.integers(1, 50))
def test_ulp_counts_representable_floats(start: float, steps: int) -> None:
    stop = np.float32(start)
    for _ in range(steps):
        stop = np.nextafter(stop, np.float32(INF))
    assert max_ulp(torch.tensor([start]), torch.tensor([float(stop)])) == steps


@pytest.mark.parametrize(
    ("a", "b", "ulp"),
    [
        (torch.tensor([0.0]), torch.tensor([-0.0]), 0),
        (torch.tensor(1.0), torch.tensor(1.0 + 2**-23), 1),
        (torch.tensor([1.0], dtype=torch.bfloat16), torch.tensor([1.0078125]).bfloat16(), 1),
        (torch.tensor([1.0]).half(), torch.tensor([2.0]).half(), 1024),
        (torch.ones(1).double(), torch.ones(1).double() + 2**-52, 1),
    ],
)
def test_ulp_by_type(a: Tensor, b: Tensor, ulp: int) -> None:
    assert max_ulp(a, b) == ulp


def test_ulp_of_opposite_doubles_does_not_overflow() -> None:
    largest = torch.tensor([torch.finfo(torch.float64).max], dtype=torch.float64)
    assert max_ulp(largest, -largest) > 2.0**62

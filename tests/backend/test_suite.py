"""ONNX's own backend suite: every case that the onnx package ships, run as for any other runtime.

`cases.txt` names the few that are not compared value by value, and why.
"""

from __future__ import annotations

import unittest
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx.backend.test
import pytest

from onnxinterp import backend

MANIFEST = Path(__file__).with_name("cases.txt")


class Suite(onnx.backend.test.BackendTest):
    """The suite as it is, but for sequences.

    It takes the tensors of a sequence for sequences themselves, which no scalar is.
    """

    @classmethod
    def assert_similar_outputs(
        cls,
        ref_outputs: Sequence[Any],
        outputs: Sequence[Any],
        rtol: float,
        atol: float,
        model_dir: str | None = None,
    ) -> None:
        assert lengths(outputs) == lengths(ref_outputs)
        super().assert_similar_outputs(flat(ref_outputs), flat(outputs), rtol, atol, model_dir)


def lengths(outputs: Sequence[Any]) -> list[Any]:
    """How long each sequence is, and those within it; None for a tensor."""
    return [lengths(o) if isinstance(o, (list, tuple)) else None for o in outputs]


def flat(outputs: Sequence[Any]) -> list[Any]:
    """The tensors, those of sequences in their places."""
    return [t for o in outputs for t in (flat(o) if isinstance(o, (list, tuple)) else [o])]


class RandomSuite(Suite):
    """The suite where answers are random: they have the type and the shape of the expected ones."""

    @classmethod
    def assert_similar_outputs(
        cls,
        ref_outputs: Sequence[Any],
        outputs: Sequence[Any],
        rtol: float,
        atol: float,
        model_dir: str | None = None,
    ) -> None:
        del rtol, atol, model_dir
        told = [(np.shape(o), o.dtype) for o in outputs]
        assert told == [(np.shape(o), o.dtype) for o in ref_outputs]


class RoundedSuite(Suite):
    """The suite where the expected elements are rounded in between, and ours only once.

    They may differ by as much as the greatest of them is rounded.
    """

    @classmethod
    def assert_similar_outputs(
        cls,
        ref_outputs: Sequence[Any],
        outputs: Sequence[Any],
        rtol: float,
        atol: float,
        model_dir: str | None = None,
    ) -> None:
        last_place = max(np.finfo(r.dtype).eps * np.abs(r).max() for r in ref_outputs)
        atol = max(atol, float(last_place))
        super().assert_similar_outputs(ref_outputs, outputs, rtol, atol, model_dir)


class TiedSuite(Suite):
    """The suite where all logits are equal: the last bits decide which have a part of the softmax.

    A library may sum the last columns of a product in another order than the others.
    """

    @classmethod
    def assert_similar_outputs(
        cls,
        ref_outputs: Sequence[Any],
        outputs: Sequence[Any],
        rtol: float,
        atol: float,
        model_dir: str | None = None,
    ) -> None:
        del rtol, model_dir
        for ours, expected in zip(outputs, ref_outputs, strict=True):
            assert np.ptp(expected) <= atol, "the expected probabilities are equal"
            np.testing.assert_allclose(ours.sum(), expected.sum(), rtol=1e-5)
            parts = ours[ours > atol]
            np.testing.assert_allclose(parts, parts.mean(), rtol=1e-3)


def manifest() -> dict[str, tuple[str, str]]:
    """Case -> (how: "rounded", "random", "tied" or "fails", why), from lines `case | how | why`."""
    cases = {}
    for line in MANIFEST.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            case, how, why = (part.strip() for part in line.split("|"))
            assert how in ("rounded", "random", "tied", "fails"), line
            cases[case] = how, why
    return cases


def cases_of(suite: type[Suite]) -> dict[str, type[unittest.TestCase]]:
    """The suite's classes of cases; it overflows on purpose while it makes them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return suite(backend, __name__).test_cases


TOLD = manifest()
SUITES = {
    "compared": cases_of(Suite),
    "rounded": cases_of(RoundedSuite),
    "random": cases_of(RandomSuite),
    "tied": cases_of(TiedSuite),
}
CASES = {
    method.removesuffix("_cpu"): group
    for group, case in SUITES["compared"].items()
    for method in dir(case)
    if method.startswith("test_") and method.endswith("_cpu")
}


def parameters() -> list[Any]:
    marks = {
        name: [pytest.mark.xfail(reason=why, strict=True)]
        for name, (how, why) in TOLD.items()
        if how == "fails"
    }
    return [pytest.param(name, id=name, marks=marks.get(name, ())) for name in sorted(CASES)]


@pytest.mark.filterwarnings("default")  # of the suite's own: numpy meets nan and infinity
@pytest.mark.parametrize("case", parameters())
def test_case(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNX_HOME", str(tmp_path))  # light models leave their data there
    how, _why = TOLD.get(case, ("compared", ""))
    method = f"{case}_cpu"
    getattr(SUITES.get(how, SUITES["compared"])[CASES[case]](method), method)()


def test_every_line_of_the_manifest_names_a_case() -> None:
    assert TOLD.keys() <= CASES.keys()


def test_a_wrong_answer_fails_its_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer off by one hundredth is noticed."""
    answer = backend.TorchBackendRep.run
    monkeypatch.setattr(
        backend.TorchBackendRep,
        "run",
        lambda self, inputs: tuple(a * np.float32(1.01) for a in answer(self, inputs)),
    )
    case = SUITES["compared"][CASES["test_relu"]]("test_relu_cpu")
    with pytest.raises(AssertionError, match="Mismatched elements"):
        case.test_relu_cpu()

"""The inputs are the very arrays they were when the manifest was written."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import pytest

from tests.zoo.inputs import KINDS, make_inputs
from tests.zoo.manifest import Model, manifest

# of one small case each, rounded to four decimals, so that a platform's sine may differ in its last
DIGESTS = {
    "normal": "bc581ab64f36604f",
    "normal_small": "a7364704faec2319",
    "uniform": "1c3c01c6ad704fd1",
    "randint": "fc1729f81213249d",
    "const": "c2b3c6fad07fba07",
    "binary": "76507e055a2ddd87",
    "halves": "94ea2e24f623fae3",
    "prefix_mask": "33721653dacdb07e",
    "edges": "b80f2f8f1bad41ba",
    "ramp": "0661990a75037719",
    "image": "d3136dcce0d3d7d7",
    "audio": "133ad647640b2a61",
    "textimg": "6bed292a753b0071",
}

SPEC = {"dtype": "float32", "shape": [2, 3, 70, 90], "lo": -1, "hi": 2, "value": 3}
SHAPES = {"edges": [2, 40], "prefix_mask": [3, 12]}
BOUNDS = {"edges": {"hi": 9}, "randint": {"lo": 1, "hi": 50}}


def digest(kind: str) -> str:
    spec = SPEC | {"kind": kind, "shape": SHAPES.get(kind, SPEC["shape"])} | BOUNDS.get(kind, {})
    array = make_inputs({"x": spec}, seed=3)["x"].astype(np.float64)
    return hashlib.sha256((np.round(array, 4) + 0.0).tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("kind", KINDS)
def test_kind_makes_the_same_array_as_ever(kind: str) -> None:
    assert digest(kind) == DIGESTS[kind]


@pytest.mark.parametrize("model", manifest(), ids=lambda m: m.name)
def test_inputs_have_the_declared_types_and_repeat(model: Model) -> None:
    for case, first, second in zip(model.cases, model.inputs(), model.inputs(), strict=True):
        assert list(first) == list(case)
        for name, spec in case.items():
            assert first[name].shape == tuple(spec["shape"])
            assert first[name].dtype == spec["dtype"]
            np.testing.assert_array_equal(first[name], second[name])


def test_cases_of_a_model_differ() -> None:
    for model in manifest():
        arrays = [next(iter(inputs.values())) for inputs in model.inputs()]
        for first, second in pairwise(arrays):
            assert first.shape != second.shape or not np.array_equal(first, second)

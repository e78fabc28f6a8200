"""Where onnxruntime leaves the specification, or that says nothing: what was decided."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor

from onnxinterp import InvalidModelError, OnnxModule
from tests.ml.forests import model
from tests.ml.one_operator import in_onnxruntime

X = torch.tensor([[-1.0], [1.0]])


def close(got: Tensor, want: Any) -> None:
    torch.testing.assert_close(got.detach(), torch.tensor(want))


def stump(classes: list[int], left: list[float], right: list[float], **more: Any) -> OnnxModule:
    """One tree, x <= 0: the weights `left` for `classes`, or `right`; labels are 10 and 20."""
    n = len(classes)
    return OnnxModule(
        model(
            "TreeEnsembleClassifier",
            3,
            2,
            nodes_treeids=[0, 0, 0],
            nodes_nodeids=[0, 1, 2],
            nodes_featureids=[0, 0, 0],
            nodes_values=[0.0, 0.0, 0.0],
            nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
            nodes_truenodeids=[1, 0, 0],
            nodes_falsenodeids=[2, 0, 0],
            class_treeids=[0] * (2 * n),
            class_nodeids=[1] * n + [2] * n,
            class_ids=classes * 2,
            class_weights=left + right,
            classlabels_int64s=[10, 20],
            **more,
        )
    )


def test_of_two_scores_the_higher_one_wins() -> None:
    """Here onnxruntime answers 1 twice: the second score is positive."""
    labels, scores = stump([0, 1], [0.8, 0.2], [0.3, 0.7])(X)
    assert labels.tolist() == [10, 20]
    close(scores, [[0.8, 0.2], [0.3, 0.7]])


def test_two_base_values_are_those_of_two_classes() -> None:
    """Here onnxruntime forgets a base value, a score, or both."""
    labels, scores = stump([0], [0.25], [0.75], base_values=[0.125, 0.5])(X)
    assert labels.tolist() == [20, 10]
    close(scores, [[0.375, 0.5], [0.875, 0.5]])
    labels, scores = stump([1], [0.25], [0.75], base_values=[0.5, 0.125])(X)
    assert labels.tolist() == [10, 20]
    close(scores, [[0.5, 0.375], [0.5, 0.875]])


def test_probit_of_one_score_is_that_of_both_probabilities() -> None:
    """Here onnxruntime leaves the second score as it found it in memory."""
    _, scores = stump([0], [0.25], [0.75], post_transform="PROBIT")(X)
    want = torch.special.ndtri(torch.tensor([[0.75, 0.25], [0.25, 0.75]]))
    torch.testing.assert_close(scores.detach(), want, rtol=1e-3, atol=1e-3)


def split(x: Tensor, **changed: Any) -> Tensor:
    """TreeEnsemble: one node, x <= 0, with leaves 0.25 (true) and 0.75 (false)."""

    def tensor(values: list[float], dtype: Any = np.float32) -> Any:
        return numpy_helper.from_array(np.array(values, dtype=dtype))

    attributes = {
        "n_targets": 1,
        "tree_roots": [0],
        "nodes_featureids": [0],
        "nodes_modes": [0],
        "nodes_splits": tensor([0.0]),
        "nodes_truenodeids": [0],
        "nodes_falsenodeids": [1],
        "nodes_trueleafs": [1],
        "nodes_falseleafs": [1],
        "leaf_targetids": [0, changed.get("n_targets", 1) - 1],
        "leaf_weights": tensor([0.25, 0.75]),
        **changed,
    }
    attributes["nodes_modes"] = tensor(attributes["nodes_modes"], np.uint8)
    if "membership_values" in changed:
        attributes["membership_values"] = tensor(changed["membership_values"])
    proto = model("TreeEnsemble", 5, **attributes)
    got: Tensor = OnnxModule(proto)(x)
    return got


def test_transforms_of_tree_ensemble_have_the_specifications_numbers() -> None:
    scores = torch.tensor([[0.25, 0.0], [0.0, 0.75]])
    close(split(X, n_targets=2, post_transform=1), scores.softmax(1).tolist())
    close(split(X, n_targets=2, post_transform=2), scores.sigmoid().tolist())


def test_members_are_numbers_not_integers() -> None:
    """Here onnxruntime takes 1.5 for 1 where a member is above 30."""
    x = torch.tensor([[1.0], [1.5], [40.0], [-0.5], [-7.25]])
    got = split(x, nodes_modes=[6], membership_values=[40.0, 1.0, 0.0, -7.25, math.nan])
    close(got, [[0.25], [0.75], [0.25], [0.75], [0.25]])


@pytest.mark.parametrize("track", [0, 1])
def test_nan_is_unequal_whatever_the_track(track: int) -> None:
    x = torch.tensor([[math.nan], [0.0]])
    got = split(x, nodes_modes=[5], nodes_missing_value_tracks_true=[track])
    close(got, [[0.25], [0.75]])


@pytest.mark.parametrize(
    "changed",
    [
        {"nodes_truenodeids": [-1]},
        {"nodes_falsenodeids": [2]},
        {"nodes_trueleafs": [0], "nodes_truenodeids": [1]},
        {"tree_roots": [-1]},
        {"nodes_featureids": [-1]},
        {"leaf_targetids": [0, 1]},
    ],
)
def test_what_points_nowhere_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(InvalidModelError):
        split(X, **changed)


def test_branches_may_meet_again() -> None:
    """How LightGBM's converter writes a set: tests of equality that share their true branch."""
    attributes: dict[str, Any] = {
        "nodes_treeids": [0] * 5,
        "nodes_nodeids": [0, 1, 2, 3, 4],
        "nodes_featureids": [0] * 5,
        "nodes_values": [1.0, 2.0, 5.0, 0.0, 0.0],
        "nodes_modes": ["BRANCH_EQ"] * 3 + ["LEAF"] * 2,
        "nodes_truenodeids": [4, 4, 4, 0, 0],
        "nodes_falsenodeids": [1, 2, 3, 0, 0],
        "target_treeids": [0, 0],
        "target_nodeids": [3, 4],
        "target_ids": [0, 0],
        "target_weights": [-1.0, 1.0],
        "n_targets": 1,
    }
    proto = model("TreeEnsembleRegressor", 3, **attributes)
    x = np.array([[1], [2], [3], [5], [0], [np.nan]], np.float32)
    (want,) = in_onnxruntime(proto, {"x": x})
    close(OnnxModule(proto)(torch.from_numpy(x)), want.tolist())


@pytest.mark.parametrize("probable", [False, True])
def test_probit_after_support_vectors(probable: bool) -> None:
    """Scores away from 1/2, where onnxruntime's formula keeps its digits."""
    attributes: dict[str, Any] = {
        "classlabels_ints": [3, 1, 2],
        "coefficients": [0.02, -0.01, 0.01, 0.02, -0.02, 0.01],
        "kernel_params": [0.5, 0.0, 0.0],
        "kernel_type": "RBF",
        "post_transform": "PROBIT",
        "rho": [0.7, 0.2, 0.3],
        "support_vectors": [0.5, -0.5, 1.0],
        "vectors_per_class": [1, 1, 1],
    }
    if probable:
        attributes |= {"prob_a": [-0.5, 0.7, -1.0], "prob_b": [0.1, 0.2, -0.1]}
    proto = model("SVMClassifier", 1, 2, **attributes)
    labels, scores = OnnxModule(proto)(X)
    want_labels, want = in_onnxruntime(proto, {"x": X.numpy()})
    assert labels.tolist() == want_labels.tolist()
    np.testing.assert_allclose(scores.detach(), want, 1e-3)


def test_coefficients_of_features_that_are_not_there() -> None:
    """The file ships some for four features, the input has two."""
    proto = model(
        "LinearClassifier",
        1,
        2,
        classlabels_ints=[0, 1, 2],
        coefficients=[0.1 * n for n in range(12)],
        intercepts=[0.5, 0.1, -0.2],
    )
    x = np.array([[1, 2], [-3, 1], [0, 0]], np.float32)
    labels, scores = OnnxModule(proto)(torch.from_numpy(x))
    want_labels, want = in_onnxruntime(proto, {"x": x})
    assert labels.tolist() == want_labels.tolist()
    np.testing.assert_allclose(scores.detach(), want, 1e-5)

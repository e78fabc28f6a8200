"""Whole forests: 100 trees of depth 8, against onnxruntime; capture, devices, training."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch.export import Dim

from onnxinterp import InvalidModelError, NodeError, OnnxModule
from tests.ml.forests import listed, model, rows
from tests.ml.one_operator import in_onnxruntime

TREES, DEPTH = 100, 8


@pytest.mark.parametrize("n", [1, 1000])
@pytest.mark.parametrize("named", ["classlabels_strings", "classlabels_int64s"])
def test_a_classifier_gives_onnxruntimes_labels_and_probabilities(n: int, named: str) -> None:
    names = ["setosa", "versicolor", "virginica"] if named.endswith("strings") else [4, 2, 7]
    proto = model(
        "TreeEnsembleClassifier", 3, 2, **listed(TREES, DEPTH, 3, "class"), **{named: names}
    )
    x = rows(n)
    labels, scores = OnnxModule(proto)(torch.from_numpy(x))
    wanted_labels, wanted_scores = in_onnxruntime(proto, {"x": x})
    assert list(labels) == wanted_labels.tolist()
    np.testing.assert_allclose(scores.detach(), wanted_scores, 1e-5, 1e-6)


def test_two_classes_with_one_column_of_weights() -> None:
    lists = listed(TREES, DEPTH, 1, "class")
    proto = model("TreeEnsembleClassifier", 1, 2, **lists, classlabels_int64s=[0, 1])
    x = rows(1000)
    labels, scores = OnnxModule(proto)(torch.from_numpy(x))
    wanted_labels, wanted_scores = in_onnxruntime(proto, {"x": x})
    assert labels.tolist() == wanted_labels.tolist()
    np.testing.assert_allclose(scores.detach(), wanted_scores, 1e-5, 1e-5)


@pytest.mark.parametrize("n", [1, 3000])
@pytest.mark.parametrize("targets", [1, 4])
def test_a_regressor_in_blocks_of_rows(n: int, targets: int) -> None:
    lists = listed(TREES, DEPTH, targets, "target")
    proto = model("TreeEnsembleRegressor", 3, **lists, n_targets=targets)
    x = rows(n)
    np.testing.assert_allclose(
        OnnxModule(proto)(torch.from_numpy(x)).detach(), *in_onnxruntime(proto, {"x": x}), 1e-5
    )


def test_doubles_are_compared_as_doubles() -> None:
    lists = listed(TREES, DEPTH, 1, "target")
    x = rows(200, np.float64)
    for name in ("nodes_values", "target_weights"):
        lists[f"{name}_as_tensor"] = numpy_helper.from_array(np.array(lists.pop(name)))
    thresholds = numpy_helper.to_array(lists["nodes_values_as_tensor"])
    x[:, 0] = thresholds[np.array(lists["nodes_featureids"]) == 0][:200]
    x[::2, 0] = np.nextafter(x[::2, 0], np.inf)
    proto = model("TreeEnsembleRegressor", 3, **lists, n_targets=1)
    got = OnnxModule(proto)(torch.from_numpy(x))
    assert got.dtype is torch.float32
    np.testing.assert_allclose(got.detach(), *in_onnxruntime(proto, {"x": x}), 1e-6)


@pytest.fixture(params=[1, 3])
def regressor(request: pytest.FixtureRequest) -> OnnxModule:
    lists = listed(8, 5, 2, "target")
    return OnnxModule(model("TreeEnsembleRegressor", request.param, **lists, n_targets=2))


def test_one_graph_for_all_numbers_of_rows(regressor: OnnxModule) -> None:
    compiled = torch.compile(regressor, fullgraph=True, dynamic=True, backend="aot_eager")
    free = {"x": {0: Dim("N", min=2)}}
    x = torch.from_numpy(rows(5))
    program = torch.export.export(regressor, (x,), dynamic_shapes=free).module()
    for n in (5, 64):
        x = torch.from_numpy(rows(n))
        torch.testing.assert_close(compiled(x), regressor(x))
        torch.testing.assert_close(program(x), regressor(x))


def test_a_copy_moves_and_answers_alike(regressor: OnnxModule) -> None:
    x = torch.from_numpy(rows(5))
    want = regressor(x)
    for copied in (copy.deepcopy(regressor), pickle.loads(pickle.dumps(regressor))):
        torch.testing.assert_close(copied(x), want)
    assert copy.deepcopy(regressor).to("meta")(x.to("meta")).shape == want.shape
    torch.testing.assert_close(regressor.double()(x.double()), want.double())


def test_the_weights_of_leaves_train(regressor: OnnxModule) -> None:
    assert list(regressor.weights) == ["model.target_weights"]
    x = torch.from_numpy(rows(64))
    optimizer = torch.optim.SGD(regressor.parameters(), lr=0.5)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        losses.append((regressor(x) - 1).square().mean())
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 2


def test_a_forest_that_is_none_is_refused() -> None:
    lists = listed(2, 2, 1, "target")

    def refused(match: str, **changed: object) -> None:
        with pytest.raises(InvalidModelError, match=match):
            OnnxModule(model("TreeEnsembleRegressor", 3, **{"n_targets": 1, **lists, **changed}))

    n = len(lists["nodes_modes"])
    refused("nodes of a tree must have different ids", nodes_nodeids=[0] * n)
    refused("must have a node 99, got none", nodes_truenodeids=[99] * n)
    refused("nodes_modes must be known, got BRANCH_UP", nodes_modes=["BRANCH_UP"] * n)
    refused("shorter", nodes_modes=["LEAF"])
    refused("trees must not have a cycle", nodes_truenodeids=[0] * n)
    refused("targets must be below 1, got 1", target_ids=[1] * len(lists["target_ids"]))
    with pytest.raises(InvalidModelError, match="the node must have trees, got none"):
        OnnxModule(model("TreeEnsembleRegressor", 3, n_targets=1))
    refused("n_targets, or labels of classes, must be given", n_targets=0)


def test_missing_columns_are_told() -> None:
    proto = model("TreeEnsembleRegressor", 3, **listed(8, 5, 1, "target"), n_targets=1)
    with pytest.raises(NodeError) as caught:
        OnnxModule(proto)(torch.zeros(1, 3))
    assert "X must have 12 columns, got 3" in str(caught.value.__cause__)

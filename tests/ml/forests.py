"""Forests as scikit-learn grows and exports them, untrained: random splits, random leaves."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper

ML = "ai.onnx.ml"
FEATURES = 12


def listed(n_trees: int, depth: int, n_classes: int, prefix: str, seed: int = 0) -> dict[str, Any]:
    """Attributes of TreeEnsembleClassifier ("class") or TreeEnsembleRegressor ("target").

    Nodes come depth first; one branch in ten ends early. The leaves of a classifier hold the
    probabilities of all classes, divided by the number of trees.
    """
    rng = np.random.default_rng(seed)
    columns = ("treeids", "nodeids", "modes", "featureids", "values", "truenodeids", "falsenodeids")
    lists: dict[str, list[Any]] = {f"nodes_{name}": [] for name in columns}
    votes: dict[str, list[Any]] = {
        f"{prefix}_{name}": [] for name in ("treeids", "nodeids", "ids", "weights")
    }

    def add(group: dict[str, list[Any]], *row: Any) -> int:
        for column, value in zip(group.values(), row, strict=True):
            column.append(value)
        return len(next(iter(group.values()))) - 1

    def grow(tree: int, start: int, left: int) -> int:
        is_leaf = not left or (left < depth and rng.random() < 0.1)
        mode, split = ("LEAF", 0.0) if is_leaf else ("BRANCH_LEQ", float(rng.normal()))
        feature = int(rng.integers(FEATURES))
        position = len(lists["nodes_modes"])
        node = position - start
        add(lists, tree, node, mode, feature, split, 0, 0)
        if is_leaf:
            for target, weight in enumerate(rng.dirichlet(np.ones(n_classes)) / n_trees):
                add(votes, tree, node, target, float(weight))
        else:
            lists["nodes_truenodeids"][position] = grow(tree, start, left - 1)
            lists["nodes_falsenodeids"][position] = grow(tree, start, left - 1)
        return node

    for tree in range(n_trees):
        grow(tree, len(lists["nodes_modes"]), depth)
    return {**lists, **votes}


def model(op_type: str, version: int, n_outputs: int = 1, **attributes: Any) -> onnx.ModelProto:
    """A model of one node called `model`, from `x` of shape [N, FEATURES] to `y0`, `y1`."""
    outputs = [f"y{i}" for i in range(n_outputs)]
    node = helper.make_node(op_type, ["x"], outputs, "model", domain=ML, **attributes)
    wide = any(n.endswith("_as_tensor") for n in attributes)
    elem_type = onnx.TensorProto.DOUBLE if wide else onnx.TensorProto.FLOAT
    info = helper.make_tensor_value_info("x", elem_type, ["N", None])
    results = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph([node], "one", [info], results)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(ML, version)], ir_version=8)


def rows(n: int, dtype: Any = np.float32) -> Any:
    """Normally distributed inputs."""
    return np.random.default_rng(1).normal(size=(n, FEATURES)).astype(dtype)

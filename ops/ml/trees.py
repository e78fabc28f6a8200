"""Trees and forests: TreeEnsemble, TreeEnsembleClassifier, TreeEnsembleRegressor.

History: TreeEnsembleClassifier and -Regressor 1, 3 (tensors in place of floats), 5 (deprecated).
TreeEnsemble 5 (separate leaves, tests of membership; no base values, no labels).

The weights of the leaves train; the thresholds have no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.errors import InvalidModelError
from onnxinterp.ops.ml.registration import ml_op
from onnxinterp.ops.ml.scores import (
    PostTransform,
    labels,
    pair,
    transform_scores,
    type_of_labels,
)
from onnxinterp.ops.ml.tree_tables import (
    Array,
    Forest,
    Places,
    Votes,
    forest,
    listed_nodes,
    split_nodes,
    without_sets,
)
from onnxinterp.values import Floats, Ints, Strings
from onnxinterp.versions import forwards, older

AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")  # index: the number in TreeEnsemble
POST_TRANSFORMS = get_args(PostTransform)  # likewise
REDUCTIONS = {"AVERAGE": "sum", "SUM": "sum", "MIN": "amin", "MAX": "amax"}
BLOCK = 2**17  # number of states that fit into a cache


def _scores(
    X: Tensor, trees: Forest, weights: Tensor, aggregate: str = "SUM", absent: float = 0.0
) -> Tensor:
    """The sums of votes, [rows, targets]; `absent` for targets without a vote.

    Computed in blocks of rows, or at once in a captured graph.
    """
    if X.shape[1] < trees.n_features:
        raise ValueError(f"X must have {trees.n_features} columns, got {X.shape[1]}")
    X = X if X.is_floating_point() else X.double()
    weights = weights.flatten().to(torch.promote_types(weights.dtype, X.dtype))
    rows = max(1, BLOCK // (len(trees.roots) * trees.vote.shape[1]))
    if torch.compiler.is_compiling() or X.shape[0] <= rows:
        return _tally(_walk(X, trees), trees, weights, aggregate, absent)
    blocks = [
        _tally(_walk(x, trees), trees, weights, aggregate, absent) for x in torch.split(X, rows)
    ]
    return torch.cat(blocks)


def _walk(X: Tensor, trees: Forest) -> Tensor:
    """The leaf that each row reaches in each tree, [rows, trees]."""
    shape = (X.shape[0], len(trees.roots))
    state = trees.roots.repeat(X.shape[0])
    for _ in range(trees.depth):
        x = X.gather(1, trees.feature.index_select(0, state).view(shape)).flatten()
        holds = x <= trees.threshold.index_select(0, state)
        if trees.missing is not None:
            holds = holds | x.isnan() & trees.missing.index_select(0, state)
        state = trees.child.index_select(0, state + holds)
    return (state // 2).view(shape)


def _tally(leaf: Tensor, trees: Forest, weights: Tensor, aggregate: str, absent: float) -> Tensor:
    """Aggregate the weights of leaves [rows, trees] to [rows, targets]."""
    n, share = trees.n_targets, len(trees.roots) if aggregate == "AVERAGE" else 1
    if trees.in_order and REDUCTIONS[aggregate] == "sum":
        return functional.embedding_bag(leaf, weights.view(-1, n), mode="sum") / share
    shape = (leaf.shape[0], leaf.shape[1] * trees.vote.shape[1])
    vote = trees.vote.index_select(0, leaf.flatten()).flatten()
    target = trees.target.index_select(0, leaf.flatten()).view(shape)
    values = functional.pad(weights, (0, 1)).index_select(0, vote).view(shape)
    total = values.new_full((shape[0], n + 1), absent)
    total = total.scatter_reduce(1, target, values, REDUCTIONS[aggregate], include_self=False)
    return total[:, :n] / share


def _regress(
    X: Tensor,
    trees: Forest,
    weights: Tensor,
    aggregate: str,
    base: Tensor | None,
    post_transform: str,
) -> Tensor:
    y = _scores(X, trees, weights, aggregate)
    return transform_scores(y if base is None else y + base.to(y.dtype), post_transform)


@forwards(split_nodes)
def _split(
    *,
    leaf_targetids: Ints,
    membership_values: Array | None = None,
    n_targets: int | None = None,
    tree_roots: Ints,
    **nodes: Any,
) -> Forest:
    if not n_targets:
        raise InvalidModelError("n_targets must be given")
    table = split_nodes(len(leaf_targetids), **nodes)
    members = np.zeros(0) if membership_values is None else membership_values
    leaf = len(table.mode) - len(leaf_targetids) + np.arange(len(leaf_targetids))
    votes = Votes(leaf, leaf_targetids, n_targets)
    return forest(without_sets(table, members), np.array(tree_roots), votes)


@ml_op("TreeEnsemble", since=5, frozen=("X",), prepare=_split)
def tree_ensemble(
    X: Tensor,
    *,
    leaf_weights: Tensor,
    aggregate_function: int = 1,
    post_transform: int = 0,
    prepared: Forest,
) -> Tensor:
    """SOFTMAX is 1 and LOGISTIC 2, as specified; onnxruntime swaps them."""
    aggregate, transform = AGGREGATES[aggregate_function], POST_TRANSFORMS[post_transform]
    return _regress(X, prepared, leaf_weights, aggregate, None, transform).to(X.dtype)


def _one_of(floats: Any, tensor: Any) -> Any:
    """The attribute, which is a list of floats or a tensor."""
    return floats if tensor is None else tensor


@forwards(listed_nodes)
def _regressor(
    *,
    n_targets: int | None = None,
    nodes_nodeids: Ints | None = None,
    nodes_treeids: Ints | None = None,
    target_ids: Ints | None = None,
    target_nodeids: Ints | None = None,
    target_treeids: Ints | None = None,
    **nodes: Any,
) -> Forest:
    if not n_targets:
        raise InvalidModelError("n_targets, or labels of classes, must be given")
    places = Places(nodes_treeids or (), nodes_nodeids or ())
    table = listed_nodes(places, **nodes)
    leaf = [places[key] for key in zip(target_treeids or (), target_nodeids or (), strict=True)]
    return forest(table, places.roots(), Votes(leaf, target_ids or (), n_targets))


@ml_op("TreeEnsembleRegressor", since=3, frozen=("X",), prepare=_regressor)
def tree_ensemble_regressor(
    X: Tensor,
    *,
    aggregate_function: str = "SUM",
    base_values: Tensor | None = None,
    base_values_as_tensor: Tensor | None = None,
    post_transform: PostTransform = "NONE",
    target_weights: Tensor | None = None,
    target_weights_as_tensor: Tensor | None = None,
    prepared: Forest,
) -> Tensor:
    """Base values are also added to targets without a vote; onnxruntime omits them."""
    weights = _one_of(target_weights, target_weights_as_tensor)
    base = _one_of(base_values, base_values_as_tensor)
    y = _regress(X, prepared, weights, aggregate_function, base, post_transform)
    return y.to(torch.float32 if target_weights is None else target_weights.dtype)


tree_ensemble_regressor_1 = older(
    tree_ensemble_regressor,
    since=1,
    without=["nodes_values_as_tensor", "base_values_as_tensor", "target_weights_as_tensor"],
)


class Classifier(NamedTuple):
    """A forest and the rule for a class from its scores.

    Attributes:
        trees: its targets are the classes.
        decisive: the class whose score decides between two; None: the highest score wins.
        alone: whether that is the only score; the other one is computed from it.
        positive: whether all weights are positive, as probabilities are.
    """

    trees: Forest
    decisive: int | None
    alone: bool
    positive: bool


@forwards(_regressor, without=["target_treeids", "target_nodeids", "target_ids", "n_targets"])
def _classifier(
    *,
    class_treeids: Ints | None = None,
    class_nodeids: Ints | None = None,
    class_ids: Ints | None = None,
    class_weights: Floats | None = None,
    class_weights_as_tensor: Array | None = None,
    base_values: Floats | None = None,
    base_values_as_tensor: Array | None = None,
    classlabels_int64s: Ints | None = None,
    classlabels_strings: Sequence[str] | None = None,
    **nodes: Any,
) -> Classifier:
    trees = _regressor(
        target_treeids=class_treeids,
        target_nodeids=class_nodeids,
        target_ids=class_ids,
        n_targets=len(classlabels_strings or classlabels_int64s or ()),
        **nodes,
    )
    base = _one_of(base_values or (), base_values_as_tensor)
    weights = np.array(_one_of(class_weights or (), class_weights_as_tensor))
    return _rule(trees, set(class_ids or ()), len(base), bool((weights >= 0).all()))


def _rule(trees: Forest, voted: set[int], n_base: int, positive: bool) -> Classifier:
    """The classifier for votes for the classes `voted` and `n_base` base values."""
    n = trees.n_targets
    one_score = n == 2 and len(voted) == 1 and n_base < 2
    decisive = 0 if n == 1 else min(voted) if one_score else None
    return Classifier(trees, decisive, decisive == 0, positive)


@ml_op(
    "TreeEnsembleClassifier",
    since=3,
    frozen=("X",),
    prepare=_classifier,
    infer_output_type=type_of_labels,
)
def tree_ensemble_classifier(
    X: Tensor,
    *,
    base_values: Tensor | None = None,
    base_values_as_tensor: Tensor | None = None,
    class_weights: Tensor | None = None,
    class_weights_as_tensor: Tensor | None = None,
    classlabels_int64s: Ints | None = None,
    classlabels_strings: Sequence[str] | None = None,
    post_transform: PostTransform = "NONE",
    prepared: Classifier,
) -> tuple[Tensor | Strings, Tensor]:
    """The class is that of the highest score before the transform.

    If two classes have one score, it is the probability of the second class if all weights are
    positive, else its margin, as in onnxruntime. If they have two scores, onnxruntime uses only the
    second one, and returns 0 and 1 in place of labels: this kernel follows the specification.
    """
    weights = _one_of(class_weights, class_weights_as_tensor)
    z = _scores(X, prepared.trees, weights, absent=math.nan)
    z, unvoted = _with_base(z, _one_of(base_values, base_values_as_tensor))
    n = z.shape[1]
    if prepared.decisive is None:
        winner = z.masked_fill(unvoted, -math.inf).argmax(1)
    else:
        limit = 0.5 if prepared.positive and n > 1 else 0.0
        winner = (z[:, prepared.decisive] > limit).long()
    if prepared.alone and n > 1:
        z = pair(z[:, :1], prepared.positive, post_transform)
    else:
        z = transform_scores(z, post_transform)
    z = z.to(torch.float32 if class_weights is None else class_weights.dtype)
    if n > 1:
        return labels(winner, classlabels_int64s, classlabels_strings), z
    # a single class: as in onnxruntime, its label if that is a string, else 0 or 1
    return labels(winner, [0, 1], [*classlabels_strings] * 2 if classlabels_strings else None), z


def _with_base(z: Tensor, base: Tensor | None) -> tuple[Tensor, Tensor]:
    """Scores with base values, 0 in place of nan, and whether a score had no vote."""
    unvoted = z.isnan()
    z = z.masked_fill(unvoted, 0)
    if base is None:
        return z, unvoted
    if len(base) == z.shape[1]:
        return z + base.to(z.dtype), torch.zeros_like(unvoted)
    # one value for two classes is that of the first one, if that has a score
    base = functional.pad(base, (0, z.shape[1] - len(base)))
    return torch.where(unvoted, z, z + base.to(z.dtype)), unvoted


tree_ensemble_classifier_1 = older(
    tree_ensemble_classifier,
    since=1,
    without=["nodes_values_as_tensor", "base_values_as_tensor", "class_weights_as_tensor"],
)

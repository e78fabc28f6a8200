"""Random forests for the samples of `trees`: leaves alone, stumps, chains, bushes.

Thresholds and inputs are on one grid, so that they are often equal. Most weights are multiples of
1/16, so that sums are exact and sometimes equal to the limits of the classifiers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from onnxinterp.ops.ml.scores import draw_labels, draw_transform
from onnxinterp.ops.ml.tree_tables import MODES
from onnxinterp.ops.ml.trees import (
    tree_ensemble,
    tree_ensemble_classifier,
    tree_ensemble_classifier_1,
    tree_ensemble_regressor,
    tree_ensemble_regressor_1,
)
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call

GRID = [0.0, -2.0, -1.5, -1.0, -0.5, 0.5, 1.0, 1.5, 2.0]
BEYOND = [math.nan, math.inf, -math.inf, -0.0]
TESTS = [name for name in MODES if name != "LEAF"]


@dataclass
class Tree:
    """Nodes in pre-order, the root first.

    Attributes:
        true: branch of each node; None at a leaf.
        false: the other one.
    """

    true: list[int | None] = field(default_factory=list)
    false: list[int | None] = field(default_factory=list)

    @property
    def leaves(self) -> list[int]:
        """The nodes without branches."""
        return [i for i, branch in enumerate(self.true) if branch is None]


def _tree(d: Draw) -> Tree:
    tree = Tree()

    def grow(depth: int, bushy: bool) -> int:
        node = len(tree.true)
        tree.true.append(None)
        tree.false.append(None)
        if depth and not (bushy and depth < 3 and d.boolean()):
            left = d.boolean()
            tree.true[node] = grow(depth - 1 if bushy or left else 0, bushy)
            tree.false[node] = grow(depth - 1 if bushy or not left else 0, bushy)
        return node

    bushy = d.boolean()
    grow(d.integer(0, 3 if bushy else 7), bushy)
    return tree


def _input(d: Draw, type: str, columns: int, beyond: bool = True) -> Tensor:
    """Rows on the grid; floating ones may have missing values and infinity."""
    shape = (d.shape(1, 1)[0], columns)
    dtype = d.dtype(type)
    beyond = beyond and dtype.is_floating_point and d.boolean()
    values = torch.tensor(GRID + BEYOND if beyond else GRID, dtype=torch.float64)
    return values[d.ints(shape, 0, len(values) - 1)].to(dtype)


def _weights(d: Draw, n: int, dtype: torch.dtype, positive: bool = False) -> list[float]:
    """Multiples of 1/16; small different numbers for float64, which gradient tests use."""
    if dtype is torch.float64:
        return d.floats((n,), 0.02, 0.06).tolist()
    return [i / 16 for i in d.ints((n,), 0 if positive else -16, 16).tolist()]


def _thresholds(d: Draw, n: int) -> list[float]:
    return [GRID[i] for i in d.ints((n,), 0, len(GRID) - 1).tolist()]


def _listed(d: Draw, trees: list[Tree], columns: int) -> dict[str, Any]:
    """The lists `nodes_*` of the older operators; ids in any order."""
    same = d.maybe(d.choice(TESTS))
    nodes: dict[str, list[Any]] = {
        f"nodes_{name}": []
        for name in ("treeids", "nodeids", "modes", "featureids", "truenodeids", "falsenodeids")
    }
    for number, tree in enumerate(trees):
        n = len(tree.true)
        inner = [branch is not None for branch in tree.true]
        ids = _ids(number, n)
        nodes["nodes_treeids"] += [3 * number] * n
        nodes["nodes_nodeids"] += ids
        nodes["nodes_modes"] += [(same or d.choice(TESTS)) if i else "LEAF" for i in inner]
        nodes["nodes_featureids"] += [d.integer(0, columns - 1) if i else 0 for i in inner]
        nodes["nodes_truenodeids"] += [0 if b is None else ids[b] for b in tree.true]
        nodes["nodes_falsenodeids"] += [0 if b is None else ids[b] for b in tree.false]
    n = len(nodes["nodes_modes"])
    tracks = d.maybe(d.ints((n,), 0, 1).tolist())
    return {
        **nodes,
        "nodes_values": _thresholds(d, n),
        "nodes_missing_value_tracks_true": tracks,
        "nodes_hitrates": d.maybe([1.0] * n),
    }


def _ids(number: int, n: int) -> list[int]:
    """Ids of nodes in pre-order; those of every second tree descend, but for its root."""
    return [0, *range(n - 1, 0, -1)] if number % 2 else list(range(n))


def _votes(
    d: Draw, trees: list[Tree], prefix: str, targets: list[int], complete: int, dtype: torch.dtype
) -> dict[str, Any]:
    """Votes of leaves in any order; those of the first `complete` trees are for all targets.

    Each leaf has a vote if there is only one target, and the first leaf always has one.
    """
    rows: list[tuple[int, int, int]] = []
    for number, tree in enumerate(trees):
        ids = _ids(number, len(tree.true))
        for leaf in tree.leaves:
            every = len(targets) == 1 or number < complete or d.boolean()
            chosen = [t for t in targets if every or d.boolean()] or targets[: not rows]
            rows += [(3 * number, ids[leaf], t) for t in chosen]
    if d.boolean():
        rows = [rows[i] for i in d.permutation(len(rows))]
    names = ("treeids", "nodeids", "ids")
    columns = {f"{prefix}_{n}": [row[i] for row in rows] for i, n in enumerate(names)}
    return {**columns, f"{prefix}_weights": _weights(d, len(rows), dtype, d.boolean())}


def _as_tensors(d: Draw, attributes: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Some floats as tensors, float64 as the input; these have finer thresholds."""
    floats = [n for n in attributes if n.endswith(("values", "weights", "hitrates"))]
    if d.opset < 3 or not d.boolean():
        return attributes
    dtype = torch.float64 if dtype is torch.float64 else torch.float32
    tensors = {}
    for name in [n for n in floats if attributes[n] and d.boolean()]:
        tensor = torch.tensor(attributes.pop(name), dtype=dtype)
        if name == "nodes_values" and dtype is torch.float64:
            tensor = tensor + 1e-12 * d.ints(tensor.shape, -1, 1)
        tensors[f"{name}_as_tensor"] = tensor
    return {**attributes, **tensors}


@sample(tree_ensemble_regressor, tree_ensemble_regressor_1)
def _(d: Draw) -> Call:
    """All targets have votes if there are base values: onnxruntime ignores these otherwise."""
    n, columns = d.integer(1, 3), d.integer(1, 3)
    x = _input(d, "T", columns)
    trees = [_tree(d) for _ in range(d.integer(1, 4))]
    base = _weights(d, n, x.dtype) if d.boolean() else None
    transform = draw_transform(d)
    complete = len(trees) if transform == "PROBIT" else 0 if base is None else 1
    attributes = {
        **_listed(d, trees, columns),
        **_votes(d, trees, "target", list(range(n)), complete, x.dtype),
        "base_values": base,
    }
    return call(
        x,
        **_as_tensors(d, attributes, x.dtype),
        n_targets=n,
        aggregate_function=d.maybe(d.choice(["SUM", "AVERAGE", "MIN", "MAX"])),
        post_transform=transform,
    )


@sample(tree_ensemble_classifier, tree_ensemble_classifier_1)
def _(d: Draw) -> Call:
    """The oracle for two classes with two scores is the reference, which supports less.

    No PROBIT for two classes with one score: onnxruntime computes only half of the result.
    """
    n, columns = d.integer(1, 4), d.integer(1, 3)
    both = n == 2 and d.boolean()
    x = _input(d, "T1", columns, beyond=not both)
    trees = [_tree(d) for _ in range(d.integer(1, 4))]
    targets = [d.integer(0, 1)] if n == 2 and not both else list(range(n))
    base = _weights(d, n if n > 2 or both else 1, x.dtype) if d.boolean() else None
    transform = draw_transform(d, *(["PROBIT"] if n == 2 else []), *(["SOFTMAX_ZERO"] * both))
    complete = len(trees) if both or transform == "PROBIT" else 1
    attributes = {
        **_listed(d, trees, columns),
        **_votes(d, trees, "class", targets, complete, x.dtype),
        "base_values": base,
    }
    if not both:
        attributes = _as_tensors(d, attributes, x.dtype)
    labels = {"classlabels_int64s": [5]} if n == 1 else draw_labels(d, n, "classlabels_int64s")
    return call(x, outputs=2, **attributes, **labels, post_transform=transform)


def _split(d: Draw, trees: list[Tree], columns: int) -> dict[str, list[Any]]:
    """Nodes and leaves apart; a tree that is a leaf is a node with one leaf at both branches."""
    names = ["modes", "featureids", "truenodeids", "falsenodeids", "trueleafs", "falseleafs"]
    nodes: dict[str, list[Any]] = {f"nodes_{name}": [] for name in names}
    roots, members, n_leaves = [], [], 0
    same = d.maybe(d.integer(0, 6))
    for tree in trees:
        leaves = tree.leaves
        inner = [i for i, branch in enumerate(tree.true) if branch is not None]
        start = len(nodes["nodes_modes"])
        roots.append(start)
        for i in inner or [0]:
            mode = d.integer(0, 6) if same is None else same
            members += [*_set(d), math.nan] if mode == 6 else []
            nodes["nodes_modes"].append(mode)
            nodes["nodes_featureids"].append(d.integer(0, columns - 1))
            for name, branch in (("true", tree.true[i]), ("false", tree.false[i])):
                branch = 0 if branch is None else branch
                leaf = branch in leaves
                place = n_leaves + leaves.index(branch) if leaf else start + inner.index(branch)
                nodes[f"nodes_{name}nodeids"].append(place)
                nodes[f"nodes_{name}leafs"].append(int(leaf))
        n_leaves += len(leaves)
    return {**nodes, "tree_roots": roots, "members": members, "leaves": list(range(n_leaves))}


def _set(d: Draw) -> list[float]:
    """Integers, as onnxruntime needs them; if one is negative or above 30, it also rounds x.

    So sets with such members have no others, and x is never rounded to a member.
    """
    options = d.choice([[0.0, 1.0, 2.0, 3.0, 4.0], [-5.0, 31.0, 40.0]])
    return [options[i] for i in d.permutation(len(options))[: d.integer(1, len(options))]]


@sample(tree_ensemble)
def _(d: Draw) -> Call:
    """No nodes_hitrates: onnxruntime raises for them here."""
    n, columns = d.integer(1, 3), d.integer(1, 3)
    x = _input(d, "T", columns)
    lists = _split(d, [_tree(d) for _ in range(d.integer(1, 4))], columns)
    members, leaves = lists.pop("members"), lists.pop("leaves")
    modes = torch.tensor(lists.pop("nodes_modes"), dtype=torch.uint8)
    transforms = 4 if n == 1 or x.dtype is not torch.float64 else 3  # PROBIT of 0 has no slope
    tracks = d.maybe(d.ints(modes.shape, 0, 1).tolist())
    return call(
        x,
        **lists,
        nodes_modes=modes,
        nodes_splits=torch.tensor(_thresholds(d, len(modes)), dtype=x.dtype),
        nodes_missing_value_tracks_true=tracks,
        membership_values=torch.tensor(members, dtype=x.dtype) if members else None,
        leaf_targetids=d.ints((len(leaves),), 0, n - 1).tolist(),
        leaf_weights=torch.tensor(_weights(d, len(leaves), x.dtype), dtype=x.dtype),
        n_targets=n,
        aggregate_function=d.maybe(d.integer(0, 3)),
        post_transform=d.maybe(d.integer(0, transforms)),
    )

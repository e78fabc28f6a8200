"""Trees as tables, made once: a step runs for all trees and all rows together.

Each test is converted to one comparison, so that one step is enough for all:

    x < t         x <= the next lower number
    x > t         x <= t with the branches exchanged
    x == t        x <= t, and then not x < t
    x in {...}    a search tree of x <= t that ends in x == t

Each node has a branch for nan. A state is twice the number of a node, and the next one is
`child[state + holds]`; a leaf is its own child.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from onnxinterp.errors import InvalidModelError
from onnxinterp.values import Floats, Ints

Array: TypeAlias = np.ndarray[Any, Any]

LEQ, LT, GTE, GT, EQ, NEQ, MEMBER, LEAF = range(8)
MODES = {
    "BRANCH_LEQ": LEQ,
    "BRANCH_LT": LT,
    "BRANCH_GTE": GTE,
    "BRANCH_GT": GT,
    "BRANCH_EQ": EQ,
    "BRANCH_NEQ": NEQ,
    "LEAF": LEAF,
}


class Nodes(NamedTuple):
    """The nodes of all trees, leaves among them; a branch is the position of another node.

    Attributes:
        mode: the test, or LEAF.
        feature: column of the input.
        value: the threshold.
        true: the branch if the test holds.
        false: the other branch.
        missing: whether nan takes the true branch.
    """

    mode: Array
    feature: Array
    value: Array
    true: Array
    false: Array
    missing: Array


class Votes(NamedTuple):
    """Leaves and the targets of their weights, in the order of the weights.

    Attributes:
        leaf: positions of nodes.
        target: numbers of targets or classes.
        n_targets: number of targets.
    """

    leaf: Sequence[int] | Array
    target: Sequence[int]
    n_targets: int


class Forest(NamedTuple):
    """The tables.

    Attributes:
        roots: first state of each tree, [trees].
        feature: column of the input at each state, [states].
        threshold: [states]; float64 if float32 cannot distinguish x < t from x <= t.
        child: the next state, [states].
        missing: whether the test holds for nan, [states]; None if it never does.
        depth: number of steps after which each tree is at a leaf.
        n_features: minimum number of input columns.
        vote: indices of the weights of a leaf, [leaves, votes]; the number of weights for votes
            that it lacks.
        target: targets of the votes, [leaves, votes]; `n_targets` for votes that a leaf lacks.
        n_targets: number of scores.
        in_order: whether the weights are a table [leaves, n_targets] in their order.
    """

    roots: Tensor
    feature: Tensor
    threshold: Tensor
    child: Tensor
    missing: Tensor | None
    depth: int
    n_features: int
    vote: Tensor
    target: Tensor
    n_targets: int
    in_order: bool


class Places(dict[tuple[int, int], int]):
    """(tree, node) -> position in the lists."""

    def __init__(self, trees: Sequence[int], nodes: Sequence[int]) -> None:
        super().__init__(zip(zip(trees, nodes, strict=True), range(len(trees)), strict=True))
        if len(self) < len(trees):
            raise InvalidModelError(f"nodes of a tree must have different ids, got {nodes}")

    def __missing__(self, key: tuple[int, int]) -> int:
        raise InvalidModelError(f"tree {key[0]} must have a node {key[1]}, got none")

    def roots(self) -> Array:
        """The first node of each tree."""
        first: dict[int, int] = {}
        for (tree, _), position in self.items():
            first.setdefault(tree, position)
        return np.array(list(first.values()), dtype=np.int64)


def listed_nodes(
    places: Places,
    *,
    nodes_modes: Sequence[str] | None = None,
    nodes_featureids: Ints | None = None,
    nodes_truenodeids: Ints | None = None,
    nodes_falsenodeids: Ints | None = None,
    nodes_values: Floats | None = None,
    nodes_values_as_tensor: Array | None = None,
    nodes_missing_value_tracks_true: Ints | None = None,
) -> Nodes:
    """Nodes and leaves in one list; branches are ids of nodes."""
    modes = nodes_modes or ()
    if unknown := set(modes) - MODES.keys():
        raise InvalidModelError(f"nodes_modes must be known, got {', '.join(sorted(unknown))}")
    mode = [MODES[m] for m in modes]
    true, false = (
        [
            position if m == LEAF else places[tree, i]
            for ((tree, _), position), m, i in zip(places.items(), mode, ids, strict=True)
        ]
        for ids in (nodes_truenodeids or (), nodes_falsenodeids or ())
    )
    values = (nodes_values or ()) if nodes_values_as_tensor is None else nodes_values_as_tensor
    missing = nodes_missing_value_tracks_true
    return _nodes(mode, nodes_featureids or (), values, true, false, missing)


def split_nodes(
    n_leaves: int,
    *,
    nodes_modes: Array,
    nodes_featureids: Ints,
    nodes_splits: Array,
    nodes_truenodeids: Ints,
    nodes_falsenodeids: Ints,
    nodes_trueleafs: Ints,
    nodes_falseleafs: Ints,
    nodes_missing_value_tracks_true: Ints | None = None,
) -> Nodes:
    """Nodes and leaves in two lists: the leaves come after the nodes."""
    n, none, missing = len(nodes_modes), [0] * n_leaves, nodes_missing_value_tracks_true
    if nodes_modes.dtype != np.uint8 or not (nodes_modes < LEAF).all():
        raise InvalidModelError(f"nodes_modes must be uint8 below {LEAF}, got {nodes_modes.dtype}")
    branches = (nodes_truenodeids, nodes_trueleafs), (nodes_falsenodeids, nodes_falseleafs)
    for ids, leaf in branches:
        if not ((np.array(ids) >= 0) & (ids < np.where(leaf, n_leaves, n))).all():
            raise InvalidModelError("branches must be positions of nodes or leaves")
    true, false = (
        np.concatenate([np.where(leaf, np.add(ids, n), ids), n + np.arange(n_leaves)])
        for ids, leaf in branches
    )
    return _nodes(
        [*nodes_modes.tolist(), *[LEAF] * n_leaves],
        [*nodes_featureids, *none],
        np.concatenate([nodes_splits, np.zeros(n_leaves, nodes_splits.dtype)]),
        true,
        false,
        None if missing is None else [*missing, *none],
    )


def _nodes(
    mode: Sequence[int],
    feature: Sequence[int],
    value: Sequence[float] | Array,
    true: Sequence[int] | Array,
    false: Sequence[int] | Array,
    missing: Sequence[int] | None,
) -> Nodes:
    """Lists as arrays of one length; thresholds are float32 unless they are a tensor."""
    n = len(mode)
    nodes = Nodes(
        np.array(mode, dtype=np.int64),
        np.array(feature, dtype=np.int64),
        value if isinstance(value, np.ndarray) else np.array(value, dtype=np.float32),
        np.array(true, dtype=np.int64),
        np.array(false, dtype=np.int64),
        np.array(missing or [0] * n) == 1,
    )
    if any(column.shape != (n,) for column in nodes):
        raise InvalidModelError(f"lists of nodes must be of one length, got {[*map(len, nodes)]}")
    if nodes.feature.min(initial=0) < 0:
        raise InvalidModelError(f"nodes_featureids must not be negative, got {nodes.feature.min()}")
    return nodes


def without_sets(nodes: Nodes, members: Array) -> Nodes:
    """Replace tests of membership by search trees; the sets of the nodes end with nan."""
    tests = np.flatnonzero(nodes.mode == MEMBER)
    if not tests.size:
        return nodes
    sets = np.split(members, np.flatnonzero(np.isnan(members)))
    if len(sets) < len(tests):
        raise InvalidModelError(f"membership_values must have {len(tests)} sets, got {len(sets)}")
    columns = [column.tolist() for column in nodes]
    for node, values in zip(tests.tolist(), sets, strict=False):
        _grow(columns, node, np.unique(values[~np.isnan(values)]).tolist())
    return Nodes(*map(np.array, columns))


def _grow(columns: list[list[Any]], node: int, values: list[float]) -> None:
    """Make a node the root of a search tree for sorted values; new nodes are appended."""
    mode, _feature, value, true, false, _missing = columns
    if len(values) < 2:
        mode[node], value[node] = EQ, values[0] if values else np.nan
        return
    half, left, right = len(values) // 2, len(mode), len(mode) + 1
    for column in columns:
        column += [column[node]] * 2
    mode[node], value[node], true[node], false[node] = LEQ, values[half - 1], left, right
    _grow(columns, left, values[:half])
    _grow(columns, right, values[half:])


def _without_equality(nodes: Nodes) -> Nodes:
    """Two nodes for each test of equality; it does not hold for nan unless `missing`."""
    tests = np.flatnonzero((nodes.mode == EQ) | (nodes.mode == NEQ))
    equal = nodes.mode[tests] == EQ
    yes = np.where(equal, nodes.true[tests], nodes.false[tests])
    no = np.where(equal, nodes.false[tests], nodes.true[tests])
    mode, feature, value, true, false, missing = (column.copy() for column in nodes)
    mode[tests], true[tests], false[tests] = LEQ, len(mode) + np.arange(len(tests)), no
    missing[tests] &= equal
    never = np.zeros(len(tests), bool)
    second = (np.full(len(tests), LT), feature[tests], value[tests], no, yes, never)
    columns = (mode, feature, value, true, false, missing)
    return Nodes(*(np.concatenate(pair) for pair in zip(columns, second, strict=True)))


def _as_leq(nodes: Nodes) -> Nodes:
    """All nodes with the test x <= value; leaves, where it never holds, are their own branches."""
    mode, feature, value, true, false, missing = nodes
    strict, turned = (mode == LT) | (mode == GTE), (mode == GT) | (mode == GTE)
    limit = value
    if strict.any():
        limit = value.astype(np.float64)
        before = np.where(limit == -np.inf, np.nan, np.nextafter(limit, -np.inf))
        limit = np.where(strict, before, limit)
    never = np.array(np.nan, limit.dtype)
    limit = np.where(mode == LEAF, never, np.where(turned & np.isnan(value), np.inf, limit))
    return Nodes(
        mode,
        np.where(mode == LEAF, 0, feature),
        limit.astype(np.float64 if strict.any() else value.dtype),
        np.where(turned, false, true),
        np.where(turned, true, false),
        (missing ^ turned) & (mode != LEAF),
    )


def forest(nodes: Nodes, roots: Array, votes: Votes) -> Forest:
    """The tables of trees without tests of membership.

    Raises:
        InvalidModelError: there are no trees, or one has no root or a cycle, or a vote no target.
    """
    if not roots.size:
        raise InvalidModelError("the node must have trees, got none")
    if roots.min() < 0 or roots.max() >= len(nodes.mode):
        raise InvalidModelError(f"tree roots must be below {len(nodes.mode)}, got {roots.max()}")
    nodes = _as_leq(_without_equality(nodes))
    is_leaf = nodes.mode == LEAF
    leaf = np.array(votes.leaf, dtype=np.int64)
    counted = np.flatnonzero(is_leaf[leaf])  # files of old converters have votes for inner nodes
    leaves = list(dict.fromkeys([*leaf[counted].tolist(), *np.flatnonzero(is_leaf).tolist()]))
    number = np.empty(len(is_leaf), dtype=np.int64)
    number[[*leaves, *np.flatnonzero(~is_leaf).tolist()]] = np.arange(len(is_leaf))
    order = np.argsort(number)
    vote, target, in_order = _ballot(number[leaf[counted]], counted, len(leaves), votes)
    child = 2 * number[np.stack([nodes.false, nodes.true], 1)[order]]
    missing = nodes.missing[order].repeat(2)
    return Forest(
        torch.from_numpy(2 * number[roots]),
        torch.from_numpy(nodes.feature[order].repeat(2)),
        torch.from_numpy(nodes.value[order].repeat(2)),
        torch.from_numpy(child.reshape(-1)),
        torch.from_numpy(missing) if missing.any() else None,
        _depth(nodes, roots),
        int(nodes.feature.max(initial=-1)) + 1,
        torch.from_numpy(vote),
        torch.from_numpy(target),
        votes.n_targets,
        in_order,
    )


def _ballot(leaf: Array, weight: Array, n_leaves: int, votes: Votes) -> tuple[Array, Array, bool]:
    """The votes as a table: `vote`, `target` and `in_order` of a Forest."""
    targets = np.array(votes.target, dtype=np.int64)
    if targets.size and not (targets.min() >= 0 and targets.max() < votes.n_targets):
        raise InvalidModelError(f"targets must be below {votes.n_targets}, got {targets.max()}")
    counts = np.bincount(leaf, minlength=n_leaves)
    order = np.argsort(leaf, kind="stable")
    column = np.arange(len(leaf)) - (np.cumsum(counts) - counts)[leaf[order]]
    shape = (n_leaves, int(counts.max(initial=1)))
    vote, target = np.full(shape, len(targets)), np.full(shape, votes.n_targets)
    vote[leaf[order], column] = weight[order]
    target[leaf[order], column] = targets[weight[order]]
    in_order = vote.size == len(targets) == n_leaves * votes.n_targets
    in_order = in_order and np.array_equal(vote, np.arange(vote.size).reshape(n_leaves, -1))
    return vote, target, in_order and bool((target == np.arange(votes.n_targets)).all())


def _depth(nodes: Nodes, roots: Array) -> int:
    """The longest path from a root to a leaf."""
    level, depth = np.unique(roots), 0
    while (inner := level[nodes.mode[level] != LEAF]).size:
        level = np.unique(np.concatenate([nodes.true[inner], nodes.false[inner]]))
        depth += 1
        if depth > len(nodes.mode):
            raise InvalidModelError("trees must not have a cycle")
    return depth

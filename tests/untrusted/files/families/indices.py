"""Numbers in data that say where to read or write: far outside, just outside, and negative."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import helper

from tests.untrusted.files.case import TIGHT, Case
from tests.untrusted.files.models import one, stump

FAR = (2**63 - 1, -(2**63), 2**31, -(2**31) - 1, 2**40)
BESIDE = (4, -5)  # of an axis of four
X = np.arange(16, dtype=np.float32).reshape(4, 4)
V = np.ones((1, 4), np.float32)


def _at(*index: int) -> np.ndarray[Any, Any]:
    return np.array([index], np.int64)


def _gathering(i: int) -> Iterator[tuple[str, str, list[Any], dict[str, Any]]]:
    """Calls that read or write at index i of an axis of four."""
    yield "Gather", "Gather", [X, [i]], {}
    yield "Gather-axis-1", "Gather", [X, [[0, i]]], {"axis": 1}
    yield "Gather-scalar", "Gather", [X, np.int64(i)], {}
    yield "GatherElements", "GatherElements", [X, _at(0, i, 0, 0)], {"axis": 1}
    yield "GatherND", "GatherND", [X, _at(i, 0)], {}
    yield "GatherND-row", "GatherND", [X, _at(i)], {}
    yield "GatherND-batch", "GatherND", [X, np.full((4, 1), i)], {"batch_dims": 1}
    for reduction in ("none", "add", "mul", "min", "max"):
        more = {"reduction": reduction}
        yield f"ScatterElements-{reduction}", "ScatterElements", [X, _at(i, 0, 0, 0), V], more
        yield f"ScatterND-{reduction}", "ScatterND", [X, _at(i), V], more
    yield "Scatter", "Scatter", [X, _at(i, 0, 0, 0), V], {"opset": 9}
    yield (
        "ArrayFeatureExtractor",
        "ArrayFeatureExtractor",
        [X, [i]],
        {
            "domain": "ai.onnx.ml",
            "opset": 1,
        },
    )
    yield "NegativeLogLikelihoodLoss", "NegativeLogLikelihoodLoss", [X, np.array([0, 1, i, 2])], {}
    yield "SoftmaxCrossEntropyLoss", "SoftmaxCrossEntropyLoss", [X, np.array([0, 1, i, 2])], {}
    yield "SequenceAt", "SequenceAt", [[X, X, X, X], np.int64(i)], {}
    yield "SequenceErase", "SequenceErase", [[X, X, X, X], np.int64(i)], {}
    image = X.reshape(1, 1, 4, 4).repeat(4, 0)
    roi = np.float32([[0, 0, 3, 3]])
    yield "RoiAlign-batch", "RoiAlign", [image, roi, np.array([i])], {}


def _lengths() -> Iterator[tuple[str, str, list[Any], dict[str, Any]]]:
    """Lengths, amounts and positions of other kinds."""
    for n in (2**62, -1, -(2**63), 5):
        yield f"ReverseSequence-{n}", "ReverseSequence", [X, np.array([1, 2, 3, n])], {}
        yield f"Split-{n}", "Split", [X, [n, 4 - n if abs(n) < 9 else 0]], {}
        yield f"TopK-{n}", "TopK", [X, [n]], {}
        yield f"Pad-end-{n}", "Pad", [X, [0, 0, 0, -n if n > 0 else n]], {}
        yield f"CenterCropPad-{n}", "CenterCropPad", [X, [n if n < 0 else -n, 4]], {}
        yield f"Compress-{n}", "Compress", [X, np.ones(9, bool)], {"axis": n}
        yield (
            f"NonMaxSuppression-{n}",
            "NonMaxSuppression",
            [X[None], X[None], n],
            {"center_point_box": 1},
        )
        yield f"SplitToSequence-{n}", "SplitToSequence", [X, [n, -n]], {}
        yield f"SplitToSequence-by-{n}", "SplitToSequence", [X, min(n, -n)], {}
    yield from _recurrences()
    yield from _axes()


def _recurrences() -> Iterator[tuple[str, str, list[Any], dict[str, Any]]]:
    """Lengths of sequences."""
    yield "SplitToSequence-by-0", "SplitToSequence", [X, 0], {}
    lstm = [np.ones((3, 2, 1), np.float32), np.ones((1, 4, 1), np.float32)]
    lstm.append(np.ones((1, 4, 1), np.float32))
    for n in (-1, 4, 2**31 - 1, -(2**31)):
        lens = np.array([3, n], np.int32)
        for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
            weights = [w[:, :gates] for w in lstm[1:]]
            yield f"{op}-lens-{n}", op, [lstm[0], *weights, None, lens], {"hidden_size": 1}


def _axes() -> Iterator[tuple[str, str, list[Any], dict[str, Any]]]:
    """Axes, and places in images."""
    for n in (0, -1, 17, 2**40):
        yield f"Unsqueeze-{n}", "Unsqueeze", [X, [n, n]], {}
        yield f"Squeeze-{n}", "Squeeze", [X, [n]], {}
        yield f"CumSum-{n + 2}", "CumSum", [X, n + 2], {}
        yield f"ReduceSum-{n + 2}", "ReduceSum", [X, [n + 2, n + 3]], {}
        yield f"Trilu-{n}", "Trilu", [X, n], {}
    yield "Col2Im", "Col2Im", [np.ones((1, 4, 9), np.float32), [9, 9], [2, 2]], {}
    yield (
        "MaxUnpool",
        "MaxUnpool",
        [X[None, None], np.full((1, 1, 4, 4), 2**40)],
        {
            "kernel_shape": [2, 2],
            "strides": [2, 2],
        },
    )
    yield (
        "MaxUnpool-minus",
        "MaxUnpool",
        [X[None, None], np.full((1, 1, 4, 4), -1)],
        {
            "kernel_shape": [2, 2],
            "strides": [2, 2],
        },
    )
    yield "Adagrad", "Adagrad", [0.1, -1, X, X], {"domain": "ai.onnx.preview.training", "opset": 1}


def _slices() -> Iterator[tuple[str, list[Any], bool]]:
    """Slices are clamped, whatever they ask for; a step of 0 is not."""
    ends = (0, -1, 4, 5, -5, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63))
    for start, end in ((a, b) for a in ends[::2] for b in ends[1::2]):
        for step in (1, -1, 3, 2**63 - 1, -(2**63)):
            if (start + end + step) % 3 == 0 or step in (1, -1):
                yield f"{start}:{end}:{step}", [X, [start], [end], [1], [step]], True
    yield "step-0", [X, [0], [4], [1], [0]], False
    yield "axis-2", [X, [0], [4], [2], [1]], False
    yield "axis-twice", [X, [0, 1], [4, 4], [0, -2], [1, 1]], False
    yield "unlike-lengths", [X, [0, 1], [4], [0], [1]], False


def cases() -> Iterator[Case]:
    for i in (*FAR, *BESIDE):
        for name, op, values, attributes in _gathering(i):
            stored = (1,) if (hash_of(name) + i) % 2 else False
            content, feeds = one(op, values, stored=stored, **attributes)
            yield Case(f"indices/{name}-at-{i}", content, "refused", feeds)
    for name, op, values, attributes in _lengths():
        outputs = {"Split": 2, "TopK": 2}.get(op, 1)
        content, feeds = one(op, values, outputs=outputs, **attributes)
        yield Case(f"indices/{name}", content, "either", feeds, limits=TIGHT)
    for name, values, clamped in _slices():
        stored = (1, 2, 3, 4) if len(name) % 2 else False
        content, feeds = one("Slice", values, stored=stored)
        yield Case(f"indices/Slice-{name}", content, "right" if clamped else "refused", feeds)
    yield from _forests()
    yield from _ngrams()


def hash_of(name: str) -> int:
    return sum(name.encode())


TREE_LIES: dict[str, dict[str, Any]] = {
    "circle": {"nodes_truenodeids": [0, 0, 0]},
    "circle-of-two": {
        "nodes_modes": ["BRANCH_LEQ"] * 3,
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
    },
    "no-such-node": {"nodes_truenodeids": [7, 0, 0]},
    "node-minus": {"nodes_truenodeids": [-1, 0, 0]},
    "node-2**62": {"nodes_falsenodeids": [2**62, 0, 0]},
    "twice": {"nodes_nodeids": [0, 1, 1]},
    "feature-2**40": {"nodes_featureids": [2**40, 0, 0]},
    "feature-minus": {"nodes_featureids": [-1, 0, 0]},
    "mode": {"nodes_modes": ["BRANCH_EVAL", "LEAF", "LEAF"]},
    "no-leaf": {"nodes_modes": ["BRANCH_LEQ"] * 3},
    "lengths": {"nodes_values": [0.5]},
    "target-2**40": {"target_ids": [2**40, 0]},
    "target-minus": {"target_ids": [-1, 0]},
    "target-node": {"target_nodeids": [1, 99]},
    "target-tree": {"target_treeids": [0, 99]},
    "target-lengths": {"target_weights": [1.0]},
    "n-targets-2**40": {"n_targets": 2**40},
    "n-targets-minus": {"n_targets": -1},
    "aggregate": {"aggregate_function": "EVAL"},
    "transform": {"post_transform": "__import__('os').system('true')"},
}


def _forests() -> Iterator[Case]:
    """Trees whose nodes are lies."""
    x = np.float32([[0.0], [1.0]])
    content, feeds = one("TreeEnsembleRegressor", [x], domain="ai.onnx.ml", opset=1, **stump())
    yield Case("indices/tree-honest", content, "right", feeds, (np.float32([[1], [2]]),))
    for name, lie in TREE_LIES.items():
        changed = {**stump(), **lie}
        content, feeds = one("TreeEnsembleRegressor", [x], domain="ai.onnx.ml", opset=1, **changed)
        yield Case(f"indices/tree-{name}", content, "refused", feeds, limits=TIGHT)
    yield from _forests_5(x)


def _forests_5(x: np.ndarray[Any, Any]) -> Iterator[Case]:
    """TreeEnsemble-5, whose numbers are tensors."""
    floats = np.float32
    honest: dict[str, Any] = {
        "nodes_featureids": [0],
        "nodes_splits": helper.make_tensor("s", 1, [1], floats([0.5])),
        "nodes_modes": helper.make_tensor("m", 2, [1], np.uint8([0])),
        "nodes_truenodeids": [0],
        "nodes_falsenodeids": [1],
        "nodes_trueleafs": [1],
        "nodes_falseleafs": [1],
        "leaf_targetids": [0, 0],
        "leaf_weights": helper.make_tensor("w", 1, [2], floats([1, 2])),
        "tree_roots": [0],
        "n_targets": 1,
    }
    lies: dict[str, dict[str, Any]] = {
        "circle": {"nodes_trueleafs": [0]},
        "leaf-9": {"nodes_falsenodeids": [9]},
        "leaf-minus": {"nodes_falsenodeids": [-1]},
        "node-9": {"nodes_trueleafs": [0], "nodes_truenodeids": [9]},
        "root-9": {"tree_roots": [9]},
        "root-minus": {"tree_roots": [-1]},
        "root-2**62": {"tree_roots": [2**62]},
        "mode-200": {"nodes_modes": helper.make_tensor("m", 2, [1], np.uint8([200]))},
        "modes-float": {"nodes_modes": helper.make_tensor("m", 1, [1], floats([0]))},
        "splits-text": {"nodes_splits": helper.make_tensor("s", 8, [1], [b"x"])},
        "target-9": {"leaf_targetids": [9, 0]},
        "weights-few": {"leaf_weights": helper.make_tensor("w", 1, [1], floats([1]))},
        "member-without-node": {"membership_values": helper.make_tensor("v", 1, [1], floats([1]))},
        "aggregate-9": {"aggregate_function": 9},
        "transform-9": {"post_transform": 9},
    }
    right = (floats([[1], [2]]),)
    content, feeds = one("TreeEnsemble", [x], domain="ai.onnx.ml", opset=5, **honest)
    yield Case("indices/tree5-honest", content, "right", feeds, right)
    for name, lie in lies.items():
        content, feeds = one("TreeEnsemble", [x], domain="ai.onnx.ml", opset=5, **{**honest, **lie})
        must = "either" if name.startswith("member") else "refused"
        yield Case(f"indices/tree5-{name}", content, must, feeds, limits=TIGHT, asked=False)


def _ngrams() -> Iterator[Case]:
    """TfIdfVectorizer, whose pool is cut by counts."""
    honest: dict[str, Any] = {
        "mode": "TF",
        "min_gram_length": 1,
        "max_gram_length": 2,
        "max_skip_count": 0,
        "ngram_counts": [0, 2],
        "ngram_indexes": [0, 1, 2],
        "pool_int64s": [1, 2, 1, 2],
    }
    lies: dict[str, dict[str, Any]] = {
        "counts-minus": {"ngram_counts": [0, -2]},
        "counts-far": {"ngram_counts": [0, 2**40]},
        "counts-fall": {"ngram_counts": [2, 0]},
        "indexes-far": {"ngram_indexes": [0, 1, 2**40]},
        "indexes-minus": {"ngram_indexes": [0, 1, -1]},
        "indexes-few": {"ngram_indexes": [0]},
        "lengths-crossed": {"min_gram_length": 3, "max_gram_length": 1},
        "length-0": {"min_gram_length": 0},
        "length-far": {"max_gram_length": 2**40},
        "skip-far": {"max_skip_count": 2**40},
        "skip-minus": {"max_skip_count": -1},
        "mode": {"mode": "{0.__class__}"},
        "pool-odd": {"pool_int64s": [1, 2, 1]},
        "pools-both": {"pool_strings": ["a"]},
        "weights-few": {"weights": [1.0], "mode": "IDF"},
    }
    x = np.array([1, 2, 1], np.int64)
    content, feeds = one("TfIdfVectorizer", [x], **honest)
    yield Case("indices/ngrams-honest", content, "right", feeds)
    for name, lie in lies.items():
        content, feeds = one("TfIdfVectorizer", [x], **{**honest, **lie})
        asked = name != "skip-far"  # onnxruntime counts up to it, without end
        yield Case(f"indices/ngrams-{name}", content, "either", feeds, limits=TIGHT, asked=asked)

"""Indices, lengths and classes that are not there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx.parser

from tests.untrusted.calls.one_node import NAN, SCALAR, Node, either, f, gives, i, ones, refused

X, M = f(1, 2, 3), ones(2, 3)
ADDS = (
    "body (float[1] s, float[1] e) => (float[1] t, float[1] o) { t = Add (s, e) o = Identity (e) }"
)


def gather() -> Iterator[Node]:
    """One index, as a vector and as a scalar."""
    for n in (9, -9, 2**62, -(2**62)):
        yield refused("Gather", [X, i(n)])
    for n in (9, -9):
        yield refused("Gather", [M, i(n)])
    for n in (9, -9, 2**62):
        yield refused("Gather", [X, SCALAR(n)])


def everywhere() -> Iterator[Node]:
    """The same index wherever a node reads, writes or chooses by one."""
    for p in (i(9), i(-9), i(-(2**63))):
        yield refused("GatherElements", [X, p])
        yield refused("GatherND", [X, p[None]])
        yield refused("ScatterElements", [X, p, f(1)])
        yield refused("ScatterElements", [X, p, f(1)], reduction="add")
        yield refused("ScatterElements", [X, p, f(1)], reduction="max")
        yield refused("ScatterND", [X, p[None], f(1)])
        yield refused("ScatterND", [X, p[None], f(1)], reduction="add")
        yield refused("ScatterND", [X, p[None], f(1)], reduction="mul")
        yield refused("MaxUnpool", [ones(1, 1, 1), p[None, None]], kernel_shape=[2])
        yield refused("TensorScatter", [ones(1, 2, 3), ones(1, 1, 3), p], opset=24)
        yield refused("SequenceAt", ["sequence", p.reshape(())])
        yield refused("SequenceErase", ["sequence", p.reshape(())])
        yield refused("NegativeLogLikelihoodLoss", [ones(1, 2), p])
        yield refused("SoftmaxCrossEntropyLoss", [ones(1, 2), p])


def several() -> Iterator[Node]:
    """Indices of several axes, too many or too few of them, and what no default makes right."""
    # rows and columns each in range of the product, not of their axes
    yield refused("ScatterND", [M, i(0, 4).reshape(1, 2), f(5)], reduction="mul")
    yield refused("ScatterND", [M, i(1, -5).reshape(1, 2), f(5)], reduction="max")
    yield refused("MaxUnpool", [ones(1, 1, 1), i(1)[None, None], i(1, 1, -2)], kernel_shape=[2])
    yield refused("NegativeLogLikelihoodLoss", [ones(1, 2), i(-100)])
    yield refused("GatherElements", [M, np.zeros((3, 1), np.int64)], axis=1)
    yield refused("GatherND", [M, i(0, 0, 0)[None]])
    yield refused("GatherND", [M, i(0, 0)[None]], batch_dims=5)
    yield refused("GatherND", [M, np.zeros((4, 0), np.int64)])
    yield refused("GatherND", [M, i(0, 0)[:, None]], batch_dims=-1)
    yield refused("GatherND", [M, i(1)], batch_dims=2**40)
    yield refused("GatherND", [ones(2, 2, 3), i(1)], batch_dims=1)
    yield refused("GatherND", [ones(2, 2, 3), i(1)[None]], batch_dims=1)
    yield refused("Gather", [M, i(0)], axis=-3)
    yield refused("GatherElements", [X, SCALAR(1)])
    yield refused("ScatterElements", [M, i(), f()])


def updates() -> Iterator[Node]:
    """Updates of another shape than the places; torch would drop some, or repeat one."""
    yield refused("ScatterElements", [f(0, 0, 0), i(0), f(5, 6, 7)])
    yield refused("ScatterElements", [f(0, 0, 0), i(0), f(5, 6)], reduction="add")
    yield refused("ScatterND", [M, i(0, 1)[:, None], f(5)])
    yield refused("ScatterND", [M, i(0, 1)[:, None], ones(2, 1)], reduction="mul")
    cache, step = ones(1, 3, 2), ones(1, 1, 2)
    yield refused("TensorScatter", [cache, step, i(-1)], opset=24, mode="circular")


def lengths() -> Iterator[Node]:
    """Sequences longer than there are steps, below zero, and of fewer than there are sequences."""
    body = onnx.parser.parse_graph(ADDS)
    attributes = {"body": body, "num_scan_inputs": 1}
    scanned = [ones(2, 1), ones(2, 2, 1)]
    yield refused("ReverseSequence", [ones(4, 1), i(9)], opset=10)
    yield either("ReverseSequence", [ones(4, 1), i(-9)], opset=10)
    yield refused("ReverseSequence", [ones(4, 2), i(9)], opset=10)
    yield refused("ReverseSequence", [ones(4, 2), i(2)], opset=10)
    yield refused("ReverseSequence", [ones(4, 2), SCALAR(2)], opset=10)
    yield refused("ReverseSequence", [ones(3, 3), i(2, 2, 2)], opset=10, batch_axis=64)
    yield refused("ReverseSequence", [ones(3, 3), i(2, 2, 2)], opset=10, batch_axis=0)
    yield refused("Scan", [i(1, 1, 1), *scanned], opset=8, outputs=2, **attributes)
    yield refused("Scan", [i(1), *scanned], opset=8, outputs=2, **attributes)
    yield gives(
        [[[2], [2]], [[[1], [0]]] * 2],
        "Scan",
        [i(1, 1), *scanned],
        opset=8,
        outputs=2,
        **attributes,
    )


def one_hot() -> Iterator[Node]:
    """A class that is not there is no class; a depth must be one, and the values two."""
    yield gives([[0, 0], [0, 0]], "OneHot", [i(9, -9), SCALAR(2), f(0, 1)])
    yield refused("OneHot", [i(0), SCALAR(-2), f(0, 1)])
    yield refused("OneHot", [i(0), SCALAR(NAN, np.float32), f(0, 1)])
    yield refused("OneHot", [i(0), SCALAR(2), f(0)])
    yield refused("OneHot", [i(0), SCALAR(2), ones(2, 1)])
    last = np.array([2**64 - 1], np.uint64)
    yield gives([[0, 0]], "OneHot", [last, SCALAR(2), f(0, 1)])


def choices() -> Iterator[Node]:
    """More elements than there are, or fewer than none."""
    yield refused("Compress", [X, np.array([True] * 9)])
    yield refused("Compress", [M, np.eye(2, dtype=bool)])
    yield refused("TopK", [X, i(-1)], outputs=2)
    yield refused("TopK", [X, i(9)], outputs=2)
    yield refused("ArgMax", [f()])
    yield refused("ArgMax", [SCALAR(3, np.float32)])
    yield refused("ArgMin", [SCALAR(3, np.float32)], axis=-1, select_last_index=1)


def diagonals() -> Iterator[Node]:
    """Diagonals far beside the matrix."""
    yield gives([[0, 0], [0, 0]], "EyeLike", [ones(2, 2)], k=2**62)
    yield either("Trilu", [ones(2, 2), SCALAR(2**62)])
    yield either("Trilu", [ones(2, 2), SCALAR(-(2**63))])


GROUPS = (gather, everywhere, several, updates, lengths, one_hot, choices, diagonals)

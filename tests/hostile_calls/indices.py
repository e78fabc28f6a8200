"""Indices, lengths and classes that are not there."""

from __future__ import annotations

import numpy as np

from tests.hostile_calls.one_node import ANY, NAN, REFUSED, SCALAR, Node, f, i, ones


def nodes() -> list[Node]:
    """Each with what must become of it."""
    x, m = f(1, 2, 3), ones(2, 3)
    far, below = i(9), i(-9)
    found = [Node("Gather", [x, p], {}, REFUSED) for p in (far, below, i(2**62), i(-(2**62)))]
    found += [Node("Gather", [m, p], {}, REFUSED) for p in (far, below)]
    found += [Node("Gather", [x, SCALAR(n)], {}, REFUSED) for n in (9, -9, 2**62)]
    for p in (far, below, i(-(2**63))):
        found += [
            Node("GatherElements", [x, p], {}, REFUSED),
            Node("GatherND", [x, p[None]], {}, REFUSED),
            Node("ScatterElements", [x, p, f(1)], {}, REFUSED),
            Node("ScatterElements", [x, p, f(1)], {"reduction": "add"}, REFUSED),
            Node("ScatterElements", [x, p, f(1)], {"reduction": "max"}, REFUSED),
            Node("ScatterND", [x, p[None], f(1)], {}, REFUSED),
            Node("ScatterND", [x, p[None], f(1)], {"reduction": "add"}, REFUSED),
            Node("ScatterND", [x, p[None], f(1)], {"reduction": "mul"}, REFUSED),
            Node("MaxUnpool", [ones(1, 1, 1), p[None, None]], {"kernel_shape": [2]}, REFUSED),
            Node("TensorScatter", [ones(1, 2, 3), ones(1, 1, 3), p], {}, REFUSED, 24),
            Node("SequenceAt", ["sequence", p.reshape(())], {}, REFUSED),
            Node("SequenceErase", ["sequence", p.reshape(())], {}, REFUSED),
            Node("NegativeLogLikelihoodLoss", [ones(1, 2), p], {}, REFUSED),
            Node("SoftmaxCrossEntropyLoss", [ones(1, 2), p], {}, REFUSED),
        ]
    found += [
        # rows and columns each in range of the product, not of their axes
        Node("ScatterND", [ones(2, 3), i(0, 4).reshape(1, 2), f(5)], {"reduction": "mul"}, REFUSED),
        Node(
            "ScatterND", [ones(2, 3), i(1, -5).reshape(1, 2), f(5)], {"reduction": "max"}, REFUSED
        ),
        Node(
            "MaxUnpool",
            [ones(1, 1, 1), i(1)[None, None], i(1, 1, -2)],
            {"kernel_shape": [2]},
            REFUSED,
        ),
        Node("NegativeLogLikelihoodLoss", [ones(1, 2), i(-100)], {}, REFUSED),
        Node("GatherElements", [m, np.zeros((3, 1), np.int64)], {"axis": 1}, REFUSED),
        Node("GatherND", [m, i(0, 0, 0)[None]], {}, REFUSED),
        Node("GatherND", [m, i(0, 0)[None]], {"batch_dims": 5}, REFUSED),
        Node("ReverseSequence", [ones(4, 1), i(9)], {}, REFUSED, 10),
        Node("ReverseSequence", [ones(4, 1), i(-9)], {}, ANY, 10),
        Node("ReverseSequence", [ones(4, 2), i(9)], {}, REFUSED, 10),
        Node("OneHot", [i(9, -9), SCALAR(2), f(0, 1)], {}, [[0, 0], [0, 0]]),
        Node("OneHot", [i(0), SCALAR(-2), f(0, 1)], {}, REFUSED),
        Node("OneHot", [i(0), SCALAR(NAN, np.float32), f(0, 1)], {}, REFUSED),
        Node("OneHot", [i(0), SCALAR(2), f(0)], {}, REFUSED),
        Node("Compress", [x, np.array([True] * 9)], {}, REFUSED),
        Node("TopK", [x, i(-1)], {}, REFUSED, outputs=2),
        Node("TopK", [x, i(9)], {}, REFUSED, outputs=2),
        Node("ArgMax", [f()], {}, REFUSED),
        Node("EyeLike", [ones(2, 2)], {"k": 2**62}, [[0, 0], [0, 0]]),
        Node("Trilu", [ones(2, 2), SCALAR(2**62)], {}, ANY),
        Node("Trilu", [ones(2, 2), SCALAR(-(2**63))], {}, ANY),
    ]
    return found

"""Axes of no elements or one, ranks and counts that are not quite right, text that is almost right.

What onnxruntime answers is given; what it refuses is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import TensorProto

from tests.untrusted.calls.one_node import Node, f, full, gives, i, ones, refused, text

I32, U8 = np.int32, np.uint8
IMAGE, FILTER = ones(1, 1, 4, 4), ones(1, 1, 2, 2)


def no_channels() -> Iterator[Node]:
    """A convolution of no channels is a sum of nothing for each filter, and its bias."""
    image, filters = ones(1, 0, 3), ones(2, 0, 2)
    yield gives([[[0, 0], [0, 0]]], "Conv", [image, filters])
    yield gives([[[1, 1], [2, 2]]], "Conv", [image, filters, f(1, 2)])
    yield gives([[[1, 1], [2, 2]]], "Conv", [image, filters, f(1, 2)], group=2)
    yield refused("Conv", [image, ones(2, 1, 2)])
    yield refused("Conv", [ones(1, 1, 3), filters])
    yield gives([[[0] * 2] * 2], "ConvInteger", [image.astype(U8), filters.astype(U8)])
    yield gives([[[0] * 4] * 2], "ConvTranspose", [image, ones(0, 2, 2)])
    yield gives([[[1] * 4, [2] * 4]], "ConvTranspose", [image, ones(0, 2, 2), f(1, 2)])
    yield refused("ConvTranspose", [image, ones(1, 2, 2)])


def nothing() -> Iterator[Node]:
    """No elements to normalize, no steps to take, no numbers to take the mean of."""
    x, w, r, h = ones(0, 1, 2), ones(1, 8, 2), ones(1, 8, 2), full(5, 1, 1, 2)
    ended = [[[0, 0]]]
    yield gives([[[], []]], "InstanceNormalization", [ones(1, 2, 0), ones(2), ones(2)])
    yield gives([[]], "InstanceNormalization", [ones(1, 0, 2), f(), f()])
    yield gives([[], ended, ended], "LSTM", [x, w, r], hidden_size=2, outputs=3)
    states = [None, None, h, h]
    yield gives([[], ended, ended], "LSTM", [x, w, r, *states], hidden_size=2, outputs=3)
    both = [x, ones(2, 8, 2), ones(2, 8, 2)]
    yield gives(
        [[], ended * 2, ended * 2],
        "LSTM",
        both,
        hidden_size=2,
        outputs=3,
        direction="bidirectional",
    )
    one_gate = ones(1, 2, 2)
    yield gives([[], ended], "RNN", [x, one_gate, one_gate], hidden_size=2, outputs=2)
    three, none = ones(1, 6, 2), i(0, dtype=I32)
    yield gives([[], ended], "GRU", [x, three, three], hidden_size=2, outputs=2)
    yield gives([[], ended], "GRU", [x, three, three, None, none, h], hidden_size=2, outputs=2)
    for dtype in (np.int32, np.uint64):
        yield gives([[0], [0]], "ReduceMean", [np.ones((2, 0), dtype), i(1)])


def blocks_of_nothing() -> Iterator[Node]:
    """No image, but sides and channels that do not divide into blocks."""
    yield refused("DepthToSpace", [ones(0, 5, 2, 2)], blocksize=2)
    yield refused("SpaceToDepth", [ones(0, 5, 3, 4)], blocksize=2)
    yield refused("SpaceToDepth", [ones(0, 5, 4, 3)], blocksize=2)


def other_ranks() -> Iterator[Node]:
    """Inputs of other ranks than the first; more repeats, or sizes, than axes."""
    rows = ones(2, 3)
    yield refused("Concat", [f(), rows], axis=1)
    yield refused("Concat", [rows, f(), rows], axis=0)
    yield refused("Concat", [rows, f()], opset=1, axis=0)
    yield refused("Tile", [rows, i(2, 1, 1)])
    yield refused("Tile", [i(1, 2), i(2, 1)])
    yield refused("Tile", [np.array(1), i(2)])


def other_counts() -> Iterator[Node]:
    """Sizes for more or fewer parts than the node has; parts that are not equal before opset 18."""
    x = f(1, 2, 3, 4)
    for numbers in (x, i(1, 2, 3, 4)):
        yield refused("Split", [numbers, i(2, 2)], outputs=3)
        yield refused("Split", [numbers, i(1, 1, 2)], outputs=2)
        yield refused("Split", [numbers], opset=11, outputs=2, split=[1, 1, 2])
        yield refused("Split", [numbers], opset=13, outputs=3)
        yield refused("Split", [numbers], opset=11, outputs=3)
        yield gives([[1, 2], [3, 4]], "Split", [numbers], opset=13, outputs=2)
        yield gives([[1, 2], [3, 4], []], "Split", [numbers], num_outputs=3, outputs=3)
    yield refused("Split", [f(), i()])


def sizes_of_outputs() -> Iterator[Node]:
    """Of a transposed convolution: of the spatial axes, or all; and a bias for each filter."""
    own = [[[[4, 4], [4, 4]]]]
    yield gives(own, "ConvTranspose", [IMAGE, FILTER], output_shape=[2, 2], pads=[0] * 4)
    whole: dict[str, Any] = {"output_shape": [1, 1, 4, 4]}
    full_rows = [[4, 4, 4, 2]] * 3 + [[2, 2, 2, 1]]
    yield gives([[full_rows]], "ConvTranspose", [IMAGE, FILTER], **whole)
    yield refused("ConvTranspose", [IMAGE, FILTER], output_shape=[4])
    yield refused("ConvTranspose", [IMAGE, FILTER], output_shape=[1, 4, 4])
    yield refused("ConvTranspose", [ones(1, 2, 4), ones(2, 2, 2), ones(1)], pads=[1, 0])


def corners() -> Iterator[Node]:
    """A grid of one element: its first corner, as in the reference; onnxruntime takes the last."""
    options: dict[str, Any] = {"opset": 20, "align_corners": 1}
    yield gives([[[[-1, -1]]]], "AffineGrid", [ones(1, 2, 3), i(1, 1, 1, 1)], **options)
    theta = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    column = [[[[0, -8, -16]], [[2, 2, 2]]]]
    yield gives([column], "AffineGrid", [theta, i(1, 1, 1, 2, 1)], **options)
    yield refused("AffineGrid", [ones(1, 2, 3), i(1, 1, 0, 1)], **options)
    yield refused("AffineGrid", [ones(1, 2, 3), i(1, 1, -2, 1)], **options)


def boxes_without_scores() -> Iterator[Node]:
    """More images, or more boxes, than there are scores of; and fewer."""
    for boxes, scores in (((2, 2), (1, 1, 2)), ((1, 3), (1, 1, 2)), ((1, 2), (1, 1, 3))):
        yield refused("NonMaxSuppression", [ones(*boxes, 4), ones(*scores), i(5)])


def text_that_python_reads() -> Iterator[Node]:
    """Numerals are those of C: not 1_000, nor the digits of other scripts."""
    for to in (TensorProto.FLOAT, TensorProto.INT64):
        for number in ("1_000", "\u0663", "\uff11"):
            yield refused("Cast", [text(number)], to=to)
        yield gives([5, 5, 7], "Cast", [text(" 5", "5 ", "+7")], to=to)


GROUPS = (
    no_channels,
    nothing,
    blocks_of_nothing,
    other_ranks,
    other_counts,
    sizes_of_outputs,
    corners,
    boxes_without_scores,
    text_that_python_reads,
)

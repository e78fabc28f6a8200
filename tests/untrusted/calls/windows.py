"""Windows and regions: strides, dilations, pads, groups and places that mean nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.untrusted.calls.one_node import (
    INF,
    NAN,
    SCALAR,
    Node,
    either,
    f,
    full,
    gives,
    i,
    ones,
    refused,
)

X, W = ones(1, 1, 3, 3), ones(1, 1, 2, 2)  # an image, and a kernel for it
TWO = [2, 2]
F32, U8 = np.float32, np.uint8
OFFSETS = ones(1, 8, 2, 2)  # of a kernel of 2 x 2: two numbers each
COLUMN, SIZE = ones(1, 4, 1), i(2, 2)  # of a block of 2 x 2
BOX = f([0, 0, 1, 1])


def steps_and_sizes() -> Iterator[Node]:
    """Of zero, below it, and far beyond the image; a far step may be taken: it leaves one place."""
    for bad in ([0, 0], [-1, -1], [2**40, 2**40]):
        far_step = either if bad[0] > 0 else refused
        yield far_step("Conv", [X, W], strides=bad)
        yield refused("Conv", [X, W], dilations=bad)
        yield refused("ConvTranspose", [X, W], strides=bad)
        yield refused("ConvTranspose", [X, W], dilations=bad)
        yield refused("MaxPool", [X], kernel_shape=bad)
        yield refused("AveragePool", [X], kernel_shape=bad)
        yield refused("LpPool", [X], kernel_shape=bad)
        yield far_step("MaxPool", [X], kernel_shape=TWO, strides=bad)
        yield far_step("AveragePool", [X], kernel_shape=TWO, strides=bad)
        yield far_step("LpPool", [X], kernel_shape=TWO, strides=bad)
        yield refused("MaxPool", [X], kernel_shape=TWO, dilations=bad)
        yield refused("AveragePool", [X], kernel_shape=TWO, dilations=bad)
        yield refused("LpPool", [X], kernel_shape=TWO, dilations=bad)
        yield refused("MaxUnpool", [X, np.zeros((1, 1, 3, 3), np.int64)], kernel_shape=bad)
        yield either("DeformConv", [X, W, OFFSETS], strides=bad)
        yield either("DeformConv", [X, W, OFFSETS], dilations=bad)
        yield far_step("Col2Im", [COLUMN, SIZE, SIZE], opset=18, strides=bad)
        yield refused("Col2Im", [COLUMN, SIZE, SIZE], opset=18, dilations=bad)
        yield refused("Col2Im", [COLUMN, SIZE, i(*bad)], opset=18)
        yield refused("Col2Im", [COLUMN, i(*bad), SIZE], opset=18)


def groups_of_channels() -> Iterator[Node]:
    """None, fewer than none, and more than the channels make."""
    x, per_channel, per_group = ones(1, 4, 2), ones(4), ones(2)
    for bad in (0, -1, 3, 2**40):
        yield refused("Conv", [X, W], group=bad)
        yield refused("ConvTranspose", [X, W], group=bad)
        yield refused("DeformConv", [X, W, OFFSETS], group=bad)
        yield refused("DeformConv", [X, W, OFFSETS], offset_group=bad)
        yield refused("GroupNormalization", [x, per_channel, per_channel], num_groups=bad)
        yield refused("GroupNormalization", [x, per_group, per_group], opset=18, num_groups=bad)


def blocks() -> Iterator[Node]:
    """Likewise blocks of an image and neighbouring channels."""
    for bad in (0, -1, 2**40):
        yield refused("LRN", [X], size=bad)
        yield refused("DepthToSpace", [ones(1, 4, 1, 1)], blocksize=bad)
        yield refused("SpaceToDepth", [ones(1, 4, 2, 2)], blocksize=bad)


def pads() -> Iterator[Node]:
    """Below zero, far too large, too few and too many."""
    for bad in ([-9] * 4, [2**40] * 4, [1], [1] * 9):
        below = either if bad[0] < 0 else refused
        yield refused("Conv", [X, W], pads=bad)
        yield below("ConvTranspose", [X, W], pads=bad)
        yield refused("MaxPool", [X], kernel_shape=TWO, pads=bad)
        yield refused("AveragePool", [X], kernel_shape=TWO, pads=bad)
        yield refused("LpPool", [X], kernel_shape=TWO, pads=bad)
        yield refused("Col2Im", [COLUMN, SIZE, SIZE], opset=18, pads=bad)
    yield refused("Col2Im", [ones(1, 10, 6), i(3, 5), i(1, 5)], opset=18)


def convolutions() -> Iterator[Node]:
    """Kernels, biases and sizes of outputs that do not fit the image."""
    yield refused("Conv", [X, ones(1, 1, 0, 2)])
    yield refused("Conv", [X, ones(1, 5, 2, 2)])
    yield refused("Conv", [X, W, ones(7)])
    yield refused("Conv", [X, W], auto_pad="EVIL")
    yield refused("Conv", [ones(1, 1), W])
    yield refused("Conv", [ones(1, 1, 2, 2, 2, 2), ones(1, 1, 1, 1, 1, 1)])
    yield refused("Conv", [X, W], strides=[1])
    yield refused("Conv", [X, W], kernel_shape=[2])
    yield refused("Conv", [X, ones(1, 1, 2)])
    yield refused("Conv", [ones(1, 3, 3), W])  # to torch, an image that is no batch
    yield refused("ConvTranspose", [ones(1, 3, 3), W])
    yield refused("ConvTranspose", [X, W], output_padding=[0])
    yield refused("ConvTranspose", [X, W], output_shape=[4])
    x, w, scale, zero = X.astype(U8), ones(1, 1, 2).astype(U8), np.array(1, F32), np.array(0, U8)
    yield refused("ConvInteger", [x, w])
    yield refused("QLinearConv", [x, scale, zero, w, scale, zero, scale, zero])
    for shape in ((1,), (3, 1), ()):
        bias = ones(*shape)
        yield refused("ConvTranspose", [X, ones(1, 3, 2, 2), bias])
        yield refused("ConvTranspose", [X, ones(1, 3, 2, 2), bias], pads=[0, 0, 1, 1])
    yield either("ConvTranspose", [X, W], output_padding=[9, 9])
    yield refused("ConvTranspose", [X, W], output_padding=[-9, -9])
    yield refused("ConvTranspose", [X, W], output_shape=[-9, -9])
    yield refused("ConvTranspose", [X, W], output_shape=[2**40, 2**40])


def pools() -> Iterator[Node]:
    """Images without extent, and windows over fewer or more axes than an image has."""
    for kernel in ([2], [2, 2, 2]):
        yield refused("MaxPool", [X], kernel_shape=kernel)
        yield refused("AveragePool", [X], kernel_shape=kernel)
        yield refused("LpPool", [X], kernel_shape=kernel)
        yield refused("MaxUnpool", [X, i(*range(9)).reshape(1, 1, 3, 3)], kernel_shape=kernel)
    one, four = i(0)[None, None], i(1, 1, 4)
    yield refused("MaxUnpool", [ones(1, 1, 2), one], kernel_shape=[2])
    yield refused("MaxUnpool", [ones(1, 1, 1), one, i(4)], kernel_shape=[2])
    yield refused("MaxUnpool", [ones(1, 1, 1), one, four], kernel_shape=[2, 2])
    yield refused("MaxPool", [ones(1, 1)], kernel_shape=[1])
    yield refused("GlobalMaxPool", [ones(1, 1, 0)])


def regions() -> Iterator[Node]:
    """Of images that are not there, of no size, and at places that are no numbers."""
    yield refused("MaxRoiPool", [X, f([9, 0, 0, 1, 1])], pooled_shape=[1, 1])
    yield refused("MaxRoiPool", [X, f([NAN] * 5)], pooled_shape=[1, 1])
    yield either("MaxRoiPool", [X, f([0, NAN, 0, INF, 1])], pooled_shape=[1, 1])
    yield refused("MaxRoiPool", [X, f([0, 0, 0, 1, 1])], pooled_shape=[0, 0])
    yield refused("MaxRoiPool", [X, f([0, 0, 0, 1, 1])], pooled_shape=[-1, -1])
    yield refused("RoiAlign", [X, BOX, i(9)])
    yield refused("RoiAlign", [X, BOX, i(-9)])
    yield either("RoiAlign", [X, f([0, 0, NAN, 1]), i(0)])
    yield refused("RoiAlign", [X, BOX, i(0)], output_height=-1)
    yield either("RoiAlign", [X, BOX, i(0)], output_height=0)
    yield refused("RoiAlign", [X, BOX, i(0)], sampling_ratio=-5)
    yield either("RoiAlign", [X, BOX, i(0)], spatial_scale=NAN)
    yield refused("RoiAlign", [X, BOX, i(0)], mode="evil")
    yield refused("RoiAlign", [X, ones(2, 4), i(0)])
    yield refused("RoiAlign", [X, BOX, i(0, 0)])
    yield refused("RoiAlign", [X, ones(1, 3), i(0)])
    yield refused("RoiAlign", [ones(1, 1, 2, 3, 3), BOX, i(0)])
    yield refused("MaxRoiPool", [X, ones(1, 10)], pooled_shape=[1, 1])
    yield refused("MaxRoiPool", [X, f([0, 0, 0, 1, 1])], pooled_shape=[1, 1, 1])
    yield refused("MaxRoiPool", [ones(1, 1, 2, 3, 3), f([0, 0, 0, 1, 1])], pooled_shape=[1, 1])


def quantized() -> Iterator[Node]:
    """Biases, scales and zero points that are not one for each channel, row or column."""
    one, none = SCALAR(1, np.float32), np.zeros((), np.uint8)
    x, w = np.ones((1, 1, 3, 3), np.uint8), np.ones((1, 1, 2, 2), np.uint8)
    three = np.zeros(3, np.uint8)
    filters: list[Any] = [x, one, none, np.ones((3, 1, 2, 2), np.uint8), one, none, one, none]
    for shape in ((), (1,), (3, 1)):
        yield refused("QLinearConv", [*filters, np.ones(shape, np.int32)])
    yield refused("QLinearConv", [x, one, none, w, ones(3), none, one, none])
    yield refused("QLinearConv", [x, one, none, w, one, three, one, none])
    yield refused("ConvInteger", [x, w, none, three])
    row = np.ones((1, 1), np.uint8)
    yield refused("MatMulInteger", [row, row, three])
    yield refused("MatMulInteger", [row, row, none, three])
    yield refused("QLinearMatMul", [row, one, none, row, ones(3), none, one, none])
    yield refused("QLinearMatMul", [row, one, none, row, one, none, one, three])


def offsets() -> Iterator[Node]:
    """That are no numbers, lead far outside, or are too few."""
    yield either("DeformConv", [X, W, full(NAN, 1, 8, 2, 2)])
    yield gives([[[[0, 0], [0, 0]]]], "DeformConv", [X, W, full(1e30, 1, 8, 2, 2)])
    yield refused("DeformConv", [X, W, ones(1, 3, 2, 2)])
    for shape in ((1, 8, 1, 1), (1, 8, 5, 5), (1, 8, 4, 1), (2, 8, 2, 2), (1, 16, 2, 2)):
        yield refused("DeformConv", [X, W, ones(*shape)])
    for shape in ((1, 1, 1, 1), (16,), (1, 4, 1, 4), (2, 4, 2, 2)):
        yield refused("DeformConv", [X, W, OFFSETS, None, ones(*shape)])
    for shape in ((), (1, 3), (3, 1), (1,)):
        yield refused("DeformConv", [X, ones(3, 1, 2, 2), OFFSETS, ones(*shape)])


def places() -> Iterator[Node]:
    """One place to look at: no number, or far outside, for each rule of what is there."""

    def at(number: float) -> list[Any]:
        return [X, full(number, 1, 1, 1, 2)]

    yield either("GridSample", at(NAN), opset=20)
    yield gives([[[[0]]]], "GridSample", at(1e30), opset=20)
    yield either("GridSample", at(INF), opset=20, padding_mode="reflection")
    yield either("GridSample", at(-INF), opset=20, padding_mode="border", mode="nearest")
    yield either("GridSample", at(1e30), opset=20, mode="cubic", padding_mode="reflection")
    yield refused("GridSample", [ones(1, 1, 0, 3), ones(1, 1, 1, 2)], opset=20)
    yield refused("GridSample", [ones(1, 1, 2, 2, 2, 2), ones(1, 1, 1, 1, 1, 8)], opset=20)
    yield refused("GridSample", [ones(2, 1, 2, 2, 2, 2), ones(1, 1, 1, 1, 1, 4)], opset=20)
    yield refused("GridSample", [ones(1, 1, 2, 2, 2, 2), ones(1, 1, 1, 4)], opset=20)
    yield refused("GridSample", [ones(1, 1, 2, 2, 2), ones(1, 1, 1, 1, 4)], opset=20, mode="cubic")
    yield refused("GridSample", [X, ones(1, 1, 1, 5)], opset=20)
    yield refused("AffineGrid", [ones(1, 2, 3), i(1, 1, -2, 2)], opset=20)


GROUPS = (
    steps_and_sizes,
    groups_of_channels,
    blocks,
    pads,
    convolutions,
    pools,
    regions,
    quantized,
    offsets,
    places,
)

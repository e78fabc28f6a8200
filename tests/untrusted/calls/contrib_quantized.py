"""Quantized and blocked operators of onnxruntime: settings, windows and tables that do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from tests.untrusted.calls import one_node
from tests.untrusted.calls.one_node import ANY, INF, NAN, REFUSED, Node, f, full, i, ones

refused = partial(one_node.refused, domain="com.microsoft", opset=1)
either = partial(one_node.either, domain="com.microsoft", opset=1)
gives = partial(one_node.gives, domain="com.microsoft", opset=1)
blocked = partial(one_node.refused, domain="com.microsoft.nchwc", opset=1)
I32, U8, S8 = np.int32, np.uint8, np.int8
SCALE, ZERO = f(0.5).reshape(()), U8(1)
PAIR = [SCALE, ZERO]


def bytes_(*shape: int, value: int = 3) -> np.ndarray[Any, Any]:
    return np.full(shape, value, U8)


def softmax(expected: Any, inputs: list[Any], **attributes: Any) -> Node:
    """QLinearSoftmax, which has an attribute called `opset`."""
    named = {"opset": 13, **attributes}
    return Node("QLinearSoftmax", inputs, named, expected, 1, "com.microsoft", 1)


def elementwise() -> Iterator[Node]:
    """Inputs that are missing, settings that are several, shapes that do not broadcast."""
    x, several = bytes_(2, 3), ones(3)
    for name in ("QLinearAdd", "QLinearMul"):
        yield refused(name, [x, *PAIR, None, *PAIR, *PAIR])
        yield refused(name, [x, *PAIR, bytes_(4), *PAIR, *PAIR])
        yield refused(name, [x, several, ZERO, x, *PAIR, *PAIR])
        yield refused(name, [x, *PAIR, x, *PAIR, SCALE, bytes_(3)])
        yield either(name, [x, *PAIR, x, *PAIR, np.float32(0), ZERO])
        yield either(name, [x, np.float32(NAN), ZERO, x, *PAIR, np.float32(INF), ZERO])
    for name in ("QLinearSigmoid", "QLinearLeakyRelu"):
        yield refused(name, [x, several, ZERO, *PAIR])
        yield refused(name, [x, SCALE, bytes_(3), *PAIR])
        yield either(name, [x, *PAIR, np.float32(0), ZERO])
    yield refused("MulInteger", [x, ZERO, bytes_(2), ZERO])
    yield refused("MulInteger", [x, bytes_(3), x, ZERO])
    yield refused("QLinearWhere", [ones(2) > 0, x, *PAIR, x, *PAIR, *PAIR])
    yield refused("QLinearWhere", [ones(3) > 0, x, several, ZERO, x, *PAIR, *PAIR])
    yield gives([[3]], "MulInteger", [bytes_(1, 1), None, bytes_(1, value=1)])


def joined() -> Iterator[Node]:
    """Parts that are no triples, and an axis that is not there."""
    x = bytes_(2, 3)
    yield refused("QLinearConcat", [*PAIR, x, SCALE], axis=0)
    yield refused("QLinearConcat", [*PAIR, x, *PAIR, x], axis=0)
    yield refused("QLinearConcat", [*PAIR, x, *PAIR], axis=2)
    yield refused("QLinearConcat", [*PAIR, x, *PAIR, bytes_(3, 3), *PAIR], axis=1)
    yield refused("QLinearConcat", [*PAIR, x, ones(2), ZERO], axis=0)
    yield gives([[3, 3, 3]] * 2, "QLinearConcat", [*PAIR, x, *PAIR], axis=0)


def settings_of_axes() -> Iterator[Node]:
    """Scales for an axis that is not named, or not there."""
    for name, x in (("QuantizeLinear", ones(2, 3)), ("DequantizeLinear", bytes_(2, 3))):
        yield refused(name, [x, ones(3), bytes_(3)])
        yield refused(name, [x, ones(2), bytes_(2)], axis=1)
        yield refused(name, [x, ones(3), bytes_(3)], axis=9)
        yield refused(name, [x, ones(3), bytes_(2)], axis=1)
    yield gives([3], "QuantizeLinear", [f(1), *PAIR])


def pools() -> Iterator[Node]:
    """Windows that do not fit, and tensors that are no images."""
    image = bytes_(1, 2, 4, 4)
    pool = partial(refused, "QLinearAveragePool")
    for kernel in ([0, 2], [-1, 2], [2], [2, 2, 2], [9, 9]):
        yield pool([image, *PAIR, *PAIR], kernel_shape=kernel)
        yield refused("NhwcMaxPool", [image], kernel_shape=kernel)
    yield pool([image, *PAIR, *PAIR], kernel_shape=[2, 2], strides=[0, 1])
    yield pool([image, *PAIR, *PAIR], kernel_shape=[2, 2], pads=[1])
    yield pool([image, ones(2), ZERO, *PAIR], kernel_shape=[2, 2])
    yield pool([bytes_(4), *PAIR, *PAIR], kernel_shape=[2])
    yield refused("NhwcMaxPool", [bytes_(4)], kernel_shape=[2])
    yield either("NhwcMaxPool", [bytes_(1, 0, 0, 2)], kernel_shape=[1, 1])
    yield refused("QLinearGlobalAveragePool", [image, ones(2), ZERO, *PAIR])
    yield refused("QLinearGlobalAveragePool", [image, *PAIR, SCALE, bytes_(2)])
    yield either("QLinearGlobalAveragePool", [bytes_(1, 2, 0, 0), *PAIR, *PAIR])


def reductions() -> Iterator[Node]:
    """Axes that are not there or twice there."""
    x = bytes_(2, 3)
    for axes in ([2], [-3], [0, 0], [2**40]):
        yield refused("QLinearReduceMean", [x, *PAIR, *PAIR], axes=axes, keepdims=1)
        yield refused("ReduceSumInteger", [x], axes=axes, keepdims=0)
    yield refused("QLinearReduceMean", [x, ones(2), ZERO, *PAIR], axes=[0], keepdims=1)
    yield gives([9, 9], "ReduceSumInteger", [x], axes=[1], keepdims=0)
    yield refused("QLinearSoftmax", [x, *PAIR, *PAIR])  # without its attribute `opset`
    for axis in (2, -3):
        yield softmax(REFUSED, [x, *PAIR, *PAIR], axis=axis)
    yield softmax(REFUSED, [x, ones(2), ZERO, *PAIR])
    yield softmax(ANY, [bytes_(2, 0), *PAIR, *PAIR])
    yield softmax(ANY, [x, np.float32(0), ZERO, np.float32(0), ZERO])
    yield softmax([[2, 2]], [bytes_(1, 2), *PAIR, *PAIR])


def products() -> Iterator[Node]:
    """Factors, biases and settings of columns of other sizes."""
    a, b = bytes_(2, 3), bytes_(3, 4)
    gemm = partial(refused, "QGemm")
    yield gemm([bytes_(1, 2, 3), *PAIR, b, *PAIR])
    yield gemm([a, *PAIR, bytes_(4, 4), *PAIR])
    yield gemm([a, *PAIR, b, *PAIR], transB=1)
    for bad in (ones(3), ones(1, 4), ones(4, 1)):
        yield gemm([a, *PAIR, b, bad, ZERO])
        yield gemm([a, *PAIR, b, SCALE, bad.astype(U8)])
        yield gemm([a, bad, ZERO, b, *PAIR])
    for shape in ((3,), (3, 4), (1, 2, 4)):
        yield gemm([a, *PAIR, b, *PAIR, np.ones(shape, I32)])
    for bias in (ones(1), ones(3), ones(2, 4)):
        yield refused("MatMulIntegerToFloat", [a, b, SCALE, SCALE, None, None, bias])
        yield refused("DynamicQuantizeMatMul", [ones(2, 3), b, SCALE, None, bias])
    for scale in (ones(3), ones(2, 4), ones(1, 1, 4)):
        yield refused("MatMulIntegerToFloat", [a, b, SCALE, scale])
        yield refused("DynamicQuantizeMatMul", [ones(2, 3), b, scale])
    yield refused("MatMulIntegerToFloat", [a, b, ones(2), SCALE])
    yield refused("DynamicQuantizeMatMul", [ones(2, 4), b, SCALE])
    yield either("DynamicQuantizeMatMul", [full(NAN, 2, 3), b, SCALE])
    row, column = np.full((1, 3), 2, np.int16), np.full((3, 1), 2, np.int16)
    yield refused("MatMulInteger16", [row, row])
    yield gives([[12]], "MatMulInteger16", [row, column])


def recurrent() -> Iterator[Node]:
    """Weights that are not transposed, settings of other sizes, lengths beyond the steps."""
    x, w, r = ones(2, 1, 3), np.ones((1, 3, 8), S8), np.ones((1, 2, 8), S8)
    pair = [ones(1), np.zeros(1, S8)]
    lstm = partial(refused, "DynamicQuantizeLSTM", hidden_size=2)
    absent = [None] * 5
    yield lstm([x, w.transpose(0, 2, 1), r, *absent, *pair, *pair])
    yield lstm([x, w, r.transpose(0, 2, 1), *absent, *pair, *pair])
    yield lstm([x, w, r, *absent, ones(2), np.zeros(2, S8), *pair])
    yield lstm([x, w, r, *absent, *pair, ones(1, 4), np.zeros((1, 4), S8)])
    yield lstm([x, w, r, *absent, None, *pair[1:], *pair])
    yield lstm([x, w, r, None, i(9, dtype=I32), None, None, None, *pair, *pair])
    yield lstm([x, w, r, None, None, None, None, ones(1, 5), *pair, *pair])
    yield lstm([x, w, r, *absent, *pair, *pair], direction="evil")
    yield lstm([x, w, r, *absent, *pair, *pair], activations=["Relu"])


def embeddings() -> Iterator[Node]:
    """Ids beyond their tables, and tables of other widths."""
    ids, table, row = i(0, 1, 2, dtype=I32)[None], bytes_(3, 4), bytes_(4)
    pairs = [SCALE, SCALE, None, SCALE, SCALE, ZERO, ZERO, None, ZERO, ZERO]
    embed = partial(refused, "QEmbedLayerNormalization", outputs=2)
    for bad in (ids + 1, ids - 1, ids + 2**30, ids[0]):
        yield embed([bad, None, table, table, None, row, row, None, *pairs])
    yield embed([ids, None, table, bytes_(2, 4), None, row, row, None, *pairs])
    yield embed([ids, None, table, bytes_(3, 1), None, row, row, None, *pairs])
    yield embed([ids, None, table, table, None, bytes_(1), row, None, *pairs])
    yield embed([ids, None, table, table, None, row, row, ids[:, :1], *pairs])
    yield embed([ids, ids, table, table, None, row, row, None, *pairs])
    yield embed([ids, None, None, table, None, row, row, None, *pairs])


def convolutions() -> Iterator[Node]:
    """Filters of other kernels or channels than the node and the image have."""
    image, w = ones(1, 4, 4, 2), ones(3, 2, 2, 2)
    for name in ("NhwcConv", "NhwcFusedConv"):
        yield refused(name, [image, w], kernel_shape=[3, 3])
        yield refused(name, [image, w], group=3)
        yield refused(name, [ones(1, 4, 4, 3), w])
        yield refused(name, [image, w, ones(2)])
    yield refused("NhwcFusedConv", [image, w, None, ones(1, 3, 3, 1)])
    yield refused("NhwcFusedConv", [image, w], activation="Evil")
    x, filters = bytes_(1, 4, 4, 2), bytes_(3, 2, 2, 2)
    conv = partial(refused, "QLinearConv", channels_last=1)
    yield conv([bytes_(1, 2, 4, 4), *PAIR, filters, *PAIR, *PAIR])
    yield conv([x, ones(2), ZERO, filters, *PAIR, *PAIR])
    yield conv([x, *PAIR, filters, ones(2), ZERO, *PAIR])
    yield conv([x, *PAIR, filters, *PAIR, *PAIR, np.ones(2, I32)])


def blocks() -> Iterator[Node]:
    """Filters that are in no blocks, channels that are not there."""
    image, w = ones(1, 8, 4, 4), ones(8, 8, 2, 2)
    yield blocked("Conv", [image, ones(12, 8, 2, 2)])
    yield blocked("Conv", [image, ones(8, 8, 2)])
    yield blocked("Conv", [image, w], group=0)
    yield blocked("Conv", [image, w], group=3)
    yield blocked("Conv", [image, w, None, ones(1, 8, 3, 1)])
    yield blocked("Conv", [image, w, ones(1)])
    for channels in (0, -1, 9, 2**40):
        yield blocked("ReorderOutput", [image], channels=channels)
    yield blocked("MaxPool", [image], kernel_shape=[0, 0])
    yield blocked("AveragePool", [image], kernel_shape=[9, 9])
    for scales in ([1, 1], [1, 1, 0, 2], [1, 1, -1, 2], [1, 1, 2**40, 2]):
        yield blocked("Upsample", [image], scales=scales)
    yield blocked("Upsample", [image], scales=[1, 1, 2, 2], mode="evil")


GROUPS = (
    elementwise,
    joined,
    settings_of_axes,
    pools,
    reductions,
    products,
    recurrent,
    embeddings,
    convolutions,
    blocks,
)

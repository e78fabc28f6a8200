"""Operators of onnxruntime for normalization, fused products, moved elements: parts do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from tests.untrusted.calls import one_node
from tests.untrusted.calls.one_node import INF, NAN, SCALAR, Node, full, i, ones

refused = partial(one_node.refused, domain="com.microsoft", opset=1)
either = partial(one_node.either, domain="com.microsoft", opset=1)
gives = partial(one_node.gives, domain="com.microsoft", opset=1)
I32 = np.int32


def skips() -> Iterator[Node]:
    """Skips and parameters that torch would broadcast."""
    for name in ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"):
        for skip in (ones(4), ones(1, 4), ones(2, 1, 4), ones(1, 1, 4), ones(2, 3, 1), ones(1)):
            yield refused(name, [ones(2, 3, 4), skip, ones(4)])
        yield refused(name, [ones(3, 4), ones(1, 3, 4), ones(4)])
        yield refused(name, [ones(4), ones(4), ones(4)])
        yield refused(name, [ones(2, 2, 3, 4), ones(2, 2, 3, 4), ones(4)])
        for gamma in (ones(1), ones(3), ones(3, 4), np.array(1, np.float32)):
            yield refused(name, [ones(3, 4), ones(3, 4), gamma])
            yield refused(name, [ones(3, 4), ones(3, 4), ones(4), gamma])
        yield either(name, [ones(2, 0), ones(2, 0), ones(0)], outputs=4)


def embeddings() -> Iterator[Node]:
    """Ids beyond their tables, tables of other widths, masks of other shapes."""
    ids, table, scale = i(0, 1, 2, dtype=I32)[None], ones(3, 4), ones(4)
    parameters = [None, scale, scale]
    embed = partial(refused, "EmbedLayerNormalization", outputs=2)
    for bad in (ids + 1, ids - 1, ids + 2**30):
        yield embed([bad, None, table, table, *parameters])
        yield embed([ids, None, table, table, *parameters, None, bad])
        yield embed([ids, bad, table, table, table, scale, scale])
    yield embed([ids, None, table, ones(2, 4), *parameters])
    yield embed([ids, None, table, ones(1, 4), *parameters])
    yield embed([ids, ids, table, table, *parameters])
    yield embed([ids[0], None, table, table, *parameters])
    yield embed([ids, None, table, ones(3, 1), *parameters])
    yield embed([ids, None, table, ones(3, 5), *parameters])
    yield embed([ids, None, ones(3, 4, 4), table, *parameters])
    yield embed([ids, None, table, table, None, ones(1), scale])
    yield embed([ids, None, table, table, *parameters, ids[0]])
    yield embed([ids, None, table, table, *parameters, ids[:, :2]])
    yield embed([ids, None, table, table, *parameters, None, ids[:, :1]])
    yield embed([np.tile(ids, (2, 1)), ids, table, table, table, scale, scale])
    yield embed([np.tile(ids, (2, 1)), None, table, table, *parameters, ids])


def fused() -> Iterator[Node]:
    """Activations without their parameters, sums of other shapes, batches that are not there."""
    image, filters = ones(1, 1, 2, 2), ones(1, 1, 1, 1)
    for z in (ones(1), ones(1, 1, 1, 1), ones(2, 2), ones(2, 1, 2, 2), ones(1, 1, 2, 3)):
        yield refused("FusedConv", [image, filters, None, z])
    for rest in ({}, {"activation_params": [1.0]}):
        yield refused("FusedConv", [image, filters], activation="Clip", **rest)
    yield refused("FusedConv", [image, filters], activation="LeakyRelu")
    yield refused("FusedConv", [image, filters], activation="Evil")
    yield refused("FusedConv", [ones(2), filters], activation="Relu")
    matrix = ones(2, 2)
    for name in ("LeakyRelu", "HardSigmoid", "Selu", "Clip", "Gelu", "relu"):
        yield refused("FusedGemm", [matrix, matrix], activation=name)
        yield refused("FusedMatMulActivation", [matrix, matrix], activation=name)
    yield refused("FusedMatMulActivation", [matrix, matrix], activation="Softmax")
    yield refused("FusedGemm", [i(1, 2)[None], i(1, 2)[:, None]], activation="Relu")
    yield gives([[5]], "FusedGemm", [i(1, 2)[None], i(1, 2)[:, None]])
    yield refused("FusedGemm", [ones(2), matrix], activation="Relu")
    for side in ("transBatchA", "transBatchB"):
        for shapes in (((2, 2), (2, 2)), ((2, 2, 2), (2, 2)), ((2,), (2, 2, 2))):
            yield refused("FusedMatMul", [ones(*shape) for shape in shapes], **{side: 1})
    for name in ("FusedMatMul", "TransposeMatMul", "GemmFastGelu"):
        yield refused(name, [matrix, ones(3, 2)])
        yield refused(name, [SCALAR(1, np.float32), matrix])
    yield gives([2, 2], "FusedMatMul", [ones(2), matrix], transA=1)
    yield refused("GemmFastGelu", [matrix, matrix, ones(1)])
    yield refused("GemmFastGelu", [matrix, matrix, ones(2, 2)])


def elements() -> Iterator[Node]:
    """Axes, steps and indices that are not there; kinds of distance that nothing computes."""
    matrix = ones(2, 2)
    yield gives([[0, 1, 1], [0, 1, 1]], "Pad", [matrix, i(0, 1, 0, 0)[None]])
    yield refused("Pad", [matrix, i(0, 1)])
    yield refused("Pad", [matrix, i(0, 1, 0, 0).reshape(2, 2)])
    yield refused("Pad", [matrix, i(0, 1, 0, 0)], mode="evil")
    yield refused("Pad", [matrix, i(0, -2, 0, -2)])
    for axis in (3, -4, 2**31 - 1, -(2**31)):
        yield refused("ExpandDims", [matrix, SCALAR(axis, I32)])
    yield gives([[[1], [1]], [[1], [1]]], "ExpandDims", [matrix, i(-1, dtype=I32)])
    yield refused("ExpandDims", [matrix, i(0, 1, dtype=I32)])
    yield refused("Range", [SCALAR(1), SCALAR(5), SCALAR(0)])
    yield refused("Range", [i(1, 2), SCALAR(5)])
    yield gives([1, 2], "Range", [i(1), i(3)])
    yield refused("Range", [SCALAR(0), SCALAR(2**62)])
    for index in (2, -3, 2**31 - 1):
        yield refused("GatherND", [matrix, i(index)[None]])
    yield refused("GatherND", [matrix, i(0, 0, 0)[None]])
    yield refused("Unique", [matrix], outputs=3)
    yield refused("Unique", [SCALAR(1, np.float32)], outputs=3)
    yield refused("CDist", [matrix, ones(2, 3)])
    yield refused("CDist", [ones(2), matrix])
    yield refused("CDist", [ones(2, 2, 2), matrix])
    for metric in ("cosine", "cityblock", "evil"):
        yield refused("CDist", [matrix, matrix], metric=metric)
    for setting in ({"size": 0}, {"size": -1}, {"size": 3}, {"size": 1, "step": 0}):
        yield refused("UnfoldTensor", [matrix], **setting)
    yield refused("UnfoldTensor", [matrix], size=1, step=-1)
    yield refused("UnfoldTensor", [matrix], size=1, dim=2)
    yield refused("UnfoldTensor", [SCALAR(1, np.float32)], size=1)
    yield refused("Inverse", [ones(2, 3)])
    yield refused("Inverse", [ones(2)])
    yield refused("Trilu", [ones(2)])
    yield refused("Trilu", [matrix, i(0, 1)])
    yield either("Trilu", [matrix, SCALAR(-(2**63))])


def images() -> Iterator[Node]:
    """Masks, boxes and pads of other images."""
    image = ones(1, 1, 2, 2)
    pool = partial(refused, "MaxpoolWithMask", kernel_shape=[2, 2])
    for sides in ((2, 2), (1, 1, 2, 3), (1, 1, 1, 1), (4,), (0, 1, 2, 2), (1, 1, 2, 2, 1)):
        yield pool([image, np.ones(sides, I32)])
    mask = np.ones((1, 1, 2, 2), I32)
    yield refused("MaxpoolWithMask", [image, mask])
    yield refused("MaxpoolWithMask", [image, mask], kernel_shape=[3, 3])
    yield refused("MaxpoolWithMask", [image, mask], kernel_shape=[0, 1])
    yield refused("MaxpoolWithMask", [image, mask], kernel_shape=[1, 1], strides=[0, 1])
    yield refused("MaxpoolWithMask", [ones(2, 2), np.ones((2, 2), I32)], kernel_shape=[1])
    yield either("MaxpoolWithMask", [image[:0], mask], kernel_shape=[1, 1])
    transpose = partial(refused, "ConvTransposeWithDynamicPads")
    for pads in (i(0), i(-1, 0, 0, 0), i(9, 0, 0, 0), i(2**62, 0, 0, 0), i(0, 0, 0, 0, 0, 0)):
        yield transpose([image, image, pads])
    crop = partial(refused, "CropAndResize")
    box, first, size = ones(1, 4), i(0, dtype=I32), i(2, 2, dtype=I32)
    for index in (1, -1, 2**31 - 1):
        yield crop([image, box, i(index, dtype=I32), size])
    for sizes in (i(0, 2, dtype=I32), i(-1, 2, dtype=I32), i(2, dtype=I32), i(2, 2, 2, dtype=I32)):
        yield crop([image, box, first, sizes])
    yield crop([image, ones(1, 3), first, size])
    yield crop([image, ones(2, 4), first, size])
    yield crop([image[0], box, first, size])
    yield crop([image, box, first, size], mode="evil")
    for number in (NAN, INF, -INF, 1e38):
        yield gives(
            [[[[0]]]], "CropAndResize", [image, full(number, 1, 4), first, size[:1].repeat(2) - 1]
        )
    yield refused("GridSample", [image, ones(1, 1, 1, 3)])
    yield refused("GridSample", [image, ones(1, 1, 1, 2)], mode="linear")


def diffusion() -> Iterator[Node]:
    """Groups that do not divide, sums of other shapes, halves of odd sizes, biases elsewhere."""
    image, scale = ones(1, 2, 2, 4), ones(4)
    for name, rest in (("GroupNorm", []), ("SkipGroupNorm", [image])):
        norm = partial(refused, name, activation=0)
        for groups in (0, -1, 3, 8):
            yield norm([image, scale, scale, *rest], groups=groups)
        yield norm([image, scale, ones(1), *rest], groups=2)
        yield norm([ones(2, 4), scale, scale, *rest], groups=2)
        yield refused(name, [image, scale, scale, *rest], groups=2, activation=2)
    skip = partial(refused, "SkipGroupNorm", activation=0, groups=2)
    for other in (ones(1), ones(4), ones(2, 4), ones(1, 1), ones(1, 2, 1, 4), ones(2, 2, 2, 4)):
        yield skip([image, scale, scale, other])
    yield skip([image, scale, scale, image, ones(1)])
    yield refused("BiasAdd", [image, ones(1), image])
    yield refused("BiasAdd", [image, scale, scale])
    yield refused("BiasSplitGelu", [ones(1, 1, 3), ones(3)])
    yield refused("BiasSplitGelu", [ones(1, 1, 4), ones(1)])
    soft = partial(refused, "BiasSoftmax")
    for inner, bias in ((1, (2, 1)), (0, (2, 3)), (1, (1, 3, 4)), (0, (2, 1, 4)), (1, (5, 1, 4))):
        yield soft([ones(2, 3, 4), ones(*bias)], axis=2, is_inner_broadcast=inner)
    yield soft([ones(2, 3), ones(1, 2, 3)], is_inner_broadcast=0)
    yield soft([ones(2, 3), ones(2, 3)], axis=2, is_inner_broadcast=0)


def training() -> Iterator[Node]:
    """Sums of other shapes, complex numbers without parts, indices beyond the table."""
    for name in ("BiasDropout", "BitmaskBiasDropout"):
        yield refused(name, [ones(2, 4), ones(1)])
        yield refused(name, [ones(2, 4), ones(4), ones(4)])
        yield refused(name, [ones(2, 4), ones(4), None, SCALAR(2, np.float32), SCALAR(True)])
        yield either(name, [SCALAR(1, np.float32), SCALAR(1, np.float32)], outputs=2)
    yield gives([[1] * 33, [2**32 - 1, 1]], "BitmaskDropout", [ones(33)], outputs=2)
    for name in ("ComplexMul", "ComplexMulConj"):
        for shape in ((3,), (1,), (2, 3), ()):
            yield refused(name, [ones(*shape), ones(2)])
            yield refused(name, [ones(2), ones(*shape)])
        yield refused(name, [ones(2, 2), ones(3, 2)])
    yield refused("Rfft", [ones(3)])
    yield refused("Rfft", [ones(4)], signal_ndim=2)
    yield refused("Rfft", [ones(4)], normalized=1)
    yield refused("Rfft", [ones(4)], onesided=0)
    yield refused("Rfft", [ones(0)])
    yield refused("Irfft", [ones(4, 3)], signal_ndim=1)
    yield refused("Irfft", [ones(2)], signal_ndim=1)
    yield refused("Irfft", [ones(1, 2)], signal_ndim=1)
    yield refused("IsAllFinite", [ones(2)], isinf_only=1, isnan_only=1)
    for index in (3, -1, 2**40):
        yield refused("TorchEmbedding", [ones(3, 2), i(index)])
    yield refused("TorchEmbedding", [ones(3), i(0)])
    yield refused("TorchEmbedding", [ones(3, 2), i(0), SCALAR(3)])


def legacy() -> Iterator[Node]:
    """Borders wider than the image, biases of other channels, attributes that are missing."""
    image = ones(1, 2, 3, 3)
    first = partial(one_node.refused, opset=9)
    for border in ([1, 0], [-1, 0, 0, 0], [2, 0, 2, 0], [0, 2, 0, 2], [2**62, 0, 2**62, 0]):
        yield first("Crop", [image], border=border)
    for scale in ([1], [4, 1], [1, 4], [-1, 1], [2**62, 2**62]):
        yield first("Crop", [image], border=[0, 0, 0, 0], scale=scale)
    yield first("Crop", [image])
    yield first("Crop", [image[0]], border=[0, 0, 0, 0])
    yield first("ImageScaler", [image])
    yield first("ImageScaler", [image], bias=[1.0])
    yield first("ImageScaler", [image[0]], bias=[1.0, 1.0])
    yield first("ScaledTanh", [image], alpha=1.0)
    yield first("ParametricSoftplus", [image], beta=1.0)
    yield first("DynamicSlice", [image, i(0), i(1), i(4)])
    yield first("DynamicSlice", [image, i(0), i(1, 2), i(0)])
    yield one_node.refused("MeanVarianceNormalization", [ones(2, 2)], opset=8)


GROUPS = (skips, embeddings, fused, elements, images, diffusion, training, legacy)

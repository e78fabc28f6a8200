"""Operators of onnxruntime for normalization, fused products, moved elements: parts do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from tests.untrusted.calls import one_node
from tests.untrusted.calls.one_node import SCALAR, Node, i, ones

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


GROUPS = (skips, embeddings, fused)

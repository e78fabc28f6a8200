"""GoogLeNet twice: BVLC's googlenet-9, and inception-v1-9, the same net from another converter.

They differ in the pools: BVLC's pad on the far side, as Caffe's ceiling mode needs, so its grids
are 56, 28, 14 and 7 wide; the other keeps Caffe2's floor (55, 27, 13, 6) and pads the last average
pool instead. inception-v1-9 also reshapes the classifier's four-dimensional weight in the graph.
"""

from __future__ import annotations

import numpy as np
import onnx

from tests.zoo.architectures.alexnet import IMAGE, POOLED_LOGIT_GAIN, flatten, local_response
from tests.zoo.architectures.builder import CAFFE2, GraphBuilder, Pads

# 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection; None stands for a pool between stages
INCEPTIONS: dict[str, tuple[int, int, int, int, int, int] | None] = {
    "inception_3a": (64, 96, 128, 16, 32, 32),
    "inception_3b": (128, 128, 192, 32, 96, 64),
    "pool3": None,
    "inception_4a": (192, 96, 208, 16, 48, 64),
    "inception_4b": (160, 112, 224, 24, 64, 64),
    "inception_4c": (128, 128, 256, 24, 64, 64),
    "inception_4d": (112, 144, 288, 32, 64, 64),
    "inception_4e": (256, 160, 320, 32, 128, 128),
    "pool4": None,
    "inception_5a": (256, 160, 320, 32, 128, 128),
    "inception_5b": (384, 192, 384, 48, 128, 128),
}


def googlenet() -> onnx.ModelProto:
    b = GraphBuilder("googlenet-9", 9, CAFFE2)
    x = features(b, pool_pads=(0, 0, 1, 1))
    x = flatten(b, b.dropout(b.average_pool(x, 7, 1), 0.4))
    logits = b.dense(x, "loss3/classifier", 1000, gain=POOLED_LOGIT_GAIN)
    return b.finish(b.node("Softmax", [logits], "prob_1"), [1, 1000])


def inception_v1() -> onnx.ModelProto:
    b = GraphBuilder("inception-v1-9", 9, CAFFE2)
    x = features(b, pool_pads=0)
    x = flatten(b, b.dropout(b.average_pool(x, 7, 1, (0, 0, 1, 1)), 0.4))
    weight, bias = b.dense_weights(x, "loss3/classifier", 1000, POOLED_LOGIT_GAIN)
    b.weights[weight] = b.values[weight] = b.weights[weight].reshape(1, 1, 1000, 1024)
    matrix = b.node("Reshape", [weight, b.initializer("OC2_DUMMY_3", np.array([1000, 1024]))])
    logits = b.node("Gemm", [x, matrix, bias], transB=1)
    return b.finish(b.node("Softmax", [logits], "prob_1"), [1, 1000])


def features(b: GraphBuilder, pool_pads: Pads) -> str:
    x = b.image("data_0", 224, 224, IMAGE)
    x = b.relu(b.conv(x, "conv1/7x7_s2", 64, 7, stride=2, pads=3))
    x = local_response(b, b.max_pool(x, 3, 2, pool_pads))
    x = b.relu(b.conv(x, "conv2/3x3_reduce", 64, 1))
    x = local_response(b, b.relu(b.conv(x, "conv2/3x3", 192, 3, pads=1)))
    x = b.max_pool(x, 3, 2, pool_pads)
    for name, widths in INCEPTIONS.items():
        x = inception(b, x, name, widths) if widths else b.max_pool(x, 3, 2, pool_pads)
    return x


def inception(
    b: GraphBuilder, x: str, name: str, widths: tuple[int, int, int, int, int, int]
) -> str:
    one, reduce_3, three, reduce_5, five, projection = widths
    branch_1 = b.relu(b.conv(x, f"{name}/1x1", one, 1))
    branch_3 = b.relu(b.conv(x, f"{name}/3x3_reduce", reduce_3, 1))
    branch_3 = b.relu(b.conv(branch_3, f"{name}/3x3", three, 3, pads=1))
    branch_5 = b.relu(b.conv(x, f"{name}/5x5_reduce", reduce_5, 1))
    branch_5 = b.relu(b.conv(branch_5, f"{name}/5x5", five, 5, pads=2))
    pooled = b.max_pool(x, 3, 1, 1)
    pooled = b.relu(b.conv(pooled, f"{name}/pool_proj", projection, 1))
    return b.concat([branch_1, branch_3, branch_5, pooled])

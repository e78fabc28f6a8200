"""Inception v2 (BN-Inception) as Caffe2 exported it.

A normalised convolution is five nodes: Conv without bias, BatchNormalization, then Caffe's Scale
layer as Mul and Add of vectors that are unsqueezed in the graph.
"""

from __future__ import annotations

import numpy as np
import onnx

from tests.zoo.architectures.alexnet import IMAGE, POOLED_LOGIT_GAIN, flatten
from tests.zoo.architectures.builder import CAFFE2, GraphBuilder

# 1x1, 3x3 reduce, 3x3, double 3x3 reduce, double 3x3, pool projection.
# Without a 1x1 branch the block halves the grid: its last convolutions and its pool have stride 2.
INCEPTIONS = {
    "inception_3a": (64, 64, 64, 64, 96, 32),
    "inception_3b": (64, 64, 96, 64, 96, 64),
    "inception_3c": (0, 128, 160, 64, 96, 0),
    "inception_4a": (224, 64, 96, 96, 128, 128),
    "inception_4b": (192, 96, 128, 96, 128, 128),
    "inception_4c": (160, 128, 160, 128, 160, 96),
    "inception_4d": (96, 128, 192, 160, 192, 96),
    "inception_4e": (0, 128, 192, 192, 256, 0),
    "inception_5a": (352, 192, 320, 160, 224, 128),
    "inception_5b": (352, 192, 320, 192, 224, 128),
}
FAR_SIDE = (0, 0, 1, 1)


def inception_v2() -> onnx.ModelProto:
    b = GraphBuilder("inception-v2-9", 9, CAFFE2)
    x = normalised_conv(b, b.image("data_0", 224, 224, IMAGE), "conv1/7x7_s2", 64, 7, 2)
    x = b.max_pool(x, 3, 2, FAR_SIDE)
    x = normalised_conv(b, x, "conv2/3x3_reduce", 64, 1)
    x = normalised_conv(b, x, "conv2/3x3", 192, 3)
    x = b.max_pool(x, 3, 2, FAR_SIDE)
    for name, widths in INCEPTIONS.items():
        x = inception(b, x, name, widths)
    x = flatten(b, b.average_pool(x, 7, 1))
    logits = b.dense(x, "loss3/classifier", 1000, gain=POOLED_LOGIT_GAIN)
    return b.finish(b.node("Softmax", [logits], "prob_1"), [1, 1000])


def inception(b: GraphBuilder, x: str, name: str, widths: tuple[int, ...]) -> str:
    one, reduce_3, three, reduce_double, double, projection = widths
    stride = 1 if one else 2
    branches = [normalised_conv(b, x, f"{name}/1x1", one, 1)] if one else []
    y = normalised_conv(b, x, f"{name}/3x3_reduce", reduce_3, 1)
    branches.append(normalised_conv(b, y, f"{name}/3x3", three, 3, stride))
    y = normalised_conv(b, x, f"{name}/double3x3_reduce", reduce_double, 1)
    y = normalised_conv(b, y, f"{name}/double3x3a", double, 3)
    branches.append(normalised_conv(b, y, f"{name}/double3x3b", double, 3, stride))
    if projection:
        last = name == "inception_5b"  # the one block that projects a maximum, not an average
        y = b.max_pool(x, 3, 1, 1) if last else b.average_pool(x, 3, 1, 1)
        branches.append(normalised_conv(b, y, f"{name}/pool_proj", projection, 1))
    else:
        branches.append(b.max_pool(x, 3, 2, FAR_SIDE))
    return b.concat(branches)


def normalised_conv(
    b: GraphBuilder, x: str, name: str, channels: int, kernel: int, stride: int = 1
) -> str:
    x = b.conv(x, name, channels, kernel, stride=stride, pads=kernel // 2, bias=False)
    x = b.batch_norm(x, name, epsilon=1e-5)
    rng = b.rng(name, "scale layer")
    scale = b.initializer(f"{name}/bn/sc_w_0", rng.uniform(0.7, 1.3, channels).astype(np.float32))
    x = b.node("Mul", [x, b.node("Unsqueeze", [scale], axes=[1, 2])])
    shift = 0.2 * rng.standard_normal(channels)
    shift_name = b.initializer(f"{name}/bn/sc_b_0", shift.astype(np.float32))
    return b.relu(b.node("Add", [x, b.node("Unsqueeze", [shift_name], axes=[1, 2])]))

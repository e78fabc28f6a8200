"""AlexNet and its two relatives in the zoo: BVLC's AlexNet, ZFNet-512 and CaffeNet's layers.

All three came through Caffe2: opset 9, batch 1, the data flattened by Reshape to a fixed shape.
AlexNet normalises (LRN) before it pools, CaffeNet after; both have two groups in Conv 2, 4, 5.
"""

from __future__ import annotations

import numpy as np
import onnx

from tests.zoo.architectures.builder import CAFFE2, GraphBuilder, Naming

GPU: Naming = {role: "gpu_0/" + pattern for role, pattern in CAFFE2.items()}
IMAGE = (1, 3, 224, 224)
LOGIT_GAIN = 2.5  # a Softmax over a thousand logits of this spread has likely and unlikely classes
POOLED_LOGIT_GAIN = 1.2  # on features averaged over the image, which differ more between images


def bvlc_alexnet() -> onnx.ModelProto:
    b = GraphBuilder("bvlcalexnet-9", 9, CAFFE2)
    x = b.relu(b.conv(b.image("data_0", 224, 224, IMAGE), "conv1", 96, 11, stride=4))
    x = b.max_pool(local_response(b, x), 3, 2)
    x = b.relu(b.conv(x, "conv2", 256, 5, pads=2, group=2))
    x = b.max_pool(local_response(b, x), 3, 2)
    x = convolutions_3_to_5(b, x)
    x = fully_connected(b, x)
    logits = b.dense(x, "fc8", 1000, gain=LOGIT_GAIN)
    return b.finish(b.node("Softmax", [logits], "prob_1"), [1, 1000])


def caffenet_features(b: GraphBuilder) -> str:
    """CaffeNet up to the last Dropout; R-CNN puts its own classifier on these features."""
    x = b.relu(b.conv(b.image("data_0", 224, 224, IMAGE), "conv1", 96, 11, stride=4))
    x = local_response(b, b.max_pool(x, 3, 2))
    x = b.relu(b.conv(x, "conv2", 256, 5, pads=2, group=2))
    x = local_response(b, b.max_pool(x, 3, 2))
    return fully_connected(b, convolutions_3_to_5(b, x))


def zfnet512() -> onnx.ModelProto:
    b = GraphBuilder("zfnet512-9", 9, GPU)
    x = b.relu(b.conv(b.image("gpu_0/data_0", 224, 224, IMAGE), "conv1", 96, 7, stride=2))
    x = b.max_pool(local_response(b, x, alpha=5e-4, bias=2.0), 3, 2)
    x = b.relu(b.conv(x, "conv2", 256, 5, stride=2))
    x = b.max_pool(local_response(b, x, alpha=5e-4, bias=2.0), 3, 2)
    for layer in ("conv3", "conv4", "conv5"):
        x = b.relu(b.conv(x, layer, 512, 3, pads=1))
    x = flatten(b, b.max_pool(x, 2, 2))
    x = b.relu(b.dense(x, "fc6", 4096))
    x = b.relu(b.dense(x, "fc7", 1024))
    logits = b.dense(x, "fc8", 1000, gain=LOGIT_GAIN)
    return b.finish(b.node("Softmax", [logits], "gpu_0/softmax_1"), [1, 1000])


def local_response(b: GraphBuilder, x: str, alpha: float = 1e-4, bias: float = 1.0) -> str:
    return b.node("LRN", [x], size=5, alpha=alpha, beta=0.75, bias=bias)


def convolutions_3_to_5(b: GraphBuilder, x: str) -> str:
    x = b.relu(b.conv(x, "conv3", 384, 3, pads=1))
    x = b.relu(b.conv(x, "conv4", 384, 3, pads=1, group=2))
    x = b.relu(b.conv(x, "conv5", 256, 3, pads=1, group=2))
    return b.max_pool(x, 3, 2, (0, 0, 1, 1))


def flatten(b: GraphBuilder, x: str) -> str:
    """Reshape to [1, everything], the shape an initializer as Caffe2's exporter has it."""
    size = b.values[x].size
    return b.node("Reshape", [x, b.initializer("OC2_DUMMY_1", np.array([1, size]))])


def fully_connected(b: GraphBuilder, x: str) -> str:
    """The two layers of 4096 units that AlexNet, CaffeNet and VGG share."""
    x = flatten(b, x)
    for layer in ("fc6", "fc7"):
        x = b.dropout(b.relu(b.dense(x, layer, 4096)), 0.5)
    return x

"""VGG-19 as Caffe2 exported it: sixteen 3x3 convolutions in five blocks, three dense layers."""

from __future__ import annotations

import onnx

from tests.zoo.architectures.alexnet import IMAGE, LOGIT_GAIN, fully_connected
from tests.zoo.architectures.builder import CAFFE2, GraphBuilder

BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # channels, convolutions


def vgg19() -> onnx.ModelProto:
    b = GraphBuilder("vgg19-caffe2-9", 9, CAFFE2)
    x = b.image("data_0", 224, 224, IMAGE)
    for block, (channels, convolutions) in enumerate(BLOCKS, start=1):
        for layer in range(1, convolutions + 1):
            x = b.relu(b.conv(x, f"conv{block}_{layer}", channels, 3, pads=1))
        x = b.max_pool(x, 2, 2)
    logits = b.dense(fully_connected(b, x), "fc8", 1000, gain=LOGIT_GAIN)
    return b.finish(b.node("Softmax", [logits], "prob_1"), [1, 1000])

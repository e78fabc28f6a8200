"""R-CNN ILSVRC13: CaffeNet's features under 200 class scores, without a Softmax."""

from __future__ import annotations

import onnx

from tests.zoo.architectures.alexnet import LOGIT_GAIN, caffenet_features
from tests.zoo.architectures.builder import CAFFE2, GraphBuilder


def rcnn_ilsvrc13() -> onnx.ModelProto:
    b = GraphBuilder("rcnn-ilsvrc13-9", 9, CAFFE2)
    features = caffenet_features(b)
    weights = b.dense_weights(features, "fc-rcnn", 200, LOGIT_GAIN)
    return b.finish(b.node("Gemm", [features, *weights], "fc-rcnn_1", transB=1), [1, 200])

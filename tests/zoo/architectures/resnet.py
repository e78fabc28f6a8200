"""ResNet-50 v2 as MXNet's Gluon exported it: BatchNormalization and Relu come before each Conv.

The input itself is normalised first, and a downsampling shortcut starts from the activation, not
from the sum.
"""

from __future__ import annotations

import onnx

from tests.zoo.architectures.alexnet import LOGIT_GAIN
from tests.zoo.architectures.builder import GLUON, GraphBuilder

STAGES = ((3, 256), (4, 512), (6, 1024), (3, 2048))  # units, channels
BRANCH_GAIN = 0.5  # keeps the sum of sixteen branches near unit variance


def resnet50_v2() -> onnx.ModelProto:
    b = GraphBuilder("resnet50-v2-7", 7, GLUON)
    x = norm(b, b.image("data", 224, 224, ("N", 3, 224, 224)), "resnetv24_batchnorm0")
    x = b.conv(x, "resnetv24_conv0", 64, 7, stride=2, pads=3, bias=False)
    x = b.max_pool(b.relu(norm(b, x, "resnetv24_batchnorm1")), 3, 2, 1)
    for stage, (units, channels) in enumerate(STAGES, start=1):
        prefix = f"resnetv24_stage{stage}"
        convs = iter(f"{prefix}_conv{i}" for i in range(1 + 3 * units))
        norms = iter(f"{prefix}_batchnorm{i}" for i in range(3 * units))
        for unit in range(units):
            stride = 2 if unit == 0 and stage > 1 else 1
            active = b.relu(norm(b, x, next(norms)))
            y = b.conv(active, next(convs), channels // 4, 1, bias=False)
            y = b.relu(norm(b, y, next(norms)))
            y = b.conv(y, next(convs), channels // 4, 3, stride=stride, pads=1, bias=False)
            y = b.relu(norm(b, y, next(norms)))
            y = b.conv(y, next(convs), channels, 1, bias=False, gain=BRANCH_GAIN)
            if unit == 0:
                x = b.conv(active, next(convs), channels, 1, stride=stride, bias=False)
            x = b.node("Add", [y, x])
    x = b.node("GlobalAveragePool", [b.relu(norm(b, x, "resnetv24_batchnorm2"))])
    features = b.node("Flatten", [x])
    weights = b.dense_weights(features, "resnetv24_dense0", 1000, LOGIT_GAIN)
    attributes = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}
    scores = b.node("Gemm", [features, *weights], "resnetv24_dense0_fwd", **attributes)
    return b.finish(scores, ["N", 1000])


def norm(b: GraphBuilder, x: str, name: str) -> str:
    return b.batch_norm(x, name, epsilon=1e-5, momentum=0.9, spatial=1)

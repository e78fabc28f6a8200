"""MobileNet v2 as two frameworks exported it.

The name mobilenetv2-7 has stood for both files: MXNet's of opset 7, and PyTorch's, since renamed
for its true opset. Here mobilenetv2-7 has PyTorch's layers at opset 7 (Clip with its bounds as
attributes, the flattening computed from Shape), and mobilenetv2-1.0 has MXNet's at opset 10 (Relu,
and an expansion even in the first block).
"""

from __future__ import annotations

import numpy as np
import onnx

from tests.zoo.architectures.alexnet import LOGIT_GAIN
from tests.zoo.architectures.builder import GLUON, TORCH, GraphBuilder

# expansion, channels, bottlenecks, stride of the first: table 2 of arXiv:1801.04381
TABLE = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
BOTTLENECKS = [  # expansion, channels, stride
    (expansion, channels, stride if i == 0 else 1)
    for expansion, channels, repeats, stride in TABLE
    for i in range(repeats)
]
BRANCH_GAIN = 0.5  # keeps the sums along a chain of shortcuts near unit variance


def mobilenet_v2_torch() -> onnx.ModelProto:
    b = GraphBuilder("mobilenetv2-7", 7, TORCH)
    x = b.image("input", 224, 224, ("batch_size", 3, 224, 224))
    x = relu6(b, torch_conv(b, x, "features.0.0", "features.0.1", 32, 3, stride=2))
    for index, (expansion, channels, stride) in enumerate(BOTTLENECKS, start=1):
        prefix, width = f"features.{index}.conv", b.values[x].shape[1]
        shortcut = stride == 1 and width == channels
        y, layer = x, 0
        if expansion > 1:
            y = relu6(b, torch_conv(b, y, f"{prefix}.0.0", f"{prefix}.0.1", expansion * width, 1))
            layer = 1
        names = f"{prefix}.{layer}.0", f"{prefix}.{layer}.1"
        y = relu6(b, torch_conv(b, y, *names, expansion * width, 3, stride, expansion * width))
        names = f"{prefix}.{layer + 1}", f"{prefix}.{layer + 2}"
        y = torch_conv(b, y, *names, channels, 1, gain=BRANCH_GAIN if shortcut else 1.0)
        x = b.node("Add", [x, y]) if shortcut else y
    x = relu6(b, torch_conv(b, x, "features.18.0", "features.18.1", 1280, 1))
    x = flatten_by_shape(b, b.node("GlobalAveragePool", [x]))
    weights = b.dense_weights(x, "classifier.1", 1000, LOGIT_GAIN)
    scores = b.node("Gemm", [x, *weights], "output", alpha=1.0, beta=1.0, transB=1)
    return b.finish(scores, ["batch_size", 1000])


def torch_conv(
    b: GraphBuilder,
    x: str,
    conv: str,
    norm: str,
    channels: int,
    kernel: int,
    stride: int = 1,
    group: int = 1,
    gain: float = 1.0,
) -> str:
    """Conv and BatchNormalization under the names of two PyTorch modules."""
    pads = kernel // 2
    x = b.conv(x, conv, channels, kernel, stride=stride, pads=pads, group=group, bias=False)
    return b.batch_norm(x, norm, gain=gain, epsilon=1e-5, momentum=0.9)


def relu6(b: GraphBuilder, x: str) -> str:
    return b.node("Clip", [x], min=0.0, max=6.0)


def flatten_by_shape(b: GraphBuilder, x: str) -> str:
    """`x.reshape(x.shape[0], -1)` as PyTorch traces it."""
    batch = b.node("Gather", [b.node("Shape", [x]), b.constant(0)], axis=0)
    sizes = [b.node("Unsqueeze", [size], axes=[0]) for size in (batch, b.constant(-1))]
    return b.node("Reshape", [x, b.concat(sizes, axis=0)])


def mobilenet_v2_gluon() -> onnx.ModelProto:
    b = GraphBuilder("mobilenetv2-1.0", 10, GLUON)
    x = b.image("data", 224, 224, ("N", 3, 224, 224))
    x = b.relu(gluon_conv(b, x, "mobilenetv20_features", 0, 32, 3, stride=2))
    for index, (expansion, channels, stride) in enumerate(BOTTLENECKS):
        prefix, width = f"mobilenetv20_features_linearbottleneck{index}", b.values[x].shape[1]
        shortcut = stride == 1 and width == channels
        wide = expansion * width
        y = b.relu(gluon_conv(b, x, prefix, 0, wide, 1))
        y = b.relu(gluon_conv(b, y, prefix, 1, wide, 3, stride=stride, group=wide))
        y = gluon_conv(b, y, prefix, 2, channels, 1, gain=BRANCH_GAIN if shortcut else 1.0)
        x = b.node("Add", [y, x]) if shortcut else y
    x = b.relu(gluon_conv(b, x, "mobilenetv20_features", 1, 1280, 1))
    x = b.node("GlobalAveragePool", [x])
    x = b.conv(x, "mobilenetv20_output_pred", 1000, 1, bias=False, gain=LOGIT_GAIN)
    shape = b.initializer("reshape_attr_tensor421", np.array([0, -1]))
    scores = b.node("Reshape", [x, shape], "mobilenetv20_output_flatten0_reshape0")
    return b.finish(scores, ["N", 1000])


def gluon_conv(
    b: GraphBuilder,
    x: str,
    prefix: str,
    index: int,
    channels: int,
    kernel: int,
    *,
    stride: int = 1,
    group: int = 1,
    gain: float = 1.0,
) -> str:
    """Conv and BatchNormalization number `index` of a Gluon block."""
    conv, norm = f"{prefix}_conv{index}", f"{prefix}_batchnorm{index}"
    pads = kernel // 2
    x = b.conv(x, conv, channels, kernel, stride=stride, pads=pads, group=group, bias=False)
    return b.batch_norm(x, norm, gain=gain, epsilon=1e-5, momentum=0.9)

"""ShuffleNet v2 (x1.0) as PyTorch traced torchvision's: channel split and channel shuffle.

The shuffle's shapes are computed in the graph, size by size, so the batch stays free.
"""

from __future__ import annotations

import onnx

from tests.zoo.architectures.alexnet import LOGIT_GAIN
from tests.zoo.architectures.builder import TORCH, GraphBuilder
from tests.zoo.architectures.mobilenet import torch_conv

STAGES = ((2, 4, 116), (3, 8, 232), (4, 4, 464))  # number, units, channels


def shufflenet_v2() -> onnx.ModelProto:
    b = GraphBuilder("shufflenet-v2-10", 10, TORCH)
    x = b.image("input", 224, 224, ("batch_size", 3, 224, 224))
    x = b.relu(torch_conv(b, x, "conv1.0", "conv1.1", 24, 3, 2))
    x = b.max_pool(x, 3, 2, 1)
    for stage, units, channels in STAGES:
        for unit in range(units):
            prefix = f"stage{stage}.{unit}"
            x = shuffle(
                b, downsample(b, x, prefix, channels) if unit == 0 else refine(b, x, prefix)
            )
    x = b.relu(torch_conv(b, x, "conv5.0", "conv5.1", 1024, 1))
    x = b.node("ReduceMean", [x], axes=[2, 3], keepdims=0)
    weights = b.dense_weights(x, "fc", 1000, LOGIT_GAIN)
    scores = b.node("Gemm", [x, *weights], "output", alpha=1.0, beta=1.0, transB=1)
    return b.finish(scores, ["batch_size", 1000])


def downsample(b: GraphBuilder, x: str, prefix: str, channels: int) -> str:
    """The first unit of a stage: both branches see all channels and halve the grid."""
    width, half = b.values[x].shape[1], channels // 2
    y = torch_conv(b, x, f"{prefix}.branch1.0", f"{prefix}.branch1.1", width, 3, 2, width)
    y = b.relu(torch_conv(b, y, f"{prefix}.branch1.2", f"{prefix}.branch1.3", half, 1))
    return b.concat([y, branch_2(b, x, prefix, half, stride=2)])


def refine(b: GraphBuilder, x: str, prefix: str) -> str:
    """The other units: half of the channels pass by."""
    half = b.values[x].shape[1] // 2
    outputs = [f"{prefix}.kept", f"{prefix}.worked"]
    kept, worked = b.node_with_outputs("Split", [x], outputs, axis=1, split=[half, half])
    return b.concat([kept, branch_2(b, worked, prefix, half, stride=1)])


def branch_2(b: GraphBuilder, x: str, prefix: str, channels: int, stride: int) -> str:
    names = [f"{prefix}.branch2.{i}" for i in range(7)]
    x = b.relu(torch_conv(b, x, names[0], names[1], channels, 1))
    x = torch_conv(b, x, names[3], names[4], channels, 3, stride, channels)
    return b.relu(torch_conv(b, x, names[5], names[6], channels, 1))


def shuffle(b: GraphBuilder, x: str) -> str:
    """Interleave the two halves of the channels."""
    batch, channels, height, width = (
        b.node("Gather", [b.node("Shape", [x]), b.constant(axis)], axis=0) for axis in range(4)
    )
    per_group = b.node("Div", [channels, b.constant(2)])
    x = reshape(b, x, [batch, b.constant(2), per_group, height, width])
    x = b.node("Transpose", [x], perm=[0, 2, 1, 3, 4])
    return reshape(b, x, [batch, b.constant(-1), height, width])


def reshape(b: GraphBuilder, x: str, sizes: list[str]) -> str:
    """Reshape to sizes that are scalars in the graph."""
    shape = [b.node("Unsqueeze", [size], axes=[0]) for size in sizes]
    return b.node("Reshape", [x, b.concat(shape, axis=0)])

"""SqueezeNet 1.1 as MXNet exported it: fire modules, and class scores pooled from a 1x1 Conv."""

from __future__ import annotations

import numpy as np
import onnx

from tests.zoo.architectures.builder import GLUON, GraphBuilder

# squeeze and (each) expand width; None stands for a pool
FIRES: tuple[tuple[int, int] | None, ...] = (
    *((16, 64), (16, 64), None),
    *((32, 128), (32, 128), None),
    *((48, 192), (48, 192), (64, 256), (64, 256)),
)


def squeezenet1_1() -> onnx.ModelProto:
    b = GraphBuilder("squeezenet1.1-7", 7, GLUON)
    convs = (f"squeezenet0_conv{i}" for i in range(26))
    x = b.relu(b.conv(b.image("data", 224, 224, ("N", 3, 224, 224)), next(convs), 64, 3, stride=2))
    x = b.max_pool(x, 3, 2)
    for fire in FIRES:
        if fire is None:
            x = b.max_pool(x, 3, 2)
            continue
        squeeze, expand = fire
        squeezed = b.relu(b.conv(x, next(convs), squeeze, 1))
        narrow = b.relu(b.conv(squeezed, next(convs), expand, 1))
        wide = b.relu(b.conv(squeezed, next(convs), expand, 3, pads=1))
        x = b.concat([narrow, wide])
    x = b.relu(b.conv(b.dropout(x, 0.5), next(convs), 1000, 1, gain=2.0))
    shape = b.initializer("reshape_attr_tensor118", np.array([0, -1]))
    scores = b.node("Reshape", [b.average_pool(x, 13, 1), shape], "squeezenet0_flatten0_reshape0")
    return b.finish(scores, ["N", 1000])

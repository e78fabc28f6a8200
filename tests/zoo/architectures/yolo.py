"""YOLOv5s as ultralytics exports it with dynamic axes at opset 12 (release 6, 6x6 stem).

BatchNormalization is folded into the convolutions, SiLU is Sigmoid and Mul, and the detection head
builds its grid in the graph (Shape, Range, Expand) and decodes boxes to pixels.
"""

from __future__ import annotations

import numpy as np
import onnx

from tests.zoo.architectures.builder import TORCH, GraphBuilder
from tests.zoo.architectures.shufflenet import reshape

CLASSES, ANCHORS_PER_CELL = 80, 3
ANCHORS = {  # width and height in pixels, by the stride of the level
    8: ((10, 13), (16, 30), (33, 23)),
    16: ((30, 61), (62, 45), (59, 119)),
    32: ((116, 90), (156, 198), (373, 326)),
}
BRANCH_GAIN = 0.5


def yolov5s() -> onnx.ModelProto:
    b = GraphBuilder("yolov5s", 12, TORCH)
    x = b.image("images", 320, 320, ("batch", 3, "height", "width"))
    x = conv_silu(b, x, "model.0", 32, 6, 2, pads=2)
    x = c3(b, conv_silu(b, x, "model.1", 64, 3, 2), "model.2", 64, 1)
    level_3 = c3(b, conv_silu(b, x, "model.3", 128, 3, 2), "model.4", 128, 2)
    level_4 = c3(b, conv_silu(b, level_3, "model.5", 256, 3, 2), "model.6", 256, 3)
    x = c3(b, conv_silu(b, level_4, "model.7", 512, 3, 2), "model.8", 512, 1)
    top = conv_silu(b, spatial_pyramid(b, x, "model.9", 512), "model.10", 256, 1)
    x = c3(b, b.concat([upsample(b, top), level_4]), "model.13", 256, 1, shortcut=False)
    middle = conv_silu(b, x, "model.14", 128, 1)
    x = c3(b, b.concat([upsample(b, middle), level_3]), "model.17", 128, 1, shortcut=False)
    levels = [x]
    x = b.concat([conv_silu(b, x, "model.18", 128, 3, 2), middle])
    levels.append(c3(b, x, "model.20", 256, 1, shortcut=False))
    x = b.concat([conv_silu(b, levels[-1], "model.21", 256, 3, 2), top])
    levels.append(c3(b, x, "model.23", 512, 1, shortcut=False))
    boxes = [detect(b, x, index) for index, x in enumerate(levels)]
    output = b.node("Concat", boxes, "output0", axis=1)
    return b.finish(output, ["batch", "anchors", 5 + CLASSES])


def conv_silu(
    b: GraphBuilder,
    x: str,
    name: str,
    channels: int,
    kernel: int,
    stride: int = 1,
    pads: int | None = None,
    gain: float = 1.0,
) -> str:
    padding = kernel // 2 if pads is None else pads
    x = b.conv(x, f"{name}.conv", channels, kernel, stride=stride, pads=padding, gain=gain)
    return b.node("Mul", [x, b.node("Sigmoid", [x])])


def c3(
    b: GraphBuilder, x: str, name: str, channels: int, bottlenecks: int, *, shortcut: bool = True
) -> str:
    """Cross-stage block of three convolutions: half of the width passes the bottlenecks by."""
    half = channels // 2
    y = conv_silu(b, x, f"{name}.cv1", half, 1)
    for i in range(bottlenecks):
        z = conv_silu(b, y, f"{name}.m.{i}.cv1", half, 1)
        gain = BRANCH_GAIN if shortcut else 1.0
        z = conv_silu(b, z, f"{name}.m.{i}.cv2", half, 3, gain=gain)
        y = b.node("Add", [y, z]) if shortcut else z
    y = b.concat([y, conv_silu(b, x, f"{name}.cv2", half, 1)])
    return conv_silu(b, y, f"{name}.cv3", channels, 1)


def spatial_pyramid(b: GraphBuilder, x: str, name: str, channels: int) -> str:
    """SPPF: three 5x5 maxima in a chain see as far as a 5x5, a 9x9 and a 13x13."""
    pyramid = [conv_silu(b, x, f"{name}.cv1", channels // 2, 1)]
    for _ in range(3):
        pyramid.append(b.max_pool(pyramid[-1], 5, 1, 2))
    return conv_silu(b, b.concat(pyramid), f"{name}.cv2", channels, 1)


def upsample(b: GraphBuilder, x: str) -> str:
    no_region, scales = b.constant([], "float32"), b.constant([1, 1, 2, 2], "float32")
    return b.node(
        "Resize",
        [x, no_region, scales],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        cubic_coeff_a=-0.75,
        nearest_mode="floor",
    )


def detect(b: GraphBuilder, x: str, index: int) -> str:
    """Decode one level: cell offsets to pixels, sizes to multiples of the anchors."""
    stride, anchors = list(ANCHORS.items())[index]
    fields = 5 + CLASSES
    x = b.conv(x, f"model.24.m.{index}", ANCHORS_PER_CELL * fields, 1)
    shape = [b.node("Shape", [x]) for _ in range(3)]
    batch, height, width = (
        b.node("Gather", [s, b.constant(axis)], axis=0)
        for s, axis in zip(shape, (0, 2, 3), strict=True)
    )
    per_cell = b.constant(ANCHORS_PER_CELL)
    x = reshape(b, x, [batch, per_cell, b.constant(fields), height, width])
    x = b.node("Sigmoid", [b.node("Transpose", [x], perm=[0, 1, 3, 4, 2])])
    outputs = [f"level{index}_{part}" for part in ("xy", "wh", "conf")]
    split = [2, 2, 1 + CLASSES]
    xy, wh, conf = b.node_with_outputs("Split", [x], outputs, axis=4, split=split)
    two = b.constant(2.0, "float32")
    xy = b.node("Add", [b.node("Mul", [xy, two]), grid(b, height, width)])
    xy = b.node("Mul", [xy, b.constant(float(stride), "float32")])
    wh = b.node("Pow", [b.node("Mul", [wh, two]), two])
    sizes = np.array(anchors, np.float32).reshape(1, ANCHORS_PER_CELL, 1, 1, 2)
    wh = b.node("Mul", [wh, b.initializer(f"model.24.anchor_grid.{index}", sizes)])
    cells = b.node("Mul", [b.node("Mul", [per_cell, width]), height])
    return reshape(b, b.concat([xy, wh, conf], axis=4), [batch, cells, b.constant(fields)])


def grid(b: GraphBuilder, height: str, width: str) -> str:
    """[1, 3, height, width, 2]: x and y of each cell's corner, less a half."""
    area = b.concat([b.node("Unsqueeze", [size], axes=[0]) for size in (height, width)], axis=0)
    axes = []
    for size, along in ((width, [1, -1]), (height, [-1, 1])):
        steps = b.node("Range", [b.constant(0), size, b.constant(1)])
        steps = b.node("Cast", [steps], to=onnx.TensorProto.FLOAT)
        spread = b.node("Expand", [b.node("Reshape", [steps, b.constant(along)]), area])
        axes.append(b.node("Unsqueeze", [spread], axes=[2]))
    corners = b.node("Unsqueeze", [b.concat(axes, axis=2)], axes=[0, 1])
    sizes = [b.constant(1), b.constant(ANCHORS_PER_CELL), height, width, b.constant(2)]
    shape = b.concat([b.node("Unsqueeze", [size], axes=[0]) for size in sizes], axis=0)
    half = b.constant(0.5, "float32")
    return b.node("Sub", [b.node("Expand", [corners, shape]), half])

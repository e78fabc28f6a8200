"""Windows and regions: strides, dilations, pads, groups and places that mean nothing."""

from __future__ import annotations

import numpy as np

from tests.hostile_calls.one_node import ANY, INF, NAN, REFUSED, Node, f, i, ones


def nodes() -> list[Node]:
    """Each with what must become of it."""
    x, w, k = ones(1, 1, 3, 3), ones(1, 1, 2, 2), [2, 2]
    found = []
    for bad in ([0, 0], [-1, -1], [2**40, 2**40]):
        found += [
            Node("Conv", [x, w], {"strides": bad}, ANY if bad[0] > 9 else REFUSED),
            Node("Conv", [x, w], {"dilations": bad}, REFUSED),
            Node("ConvTranspose", [x, w], {"strides": bad}, REFUSED),
            Node("ConvTranspose", [x, w], {"dilations": bad}, REFUSED),
            Node("MaxPool", [x], {"kernel_shape": bad}, REFUSED),
            Node("AveragePool", [x], {"kernel_shape": bad}, REFUSED),
            Node("LpPool", [x], {"kernel_shape": bad}, REFUSED),
            Node(
                "MaxPool", [x], {"kernel_shape": k, "strides": bad}, ANY if bad[0] > 9 else REFUSED
            ),
            Node(
                "AveragePool",
                [x],
                {"kernel_shape": k, "strides": bad},
                ANY if bad[0] > 9 else REFUSED,
            ),
            Node(
                "LpPool", [x], {"kernel_shape": k, "strides": bad}, ANY if bad[0] > 9 else REFUSED
            ),
            Node("MaxPool", [x], {"kernel_shape": k, "dilations": bad}, REFUSED),
            Node("AveragePool", [x], {"kernel_shape": k, "dilations": bad}, REFUSED),
            Node("LpPool", [x], {"kernel_shape": k, "dilations": bad}, REFUSED),
            Node(
                "MaxUnpool", [x, np.zeros((1, 1, 3, 3), np.int64)], {"kernel_shape": bad}, REFUSED
            ),
            Node("DeformConv", [x, w, ones(1, 8, 2, 2)], {"strides": bad}, ANY),
            Node("DeformConv", [x, w, ones(1, 8, 2, 2)], {"dilations": bad}, ANY),
            Node(
                "Col2Im",
                [ones(1, 4, 1), i(2, 2), i(2, 2)],
                {"strides": bad},
                ANY if bad[0] > 9 else REFUSED,
                18,
            ),
            Node("Col2Im", [ones(1, 4, 1), i(2, 2), i(2, 2)], {"dilations": bad}, REFUSED, 18),
            Node("Col2Im", [ones(1, 4, 1), i(2, 2), i(*bad)], {}, REFUSED, 18),
            Node("Col2Im", [ones(1, 4, 1), i(*bad), i(2, 2)], {}, REFUSED, 18),
        ]
    for bad in (0, -1, 3, 2**40):
        found += [
            Node("Conv", [x, w], {"group": bad}, REFUSED),
            Node("ConvTranspose", [x, w], {"group": bad}, REFUSED),
            Node("DeformConv", [x, w, ones(1, 8, 2, 2)], {"group": bad}, REFUSED),
            Node("DeformConv", [x, w, ones(1, 8, 2, 2)], {"offset_group": bad}, REFUSED),
            Node(
                "GroupNormalization",
                [ones(1, 4, 2), ones(4), ones(4)],
                {"num_groups": bad},
                REFUSED,
            ),
            Node(
                "GroupNormalization",
                [ones(1, 4, 2), ones(2), ones(2)],
                {"num_groups": bad},
                REFUSED,
                18,
            ),
        ]
    for bad in (0, -1, 2**40):
        found += [
            Node("LRN", [x], {"size": bad}, REFUSED),
            Node("DepthToSpace", [ones(1, 4, 1, 1)], {"blocksize": bad}, REFUSED),
            Node("SpaceToDepth", [ones(1, 4, 2, 2)], {"blocksize": bad}, REFUSED),
        ]
    for pads in ([-9] * 4, [2**40] * 4, [1], [1] * 9):
        found += [
            Node("Conv", [x, w], {"pads": pads}, REFUSED),
            Node("ConvTranspose", [x, w], {"pads": pads}, ANY if pads[0] == -9 else REFUSED),
            Node("MaxPool", [x], {"kernel_shape": k, "pads": pads}, REFUSED),
            Node("AveragePool", [x], {"kernel_shape": k, "pads": pads}, REFUSED),
            Node("LpPool", [x], {"kernel_shape": k, "pads": pads}, REFUSED),
            Node("Col2Im", [ones(1, 4, 1), i(2, 2), i(2, 2)], {"pads": pads}, REFUSED, 18),
        ]
    found += [
        Node("Conv", [x, ones(1, 1, 0, 2)], {}, REFUSED),
        Node("Conv", [x, ones(1, 5, 2, 2)], {}, REFUSED),
        Node("Conv", [x, w, ones(7)], {}, REFUSED),
        Node("Conv", [x, w], {"auto_pad": "EVIL"}, REFUSED),
        Node("Conv", [ones(1, 1), w], {}, REFUSED),
        Node("Conv", [ones(1, 1, 2, 2, 2, 2), ones(1, 1, 1, 1, 1, 1)], {}, REFUSED),
        Node("Conv", [x, w], {"strides": [1]}, REFUSED),
        Node("ConvTranspose", [x, w], {"output_padding": [9, 9]}, ANY),
        Node("ConvTranspose", [x, w], {"output_padding": [-9, -9]}, REFUSED),
        Node("ConvTranspose", [x, w], {"output_shape": [-9, -9]}, REFUSED),
        Node("ConvTranspose", [x, w], {"output_shape": [2**40, 2**40]}, REFUSED),
        Node("MaxPool", [ones(1, 1)], {"kernel_shape": [1]}, REFUSED),
        Node("GlobalMaxPool", [ones(1, 1, 0)], {}, REFUSED),
        Node("MaxRoiPool", [x, f([9, 0, 0, 1, 1])], {"pooled_shape": [1, 1]}, REFUSED),
        Node("MaxRoiPool", [x, f([NAN] * 5)], {"pooled_shape": [1, 1]}, REFUSED),
        Node("MaxRoiPool", [x, f([0, NAN, 0, INF, 1])], {"pooled_shape": [1, 1]}, ANY),
        Node("MaxRoiPool", [x, f([0, 0, 0, 1, 1])], {"pooled_shape": [0, 0]}, REFUSED),
        Node("MaxRoiPool", [x, f([0, 0, 0, 1, 1])], {"pooled_shape": [-1, -1]}, REFUSED),
        Node("RoiAlign", [x, f([0, 0, 1, 1]), i(9)], {}, REFUSED),
        Node("RoiAlign", [x, f([0, 0, 1, 1]), i(-9)], {}, REFUSED),
        Node("RoiAlign", [x, f([0, 0, NAN, 1]), i(0)], {}, ANY),
        Node("RoiAlign", [x, f([0, 0, 1, 1]), i(0)], {"output_height": -1}, REFUSED),
        Node("RoiAlign", [x, f([0, 0, 1, 1]), i(0)], {"output_height": 0}, ANY),
        Node("RoiAlign", [x, f([0, 0, 1, 1]), i(0)], {"sampling_ratio": -5}, REFUSED),
        Node("RoiAlign", [x, f([0, 0, 1, 1]), i(0)], {"spatial_scale": NAN}, ANY),
        Node("RoiAlign", [x, f([0, 0, 1, 1]), i(0)], {"mode": "evil"}, REFUSED),
        Node("DeformConv", [x, w, np.full((1, 8, 2, 2), NAN, np.float32)], {}, ANY),
        Node(
            "DeformConv", [x, w, np.full((1, 8, 2, 2), 1e30, np.float32)], {}, [[[[0, 0], [0, 0]]]]
        ),
        Node("DeformConv", [x, w, ones(1, 3, 2, 2)], {}, REFUSED),
        Node("GridSample", [x, np.full((1, 1, 1, 2), NAN, np.float32)], {}, ANY, 20),
        Node("GridSample", [x, np.full((1, 1, 1, 2), 1e30, np.float32)], {}, [[[[0]]]], 20),
        Node(
            "GridSample",
            [x, np.full((1, 1, 1, 2), INF, np.float32)],
            {"padding_mode": "reflection"},
            ANY,
            20,
        ),
        Node(
            "GridSample",
            [x, np.full((1, 1, 1, 2), -INF, np.float32)],
            {"padding_mode": "border", "mode": "nearest"},
            ANY,
            20,
        ),
        Node(
            "GridSample",
            [x, np.full((1, 1, 1, 2), 1e30, np.float32)],
            {"mode": "cubic", "padding_mode": "reflection"},
            ANY,
            20,
        ),
        Node("GridSample", [ones(1, 1, 0, 3), ones(1, 1, 1, 2)], {}, REFUSED, 20),
        Node("AffineGrid", [ones(1, 2, 3), i(1, 1, -2, 2)], {}, REFUSED, 20),
    ]
    return found

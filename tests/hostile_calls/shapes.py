"""Shapes, sizes, scales and axes that no tensor has."""

from __future__ import annotations

import numpy as np

from tests.hostile_calls.one_node import ANY, INF, NAN, REFUSED, SCALAR, Node, f, i, ones


def nodes() -> list[Node]:
    """Each with what must become of it."""
    x = f(1, 2, 3)
    found = [Node("Expand", [f(1), i(n)], {}, REFUSED) for n in (-2, -(2**63))]
    found += [Node("Tile", [x, i(n)], {}, REFUSED) for n in (-1, 2**62)]
    found += [
        Node("ConstantOfShape", [i(*n)], {}, REFUSED) for n in ([-1], [2**40, 2**40], [2**62, 2, 2])
    ]
    found += [
        Node("Resize", [ones(1, 1, 3), None, f(1, 1, s)], {"mode": mode}, REFUSED)
        for s in (0.0, -1.0, NAN, INF, -INF, 1e30)
        for mode in ("nearest", "linear", "cubic")
    ]
    found += [
        Node("Resize", [ones(1, 1, 3), None, None, i(1, 1, n)], {"mode": mode}, REFUSED)
        for n in (-1, 2**60)
        for mode in ("nearest", "linear", "cubic")
    ]
    found += [
        Node("Upsample", [ones(1, 1, 3), f(1, 1, s)], {}, REFUSED, 9) for s in (0.0, -1.0, NAN, INF)
    ]
    found += [
        Node("Resize", [ones(1, 1, 3), None, f(1, 1, 1e-30)], {}, ANY),
        Node("Resize", [ones(1, 1, 3), None, f(1, 1)], {}, REFUSED),
        Node("Resize", [ones(1, 1, 3), None, None, i(1, 1)], {}, REFUSED),
        Node("Resize", [ones(1, 1, 3)], {}, REFUSED),
        Node("Resize", [ones(1, 1, 3), None, f(1, 1, 2)], {"mode": "evil"}, REFUSED),
        Node("Resize", [ones(1, 1, 3), None, f(1, 1, 2)], {"nearest_mode": "evil"}, REFUSED),
        Node(
            "Resize",
            [ones(1, 1, 3), None, f(1, 1, 2)],
            {"coordinate_transformation_mode": "evil"},
            REFUSED,
        ),
        Node(
            "Resize",
            [ones(1, 1, 3), f(0, 0, NAN, 1, 1, NAN), f(1, 1, 2)],
            {"coordinate_transformation_mode": "tf_crop_and_resize"},
            ANY,
        ),
        Node("Resize", [ones(1, 1, 0), None, f(1, 1, 2)], {}, ANY),
        Node("Range", [SCALAR(0), SCALAR(9), SCALAR(0)], {}, REFUSED),
        Node("Range", [SCALAR(0.0), SCALAR(9.0), SCALAR(0.0)], {}, REFUSED),
        Node("Range", [SCALAR(0.0), SCALAR(9.0), SCALAR(NAN)], {}, REFUSED),
        Node("Range", [SCALAR(0.0), SCALAR(INF), SCALAR(1.0)], {}, REFUSED),
        Node("Range", [SCALAR(NAN), SCALAR(1.0), SCALAR(1.0)], {}, REFUSED),
        Node("Range", [SCALAR(-(2**63)), SCALAR(2**63 - 1), SCALAR(1)], {}, REFUSED),
        Node("Range", [SCALAR(2**63 - 2), SCALAR(2**63 - 1), SCALAR(2**62)], {}, [2**63 - 2]),
        Node("Split", [x], {"num_outputs": 0}, REFUSED, 18),
        Node("Split", [x], {"num_outputs": -1}, REFUSED, 18),
        Node("Split", [x], {"num_outputs": 2**40}, REFUSED, 18),
        Node("Split", [x, i(4, -1)], {}, REFUSED, 18, outputs=2),
        Node("Split", [x, i(1)], {}, REFUSED, 18),
        Node("Split", [i(1, 2, 3), i(-1, 4)], {}, REFUSED, 18, outputs=2),
        Node("Split", [i(1, 2, 3), i(1, 1)], {}, REFUSED, 18, outputs=2),
        Node("SplitToSequence", [x, SCALAR(0)], {}, REFUSED),
        Node("SplitToSequence", [x, SCALAR(-1)], {}, REFUSED),
        Node("SplitToSequence", [x, i(4, -1)], {}, REFUSED),
        Node("Reshape", [x, i(-1, -1)], {}, REFUSED),
        Node("Reshape", [x, i(-5)], {}, REFUSED),
        Node("Reshape", [x, i(2**62, 4)], {}, REFUSED),
        Node("Reshape", [x, i(0, 0, 0, 0)], {}, REFUSED),
        Node("Unsqueeze", [x, i(99)], {}, REFUSED),
        Node("Unsqueeze", [x, i(0, 0)], {}, REFUSED),
        Node("Squeeze", [x, i(0)], {}, REFUSED),
        Node("Squeeze", [x, i(9)], {}, REFUSED),
        Node("Flatten", [x], {"axis": 99}, REFUSED),
        Node("Flatten", [x], {"axis": -99}, REFUSED),
        Node("Transpose", [x], {"perm": [5]}, REFUSED),
        Node("Transpose", [ones(2, 2)], {"perm": [0, 0]}, REFUSED),
        Node("Slice", [x, i(0), i(9), i(0), i(0)], {}, REFUSED),
        Node("Slice", [x, i(0), i(9), i(7)], {}, REFUSED),
        Node("Slice", [x, i(0), i(9), i(0), i(-(2**63))], {}, ANY),
        Node("Slice", [x, i(2**63 - 1), i(-(2**63)), i(0), i(2**62)], {}, []),
        Node("Pad", [x, i(-9, 0)], {}, REFUSED),
        Node("Pad", [x, i(2**62, 2**62)], {}, REFUSED),
        Node("Pad", [x, i(1)], {}, REFUSED),
        Node("Pad", [x, i(99, 0)], {"mode": "reflect"}, ANY),
        Node("Pad", [f(), i(1, 1)], {"mode": "edge"}, REFUSED),
        Node("Pad", [f(), i(1, 1)], {"mode": "reflect"}, REFUSED),
        Node("Pad", [x, i(1, 1)], {"mode": "evil"}, REFUSED),
        Node("CenterCropPad", [x, i(-3)], {}, REFUSED, 18),
        Node("Concat", [x, ones(2, 2)], {"axis": 0}, REFUSED),
        Node("Concat", [x], {"axis": 9}, REFUSED),
        Node("Concat", [i(1), i(2)], {"axis": 9}, REFUSED),
        Node("Einsum", [x], {"equation": "evil(" * 9}, REFUSED),
        Node("Einsum", [x, x], {"equation": "i,j,k->ijk"}, REFUSED),
        Node("Einsum", [x], {"equation": "i->" + "i" * 99}, REFUSED),
        Node("Softmax", [x], {"axis": 9}, REFUSED),
        Node("Softmax", [x], {"axis": 9}, REFUSED, 11),
        Node("RandomNormal", [], {"shape": [-1]}, REFUSED),
        Node("RandomNormal", [], {"shape": [2**40, 2**40]}, REFUSED),
        Node("RandomNormal", [], {"shape": [1], "seed": NAN}, ANY),
        Node("RandomNormal", [], {"shape": [1], "seed": INF}, ANY),
        Node("RandomNormal", [], {"shape": [1], "seed": 1e30}, ANY),
        Node("Multinomial", [f([NAN, 1])], {"sample_size": 1}, REFUSED),
        Node("Multinomial", [f([0, 1])], {"sample_size": -1}, REFUSED),
        Node("Multinomial", [f([])], {"sample_size": 1}, REFUSED),
        Node("Bernoulli", [f(NAN)], {}, REFUSED, 15),
        Node("Bernoulli", [f(2)], {}, REFUSED, 15),
        Node("Dropout", [x, SCALAR(NAN, np.float32), SCALAR(True)], {}, REFUSED, 13),
        Node("DFT", [ones(1, 3, 1), SCALAR(0)], {}, REFUSED, 20),
        Node("DFT", [ones(1, 3, 1), SCALAR(-5)], {}, REFUSED, 20),
        Node("DFT", [ones(1, 0, 1)], {}, REFUSED, 20),
        Node("DFT", [ones(1, 3, 7)], {}, ANY, 20),
        Node("STFT", [ones(1, 8, 1), SCALAR(0), None, SCALAR(4)], {}, REFUSED, 17),
        Node("STFT", [ones(1, 8, 1), SCALAR(-1), None, SCALAR(4)], {}, REFUSED, 17),
        Node("STFT", [ones(1, 8, 1), SCALAR(1), None, SCALAR(99)], {}, REFUSED, 17),
        Node("STFT", [ones(1, 8, 1), SCALAR(1), None, SCALAR(0)], {}, REFUSED, 17),
        Node("HannWindow", [SCALAR(-1)], {}, REFUSED, 17),
        Node("HannWindow", [SCALAR(2**62)], {}, REFUSED, 17),
        Node(
            "MelWeightMatrix",
            [SCALAR(-5), SCALAR(8), SCALAR(8000), SCALAR(0.0, np.float32), SCALAR(1.0, np.float32)],
            {},
            REFUSED,
            17,
        ),
        Node(
            "MelWeightMatrix",
            [SCALAR(5), SCALAR(8), SCALAR(0), SCALAR(-9e9, np.float32), SCALAR(1.0, np.float32)],
            {},
            REFUSED,
            17,
        ),
    ]
    return found

"""Shapes, sizes, scales and axes that no tensor has."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tests.untrusted.calls.one_node import (
    INF,
    NAN,
    SCALAR,
    Node,
    either,
    f,
    gives,
    i,
    ones,
    refused,
)

X, ROW = f(1, 2, 3), ones(1, 1, 3)
MODES = ("nearest", "linear", "cubic")


def sizes() -> Iterator[Node]:
    """Below zero, or of more elements than there can be."""
    for n in (-2, -(2**63)):
        yield refused("Expand", [f(1), i(n)])
    for n in (-1, 2**62):
        yield refused("Tile", [X, i(n)])
    for shape in ([-1], [2**40, 2**40], [2**62, 2, 2]):
        yield refused("ConstantOfShape", [i(*shape)])


def resize_to() -> Iterator[Node]:
    """Scales and sizes that are none, for each way to find what lies between."""
    for s in (0.0, -1.0, NAN, INF, -INF, 1e30):
        for mode in MODES:
            yield refused("Resize", [ROW, None, f(1, 1, s)], mode=mode)
    for n in (-1, 2**60):
        for mode in MODES:
            yield refused("Resize", [ROW, None, None, i(1, 1, n)], mode=mode)
    for s in (0.0, -1.0, NAN, INF):
        yield refused("Upsample", [ROW, f(1, 1, s)], opset=9)


def resize_how() -> Iterator[Node]:
    """Scales for too few axes, rules that there are not, and regions that are no numbers."""
    scales, region = f(1, 1, 2), f(0, 0, NAN, 1, 1, NAN)
    crop = "tf_crop_and_resize"
    yield either("Resize", [ROW, None, f(1, 1, 1e-30)])
    yield refused("Resize", [ROW, None, f(1, 1)])
    yield refused("Resize", [ROW, None, None, i(1, 1)])
    yield refused("Resize", [ROW])
    yield refused("Resize", [ROW, None, scales], mode="evil")
    yield refused("Resize", [ROW, None, scales], nearest_mode="evil")
    yield refused("Resize", [ROW, None, scales], coordinate_transformation_mode="evil")
    yield either("Resize", [ROW, region, scales], coordinate_transformation_mode=crop)
    yield either("Resize", [ones(1, 1, 0), None, scales])


def ranges() -> Iterator[Node]:
    """Steps that never arrive, or after more elements than there can be; none leaves int64."""
    first, last = -(2**63), 2**63 - 1
    yield refused("Range", [SCALAR(0), SCALAR(9), SCALAR(0)])
    yield refused("Range", [SCALAR(0.0), SCALAR(9.0), SCALAR(0.0)])
    yield refused("Range", [SCALAR(0.0), SCALAR(9.0), SCALAR(NAN)])
    yield refused("Range", [SCALAR(0.0), SCALAR(INF), SCALAR(1.0)])
    yield refused("Range", [SCALAR(NAN), SCALAR(1.0), SCALAR(1.0)])
    yield refused("Range", [SCALAR(first), SCALAR(last), SCALAR(1)])
    yield refused("Range", [i(1, 2), SCALAR(3), SCALAR(1)])
    yield refused("Range", [SCALAR(0), i(), SCALAR(1)])
    yield refused("Range", [i(1)[None], SCALAR(3), SCALAR(1)])
    yield gives([1, 2], "Range", [i(1), SCALAR(3), i(1)])  # in onnxruntime, too
    yield gives([last - 1], "Range", [SCALAR(last - 1), SCALAR(last), SCALAR(2**62)])


def splits() -> Iterator[Node]:
    """No parts, more than elements, or parts whose lengths are not those of the whole."""
    yield refused("Split", [X], opset=18, num_outputs=0)
    yield refused("Split", [X], opset=18, num_outputs=-1)
    yield refused("Split", [X], opset=18, num_outputs=2**40)
    yield refused("Split", [X, i(4, -1)], opset=18, outputs=2)
    yield refused("Split", [X, i(1)], opset=18)
    yield refused("Split", [i(1, 2, 3), i(-1, 4)], opset=18, outputs=2)
    yield refused("Split", [i(1, 2, 3), i(1, 1)], opset=18, outputs=2)
    yield refused("SplitToSequence", [X, SCALAR(0)])
    yield refused("SplitToSequence", [X, SCALAR(-1)])
    yield refused("SplitToSequence", [X, i(4, -1)])


def axes() -> Iterator[Node]:
    """Shapes that the elements do not fill, and axes that are not there or there twice."""
    yield refused("Reshape", [X, i(-1, -1)])
    yield refused("Reshape", [X, i(-5)])
    yield refused("Reshape", [X, i(2**62, 4)])
    yield refused("Reshape", [X, i(0, 0, 0, 0)])
    yield refused("Unsqueeze", [X, i(99)])
    yield refused("Unsqueeze", [X, i(0, 0)])
    yield refused("Squeeze", [X, i(0)])
    yield refused("Squeeze", [X, i(9)])
    yield refused("Flatten", [X], axis=99)
    yield refused("Flatten", [X], axis=-99)
    yield refused("Transpose", [X], perm=[5])
    yield refused("Transpose", [ones(2, 2)], perm=[0, 0])
    yield refused("Transpose", [ones(2, 2)], perm=[-1, 0])
    yield refused("Unsqueeze", [X, i(-3)])
    yield refused("Unsqueeze", [X, i(-4, 1)])
    yield refused("Pad", [X, i(1, 1), None, i(5)])
    yield refused("Pad", [X, i(1, 1), None, i(-5)])
    yield refused("Pad", [ones(2, 2), i(1, 1, 1, 1), None, i(0, 0)])
    yield refused("CenterCropPad", [X, i(1)], opset=18, axes=[9])
    yield refused("Resize", [ROW, None, None, i(3, 5)], axes=[2, 2])


def reductions() -> Iterator[Node]:
    """A scalar has no axis; over all that it has, and over none, it stays what it is."""
    scalar = SCALAR(3, np.float32)
    for axis in (0, -1, 5):
        yield refused("ReduceSum", [scalar, i(axis)])
        yield refused("ReduceMax", [scalar, i(axis)], opset=18)
        yield refused("ReduceMean", [scalar], opset=13, axes=[axis])
    yield refused("ReduceSum", [SCALAR(3), i(0)])
    yield refused("ReduceSum", [i(1, 2), i(5)])
    yield gives(3, "ReduceSum", [scalar])
    yield gives(3, "ReduceSum", [scalar], noop_with_empty_axes=1)


def slices() -> Iterator[Node]:
    """Steps of zero and of all of int64; what begins behind the end is empty."""
    yield refused("Slice", [X, i(0), i(9), i(0), i(0)])
    yield refused("Slice", [X, i(0), i(9), i(7)])
    yield either("Slice", [X, i(0), i(9), i(0), i(-(2**63))])
    yield gives([], "Slice", [X, i(2**63 - 1), i(-(2**63)), i(0), i(2**62)])


def pads() -> Iterator[Node]:
    """More than is there to take away or to mirror, too few, and what no edge can fill."""
    yield refused("Pad", [X, i(-9, 0)])
    yield refused("Pad", [X, i(2**62, 2**62)])
    yield refused("Pad", [X, i(1)])
    yield either("Pad", [X, i(99, 0)], mode="reflect")
    yield refused("Pad", [f(), i(1, 1)], mode="edge")
    yield refused("Pad", [f(), i(1, 1)], mode="reflect")
    yield refused("Pad", [X, i(1, 1)], mode="evil")
    yield refused("CenterCropPad", [X, i(-3)], opset=18)


def several() -> Iterator[Node]:
    """Axes and equations that the inputs do not have."""
    yield refused("Concat", [X, ones(2, 2)], axis=0)
    yield refused("Concat", [X], axis=9)
    yield refused("Concat", [i(1), i(2)], axis=9)
    yield refused("Einsum", [X], equation="evil(" * 9)
    yield refused("Einsum", [X, X], equation="i,j,k->ijk")
    yield refused("Einsum", [X], equation="i->" + "i" * 99)
    yield refused("Einsum", [ones(2, 3, 4)], equation="...ij->ij")
    yield refused("Softmax", [X], axis=9)
    yield refused("Softmax", [X], opset=11, axis=9)


def chance() -> Iterator[Node]:
    """Shapes, seeds and probabilities that no distribution has."""
    yield refused("RandomNormal", [], shape=[-1])
    yield refused("RandomNormal", [], shape=[2**40, 2**40])
    yield either("RandomNormal", [], shape=[1], seed=NAN)
    yield either("RandomNormal", [], shape=[1], seed=INF)
    yield either("RandomNormal", [], shape=[1], seed=1e30)
    yield refused("Multinomial", [f([NAN, 1])], sample_size=1)
    yield refused("Multinomial", [f([0, 1])], sample_size=-1)
    yield refused("Multinomial", [f([])], sample_size=1)
    yield refused("Bernoulli", [f(NAN)], opset=15)
    yield refused("Bernoulli", [f(2)], opset=15)
    yield refused("Dropout", [X, SCALAR(NAN, np.float32), SCALAR(True)], opset=13)


def transforms() -> Iterator[Node]:
    """Of no length, of signals without samples, and in steps that do not go on."""
    signal = ones(1, 8, 1)
    yield refused("DFT", [ones(1, 3, 1), SCALAR(0)], opset=20)
    yield refused("DFT", [ones(1, 3, 1), SCALAR(-5)], opset=20)
    yield refused("DFT", [ones(1, 0, 1)], opset=20)
    yield refused("DFT", [ones(1, 3, 7)], opset=20)
    yield refused("DFT", [ones(1, 3, 3)], opset=17)
    yield refused("DFT", [ones(1, 3, 2)], opset=20, onesided=1)
    yield refused("DFT", [ones(1, 3, 1)], opset=20, onesided=1, inverse=1)
    yield refused("STFT", [signal, SCALAR(0), None, SCALAR(4)], opset=17)
    yield refused("STFT", [signal, SCALAR(-1), None, SCALAR(4)], opset=17)
    yield refused("STFT", [signal, SCALAR(1), None, SCALAR(99)], opset=17)
    yield refused("STFT", [signal, SCALAR(1), None, SCALAR(0)], opset=17)
    yield refused("STFT", [ones(1, 8, 3), SCALAR(1), None, SCALAR(4)], opset=17)
    yield refused("STFT", [ones(1, 8, 1, 1), SCALAR(1), None, SCALAR(4)], opset=17)
    yield refused("STFT", [signal, SCALAR(1), f(1), SCALAR(4)], opset=17)
    yield refused("STFT", [signal, SCALAR(1), ones(1, 4), SCALAR(4)], opset=17)


def filters() -> Iterator[Node]:
    """Windows and filters of lengths, rates and frequencies below what there is."""
    zero, one, far = (SCALAR(n, np.float32) for n in (0.0, 1.0, -9e9))
    below, few, many = SCALAR(-5), SCALAR(5), SCALAR(8)
    yield refused("HannWindow", [SCALAR(-1)], opset=17)
    yield refused("HannWindow", [SCALAR(2**62)], opset=17)
    yield refused("MelWeightMatrix", [below, many, SCALAR(8000), zero, one], opset=17)
    yield refused("MelWeightMatrix", [few, many, SCALAR(0), far, one], opset=17)
    high = SCALAR(1e9, np.float32)
    yield refused("MelWeightMatrix", [few, many, SCALAR(8000), high, one], opset=17)
    yield refused("MelWeightMatrix", [few, many, SCALAR(8000), zero, high], opset=17)
    yield refused("MelWeightMatrix", [few, many, SCALAR(-8000), one, one], opset=17)
    for window in ("HannWindow", "HammingWindow", "BlackmanWindow"):
        yield gives([], window, [SCALAR(0)], opset=17)


GROUPS = (
    sizes,
    resize_to,
    resize_how,
    ranges,
    splits,
    axes,
    reductions,
    slices,
    pads,
    several,
    chance,
    transforms,
    filters,
)

"""Numbers at the ends of their types: where C has undefined behaviour, and processors trap."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.untrusted.files.case import TIGHT, Case, Must
from tests.untrusted.files.models import one

SIGNED = ("int8", "int16", "int32", "int64")
UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
FLOATS = ("float16", "float32", "float64")
NAN, INF = float("nan"), float("inf")


def cases() -> Iterator[Case]:
    for stored in (False, True):
        where = "stored" if stored else "fed"
        for name, op, values, attributes, must, expected in _all():
            content, feeds = one(op, values, stored=stored, **attributes)
            wanted = None if expected is None else (expected,)
            asked = must == "right"
            yield Case(f"arithmetic/{name}/{where}", content, must, feeds, wanted, asked=asked)
    for name, op, values, attributes, outputs in SETTINGS:
        content, feeds = one(op, values, outputs=outputs, **attributes)
        yield Case(f"arithmetic/{name}", content, "either", feeds, limits=TIGHT, asked=False)
    for name, op, values, attributes, outputs in SENSELESS:
        for stored in (False, True):
            where = "stored" if stored else "fed"
            content, feeds = one(op, values, stored=stored, outputs=outputs, **attributes)
            yield Case(f"arithmetic/{name}/{where}", content, "refused", feeds, limits=TIGHT)


Row = tuple[str, str, list[Any], dict[str, Any], Must, Any]


def _all() -> Iterator[Row]:
    yield from _division()
    yield from _overflow()
    yield from _shifts()
    yield from _casts()


def _division() -> Iterator[Row]:
    for kind in (*SIGNED, *UNSIGNED):
        few = np.array([7, 0, 3], kind)
        zero = np.zeros(3, kind)
        for op in ("Div", "Mod"):
            yield f"{op}-{kind}-by-zero", op, [few, zero], {}, "refused", None
        yield f"Mod-{kind}-by-zero-as-C", "Mod", [few, zero], {"fmod": 1}, "refused", None
    for kind in SIGNED:
        low = np.full(3, np.iinfo(kind).min, kind)
        minus = np.full(3, -1, kind)
        none = np.zeros(3, kind)
        yield f"Div-{kind}-lowest-by-minus-one", "Div", [low, minus], {}, "either", low
        yield f"Mod-{kind}-lowest-by-minus-one", "Mod", [low, minus], {}, "either", none
        as_c = {"fmod": 1}
        yield f"Mod-{kind}-lowest-by-minus-one-as-C", "Mod", [low, minus], as_c, "either", none
    for kind in FLOATS:
        few, zero = np.array([7, 0, -3], kind), np.zeros(3, kind)
        yield f"Div-{kind}-by-zero", "Div", [few, zero], {}, "right", None


def _overflow() -> Iterator[Row]:
    for kind in (*SIGNED, *UNSIGNED):
        info = np.iinfo(kind)
        high, low, two = (np.full(3, n, kind) for n in (info.max, info.min, 2))
        with np.errstate(all="ignore"):
            for op, answer in (("Add", high + two), ("Mul", high * two)):
                yield f"{op}-{kind}-overflow", op, [high, two], {}, "either", answer
            yield f"Sub-{kind}-overflow", "Sub", [low, two], {}, "either", low - two
            total = np.array(sum(map(int, high)) % 2**64, "uint64").astype(kind)
            yield f"Sum-{kind}-overflow", "Sum", [high, high, high], {}, "either", high * 3
        if kind.endswith(("32", "64")):
            attributes = {"keepdims": 0}
            yield f"ReduceSum-{kind}-overflow", "ReduceSum", [high], attributes, "either", total
        if kind in SIGNED:
            for op in ("Neg", "Abs"):
                yield f"{op}-{kind}-lowest", op, [low], {}, "either", low


def _shifts() -> Iterator[Row]:
    for kind in UNSIGNED:
        width = np.iinfo(kind).bits
        for by in (width, width + 1, np.iinfo(kind).max):
            for way in ("LEFT", "RIGHT"):
                values = [np.array([1, 255], kind), np.full(2, by, kind)]
                zeros = np.zeros(2, kind)
                name = f"BitShift-{kind}-{way}-by-{by}"
                yield name, "BitShift", values, {"direction": way}, "either", zeros


def _casts() -> Iterator[Row]:
    for source in FLOATS:
        for target in (*range(2, 8), 9, 10, 12, 13, 16, 17, 18, 19, 20, 21, 22, 23):
            values = np.array([NAN, INF, -INF, 60000, -1.5], source)
            yield f"Cast-{source}-to-{target}", "Cast", [values], {"to": target}, "either", None


X = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
SETTINGS: list[tuple[str, str, list[Any], dict[str, Any], int]] = [
    ("Range-nan", "Range", [0.0, NAN, 1.0], {}, 1),
    ("Range-infinite", "Range", [0.0, INF, 1.0], {}, 1),
    ("Range-tiny-step", "Range", [0.0, 1.0, 1e-38], {}, 1),
    ("Range-ends-of-int64", "Range", [-(2**63), 2**63 - 1, 2**62], {}, 1),
    ("Range-ends-of-int64-back", "Range", [2**63 - 1, -(2**63), -(2**62)], {}, 1),
    ("Range-all-of-int64", "Range", [-(2**63), 2**63 - 1, 1], {}, 1),
    ("QuantizeLinear-scale-0", "QuantizeLinear", [[1.0], 0.0, np.uint8(3)], {}, 1),
    ("QuantizeLinear-scale-nan", "QuantizeLinear", [[1.0], NAN, np.uint8(3)], {}, 1),
    ("QuantizeLinear-of-nan", "QuantizeLinear", [[NAN, INF, -INF], 0.1, np.int8(3)], {}, 1),
    ("DequantizeLinear-scale-inf", "DequantizeLinear", [np.uint8([1, 2]), INF], {}, 1),
    ("DynamicQuantizeLinear-nan", "DynamicQuantizeLinear", [[NAN, 1.0]], {}, 3),
    ("DynamicQuantizeLinear-inf", "DynamicQuantizeLinear", [[INF, 1.0]], {}, 3),
    ("DynamicQuantizeLinear-empty", "DynamicQuantizeLinear", [np.zeros(0, np.float32)], {}, 3),
    ("Clip-crossed", "Clip", [[1.0, 2.0], 3.0, -3.0], {}, 1),
    ("Clip-nan", "Clip", [[1.0, 2.0], NAN, NAN], {}, 1),
    ("Pow-0-to-minus-1", "Pow", [np.int32([0, 2]), np.int32([-1, -1])], {}, 1),
    ("Pow-overflow", "Pow", [np.int64([2**62]), np.int64([2**62])], {}, 1),
    ("ReduceMax-of-nothing", "ReduceMax", [np.zeros((0, 3), np.float32), [0]], {}, 1),
    ("ReduceMin-of-nothing", "ReduceMin", [np.zeros((0, 3), np.int64), [0]], {}, 1),
    ("ReduceMean-of-nothing", "ReduceMean", [np.zeros((0, 3), np.float32), [0]], {}, 1),
    ("Softmax-of-nothing", "Softmax", [np.zeros((0, 3), np.float32)], {}, 1),
    ("Dropout-of-all", "Dropout", [[1.0], 1.0, np.array(True)], {}, 2),
    ("RandomUniform-crossed", "RandomUniform", [], {"shape": [3], "low": 1.0, "high": -1.0}, 1),
    ("RandomNormal-scale-minus", "RandomNormal", [], {"shape": [3], "scale": -1.0}, 1),
    ("RandomNormal-scale-nan", "RandomNormal", [], {"shape": [3], "scale": NAN}, 1),
    ("Bernoulli-nan", "Bernoulli", [[NAN, 2.0, -1.0]], {}, 1),
    ("Multinomial-nan", "Multinomial", [[[NAN, 2.0]]], {"sample_size": 4}, 1),
    ("Multinomial-minus-infinite", "Multinomial", [[[-INF, -INF]]], {"sample_size": 4}, 1),
    ("HannWindow-0", "HannWindow", [0], {}, 1),
    ("HannWindow-1", "HannWindow", [1], {}, 1),
    ("BlackmanWindow-1", "BlackmanWindow", [1], {"periodic": 0}, 1),
    ("HammingWindow-1", "HammingWindow", [1], {"periodic": 0}, 1),
    ("MelWeightMatrix-0", "MelWeightMatrix", [0, 0, 0, 0.0, 0.0], {}, 1),
    ("MelWeightMatrix-nan", "MelWeightMatrix", [4, 16, 16000, NAN, NAN], {}, 1),
    ("MelWeightMatrix-crossed", "MelWeightMatrix", [4, 16, 16000, 8000.0, 10.0], {}, 1),
    ("MelWeightMatrix-rate-0", "MelWeightMatrix", [4, 16, 0, 10.0, 20.0], {}, 1),
    ("Resize-scales-inf", "Resize", [X, None, [1.0, 1.0, INF, 1.0]], {}, 1),
    ("Resize-sizes-0", "Resize", [X, None, None, [1, 1, 0, 4]], {}, 1),
    ("Resize-of-nothing", "Resize", [X[:, :, :0], None, None, [1, 1, 4, 4]], {"mode": "linear"}, 1),
    ("Upsample-tiny", "Upsample", [X, [1.0, 1.0, 1e-9, 1.0]], {"opset": 9}, 1),
    ("GridSample-nan", "GridSample", [X, np.full((1, 2, 2, 2), NAN, np.float32)], {}, 1),
    ("GridSample-inf", "GridSample", [X, np.full((1, 2, 2, 2), INF, np.float32)], {}, 1),
    ("GridSample-1e30", "GridSample", [X, np.full((1, 2, 2, 2), 1e30, np.float32)], {}, 1),
    ("Det-of-nothing", "Det", [np.zeros((0, 0), np.float32)], {}, 1),
    ("LpNormalization-0", "LpNormalization", [[0.0, 0.0]], {}, 1),
    ("ArgMax-nan", "ArgMax", [[NAN, 1.0]], {"keepdims": 0}, 1),
    ("NonZero-of-nan", "NonZero", [[NAN, 0.0]], {}, 1),
    ("TopK-of-nan", "TopK", [[NAN, 0.0, INF], [2]], {}, 2),
    ("Unique-of-nan", "Unique", [[NAN, NAN, 0.0]], {}, 4),
    ("CumSum-overflow", "CumSum", [np.full(4, 2**62), 0], {}, 1),
    ("MatMulInteger-overflow", "MatMulInteger", [np.full((1, 9), 255, np.uint8)] * 2, {}, 1),
    ("BatchNorm-variance-minus", "BatchNormalization", [X, [1.0], [0.0], [0.0], [-1.0]], {}, 1),
    ("LRN-bias-nan", "LRN", [X], {"size": 3, "bias": NAN}, 1),
    ("NonMaxSuppression-nan", "NonMaxSuppression",
     [np.full((1, 4, 4), NAN, np.float32), np.full((1, 1, 4), NAN, np.float32), 2, NAN], {}, 1),
    ("RoiAlign-nan", "RoiAlign", [X, np.float32([[NAN] * 4]), np.zeros(1, np.int64)], {}, 1),
    ("RoiAlign-1e30", "RoiAlign", [X, np.full((1, 4), 1e30, np.float32), np.zeros(1, np.int64)],
     {"output_height": 2, "output_width": 2, "sampling_ratio": 2}, 1),
    ("RoiAlign-adaptive-1e9", "RoiAlign",
     [X, np.float32([[0, 0, 1e9, 1e9]]), np.zeros(1, np.int64)], {}, 1),
    ("MaxRoiPool-1e9", "MaxRoiPool", [X, np.float32([[0, -1e9, -1e9, 1e9, 1e9]])],
     {"pooled_shape": [2, 2]}, 1),
    ("MaxRoiPool-nan", "MaxRoiPool", [X, np.full((1, 5), NAN, np.float32)],
     {"pooled_shape": [2, 2]}, 1),
]  # fmt: skip
"""What only must not break: there is no one answer."""

SIGNAL = np.ones((1, 16, 1), np.float32)
SENSELESS: list[tuple[str, str, list[Any], dict[str, Any], int]] = [
    ("Range-step-0", "Range", [0, 5, 0], {}, 1),
    ("Range-step-0-float", "Range", [0.0, 5.0, 0.0], {}, 1),
    ("Resize-scales-0", "Resize", [X, None, [1.0, 1.0, 0.0, 1.0]], {}, 1),
    ("Resize-scales-minus", "Resize", [X, None, [1.0, 1.0, -1.0, 1.0]], {}, 1),
    ("Resize-scales-nan", "Resize", [X, None, [1.0, 1.0, NAN, 1.0]], {}, 1),
    ("Resize-sizes-minus", "Resize", [X, None, None, [1, 1, -4, 4]], {}, 1),
    ("Resize-sizes-few", "Resize", [X, None, None, [1, 1]], {}, 1),
    ("Resize-both", "Resize", [X, None, [1.0, 1.0, 1.0, 1.0], [1, 1, 4, 4]], {}, 1),
    ("Resize-neither", "Resize", [X], {}, 1),
    ("Mod-of-floats", "Mod", [[1.0], [2.0]], {"fmod": 0}, 1),
    ("ArgMax-of-nothing", "ArgMax", [np.zeros((0, 3), np.float32)], {}, 1),
    ("TopK-too-many", "TopK", [[1.0, 2.0], [3]], {}, 2),
    ("TopK-minus", "TopK", [[1.0, 2.0], [-1]], {}, 2),
    ("Det-of-oblong", "Det", [np.zeros((2, 3), np.float32)], {}, 1),
    ("MatMul-unfit", "MatMul", [np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32)], {}, 1),
    ("Add-unfit", "Add", [np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32)], {}, 1),
    ("Add-types", "Add", [np.zeros(2, np.float32), np.zeros(2, np.int64)], {}, 1),
    ("Reshape-unfit", "Reshape", [np.zeros(6, np.float32), [4]], {}, 1),
    ("Reshape-two-unknown", "Reshape", [np.zeros(6, np.float32), [-1, -1]], {}, 1),
    ("Reshape-minus-2", "Reshape", [np.zeros(6, np.float32), [-2, -3]], {}, 1),
    ("Reshape-0-beyond", "Reshape", [np.zeros(6, np.float32), [6, 0]], {}, 1),
    ("Reshape-overflow", "Reshape", [np.zeros(6, np.float32), [2**62, 2**62]], {}, 1),
    ("Expand-minus", "Expand", [np.zeros(1, np.float32), [-1]], {}, 1),
    ("Tile-minus", "Tile", [np.zeros(2, np.float32), [-1]], {}, 1),
    ("Tile-few", "Tile", [np.zeros((2, 2), np.float32), [1]], {}, 1),
    ("ConstantOfShape-minus", "ConstantOfShape", [[-1]], {}, 1),
    ("Dropout-ratio-2", "Dropout", [[1.0], 2.0, np.array(True)], {}, 1),
    ("Dropout-ratio-nan", "Dropout", [[1.0], NAN, np.array(True)], {}, 1),
    ("HannWindow-minus", "HannWindow", [-1], {}, 1),
    ("STFT-step-0", "STFT", [SIGNAL, 0, np.ones(4, np.float32), 4], {}, 1),
    ("STFT-step-minus", "STFT", [SIGNAL, -1, np.ones(4, np.float32), 4], {}, 1),
    ("STFT-frame-too-long", "STFT", [SIGNAL, 1, np.ones(99, np.float32), 99], {}, 1),
    ("DFT-length-minus", "DFT", [SIGNAL, -1, 1], {}, 1),
    ("OneHot-depth-minus", "OneHot", [[1], -1, [0.0, 1.0]], {}, 1),
    ("RegexFullMatch-broken", "RegexFullMatch", [["a"]], {"pattern": "(("}, 1),
]  # fmt: skip
"""What has no meaning, and must be refused."""

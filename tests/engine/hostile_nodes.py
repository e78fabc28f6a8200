"""Nodes with inputs and attributes that no valid model has, and what must become of them.

Each is one node. What it must give is written out, by the specification or onnxruntime; or it must be
refused, with an error of this library.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from onnxinterp import OnnxModule
from onnxinterp.errors import OnnxError

REFUSED = "refused"
ANY = "refused, or something finite in shape"  # that it ends is all that is asked


class Node(NamedTuple):
    """One node.

    Attributes:
        op_type: its operator.
        inputs: arrays; None is absent.
        attributes: by name.
        expected: nested lists, those of each output where there are several; or REFUSED, or ANY.
        opset: of its domain.
        domain: likewise.
        outputs: how many.
    """

    op_type: str
    inputs: list[Any]
    attributes: dict[str, Any]
    expected: Any
    opset: int = 21
    domain: str = ""
    outputs: int = 1


def f(*values: Any) -> np.ndarray[Any, Any]:
    return np.array(values, dtype=np.float32)


def i(*values: int, dtype: Any = np.int64) -> np.ndarray[Any, Any]:
    return np.array(values, dtype=dtype)


def ones(*shape: int) -> np.ndarray[Any, Any]:
    return np.ones(shape, dtype=np.float32)


NAN, INF = float("nan"), float("inf")
SCALAR = np.array
ML = "ai.onnx.ml"


def _integers() -> list[Node]:
    found = []
    for kind in (np.int8, np.int16, np.int32, np.int64):
        low = int(np.iinfo(kind).min)
        a, b, zero = i(low, dtype=kind), i(-1, dtype=kind), i(0, dtype=kind)
        many = np.full(70, low, dtype=kind)
        found += [
            Node("Div", [a, b], {}, [low]),
            Node("Div", [many, b], {}, [low] * 70),
            Node("Div", [a, b.reshape(())], {}, [low]),
            Node("Div", [a, zero], {}, REFUSED),
            Node("Mod", [a, b], {}, [0]),
            Node("Mod", [a, b], {"fmod": 1}, [0]),
            Node("Mod", [a, zero], {}, REFUSED),
            Node("Mod", [a, zero], {"fmod": 1}, REFUSED),
            Node("Abs", [a], {}, [low]),
            Node("Neg", [a], {}, [low]),
        ]
    for kind in (np.int32, np.int64):
        low, most = int(np.iinfo(kind).min), int(np.iinfo(kind).max)
        a = i(low, dtype=kind)
        found += [
            Node("Pow", [a, i(-1, dtype=kind)], {}, ANY),
            Node("Pow", [i(2, dtype=kind), i(10**6, dtype=kind)], {}, [0]),
            Node("Pow", [i(3, dtype=kind), i(2**31 - 1, dtype=kind)], {}, ANY),
            Node("Add", [i(most, dtype=kind), i(1, dtype=kind)], {}, [low]),
            Node("Sub", [a, i(1, dtype=kind)], {}, [most]),
            Node("Mul", [i(most, dtype=kind), i(2, dtype=kind)], {}, [-2]),
            Node("ReduceSum", [i(most, 1, dtype=kind)], {"keepdims": 0}, low),
            Node("ReduceProd", [i(most, 2, dtype=kind)], {"keepdims": 0}, -2),
            Node("ReduceMean", [i(dtype=kind)], {"keepdims": 0}, REFUSED),
            Node("ReduceMax", [i(dtype=kind)], {"keepdims": 0}, low),
            Node("Sum", [i(most, dtype=kind), i(1, dtype=kind)], {}, [low], opset=13),
        ]
    u32, u64 = np.uint32, np.uint64
    found += [
        Node("Div", [i(8, dtype=u64), i(0, dtype=u64)], {}, ANY),
        Node("Mod", [i(8, dtype=u32), i(0, dtype=u32)], {}, REFUSED),
        Node("Div", [np.uint8([8]), np.uint8([0])], {}, REFUSED),
        Node("BitShift", [i(1, dtype=u32), i(99, dtype=u32)], {"direction": "LEFT"}, [0]),
        Node("BitShift", [i(1, dtype=u64), i(64, dtype=u64)], {"direction": "LEFT"}, [0]),
        Node("BitShift", [i(2**63, dtype=u64), i(2**63, dtype=u64)], {"direction": "RIGHT"}, [0]),
        Node("BitShift", [np.uint8([255]), np.uint8([8])], {"direction": "RIGHT"}, [0]),
        Node("BitShift", [np.uint8([255]), np.uint8([8])], {"direction": "LEFT"}, [0]),
        Node("BitShift", [np.uint8([255]), np.uint8([8])], {"direction": "UP"}, REFUSED),
        Node("CumSum", [i(1, 2), SCALAR(5)], {}, REFUSED),
    ]
    return found


def _places() -> list[Node]:
    x, m = f(1, 2, 3), ones(2, 3)
    far, below = i(9), i(-9)
    found = [
        Node("Gather", [x, p], {}, REFUSED) for p in (far, below, i(2**62), i(-(2**62)))
    ]
    found += [Node("Gather", [m, p], {}, REFUSED) for p in (far, below)]
    found += [Node("Gather", [x, SCALAR(n)], {}, REFUSED) for n in (9, -9, 2**62)]
    for p in (far, below, i(-(2**63))):
        found += [
            Node("GatherElements", [x, p], {}, REFUSED),
            Node("GatherND", [x, p[None]], {}, REFUSED),
            Node("ScatterElements", [x, p, f(1)], {}, REFUSED),
            Node("ScatterElements", [x, p, f(1)], {"reduction": "add"}, REFUSED),
            Node("ScatterElements", [x, p, f(1)], {"reduction": "max"}, REFUSED),
            Node("ScatterND", [x, p[None], f(1)], {}, REFUSED),
            Node("ScatterND", [x, p[None], f(1)], {"reduction": "add"}, REFUSED),
            Node("ScatterND", [x, p[None], f(1)], {"reduction": "mul"}, REFUSED),
            Node("MaxUnpool", [ones(1, 1, 1), p[None, None]], {"kernel_shape": [2]}, REFUSED),
            Node("TensorScatter", [ones(1, 2, 3), ones(1, 1, 3), p], {}, REFUSED, 24),
            Node("SequenceAt", ["sequence", p.reshape(())], {}, REFUSED),
            Node("SequenceErase", ["sequence", p.reshape(())], {}, REFUSED),
            Node("NegativeLogLikelihoodLoss", [ones(1, 2), p], {}, REFUSED),
            Node("SoftmaxCrossEntropyLoss", [ones(1, 2), p], {}, REFUSED),
        ]
    found += [
        # rows and columns each in range of the product, not of their axes
        Node("ScatterND", [ones(2, 3), i(0, 4).reshape(1, 2), f(5)], {"reduction": "mul"}, REFUSED),
        Node("ScatterND", [ones(2, 3), i(1, -5).reshape(1, 2), f(5)], {"reduction": "max"}, REFUSED),
        Node("MaxUnpool", [ones(1, 1, 1), i(1)[None, None], i(1, 1, -2)], {"kernel_shape": [2]}, REFUSED),
        Node("NegativeLogLikelihoodLoss", [ones(1, 2), i(-100)], {}, REFUSED),
        Node("GatherElements", [m, np.zeros((3, 1), np.int64)], {"axis": 1}, REFUSED),
        Node("GatherND", [m, i(0, 0, 0)[None]], {}, REFUSED),
        Node("GatherND", [m, i(0, 0)[None]], {"batch_dims": 5}, REFUSED),
        Node("ReverseSequence", [ones(4, 1), i(9)], {}, REFUSED, 10),
        Node("ReverseSequence", [ones(4, 1), i(-9)], {}, ANY, 10),
        Node("ReverseSequence", [ones(4, 2), i(9)], {}, REFUSED, 10),
        Node("OneHot", [i(9, -9), SCALAR(2), f(0, 1)], {}, [[0, 0], [0, 0]]),
        Node("OneHot", [i(0), SCALAR(-2), f(0, 1)], {}, REFUSED),
        Node("OneHot", [i(0), SCALAR(NAN, np.float32), f(0, 1)], {}, REFUSED),
        Node("OneHot", [i(0), SCALAR(2), f(0)], {}, REFUSED),
        Node("Compress", [x, np.array([True] * 9)], {}, REFUSED),
        Node("TopK", [x, i(-1)], {}, REFUSED, outputs=2),
        Node("TopK", [x, i(9)], {}, REFUSED, outputs=2),
        Node("ArgMax", [f()], {}, REFUSED),
        Node("EyeLike", [ones(2, 2)], {"k": 2**62}, [[0, 0], [0, 0]]),
        Node("Trilu", [ones(2, 2), SCALAR(2**62)], {}, ANY),
        Node("Trilu", [ones(2, 2), SCALAR(-(2**63))], {}, ANY),
    ]
    return found


def _windows() -> list[Node]:
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
            Node("MaxPool", [x], {"kernel_shape": k, "strides": bad}, ANY if bad[0] > 9 else REFUSED),
            Node("AveragePool", [x], {"kernel_shape": k, "strides": bad}, ANY if bad[0] > 9 else REFUSED),
            Node("LpPool", [x], {"kernel_shape": k, "strides": bad}, ANY if bad[0] > 9 else REFUSED),
            Node("MaxPool", [x], {"kernel_shape": k, "dilations": bad}, REFUSED),
            Node("AveragePool", [x], {"kernel_shape": k, "dilations": bad}, REFUSED),
            Node("LpPool", [x], {"kernel_shape": k, "dilations": bad}, REFUSED),
            Node("MaxUnpool", [x, np.zeros((1, 1, 3, 3), np.int64)], {"kernel_shape": bad}, REFUSED),
            Node("DeformConv", [x, w, ones(1, 8, 2, 2)], {"strides": bad}, ANY),
            Node("DeformConv", [x, w, ones(1, 8, 2, 2)], {"dilations": bad}, ANY),
            Node("Col2Im", [ones(1, 4, 1), i(2, 2), i(2, 2)], {"strides": bad}, ANY if bad[0] > 9 else REFUSED, 18),
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
            Node("GroupNormalization", [ones(1, 4, 2), ones(4), ones(4)], {"num_groups": bad}, REFUSED),
            Node("GroupNormalization", [ones(1, 4, 2), ones(2), ones(2)], {"num_groups": bad}, REFUSED, 18),
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
        Node("MaxPool", [x], {"kernel_shape": []}, REFUSED),
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
        Node("DeformConv", [x, w, np.full((1, 8, 2, 2), 1e30, np.float32)], {}, [[[[0, 0], [0, 0]]]]),
        Node("DeformConv", [x, w, ones(1, 3, 2, 2)], {}, REFUSED),
        Node("GridSample", [x, np.full((1, 1, 1, 2), NAN, np.float32)], {}, ANY, 20),
        Node("GridSample", [x, np.full((1, 1, 1, 2), 1e30, np.float32)], {}, [[[[0]]]], 20),
        Node("GridSample", [x, np.full((1, 1, 1, 2), INF, np.float32)], {"padding_mode": "reflection"}, ANY, 20),
        Node("GridSample", [x, np.full((1, 1, 1, 2), -INF, np.float32)], {"padding_mode": "border", "mode": "nearest"}, ANY, 20),
        Node("GridSample", [x, np.full((1, 1, 1, 2), 1e30, np.float32)], {"mode": "cubic", "padding_mode": "reflection"}, ANY, 20),
        Node("GridSample", [ones(1, 1, 0, 3), ones(1, 1, 1, 2)], {}, REFUSED, 20),
        Node("AffineGrid", [ones(1, 2, 3), i(1, 1, -2, 2)], {}, REFUSED, 20),
    ]
    return found


def _shapes() -> list[Node]:
    x = f(1, 2, 3)
    found = [Node("Expand", [f(1), i(n)], {}, REFUSED) for n in (-2, -(2**63))]
    found += [Node("Tile", [x, i(n)], {}, REFUSED) for n in (-1, 2**62)]
    found += [Node("ConstantOfShape", [i(*n)], {}, REFUSED) for n in ([-1], [2**40, 2**40], [2**62, 2, 2])]
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
        Node("Resize", [ones(1, 1, 3), None, f(1, 1, 2)], {"coordinate_transformation_mode": "evil"}, REFUSED),
        Node("Resize", [ones(1, 1, 3), f(0, 0, NAN, 1, 1, NAN), f(1, 1, 2)], {"coordinate_transformation_mode": "tf_crop_and_resize"}, ANY),
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
        Node("Slice", [x, i(2**63 - 1), i(-(2**63)), i(0), i(2**62)], {}, [[]] and []),
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
        Node("MelWeightMatrix", [SCALAR(-5), SCALAR(8), SCALAR(8000), SCALAR(0.0, np.float32), SCALAR(1.0, np.float32)], {}, REFUSED, 17),
        Node("MelWeightMatrix", [SCALAR(5), SCALAR(8), SCALAR(0), SCALAR(-9e9, np.float32), SCALAR(1.0, np.float32)], {}, REFUSED, 17),
    ]
    return found


def _types() -> list[Node]:
    words = np.array(["a"], dtype=object)
    T = onnx.TensorProto
    found = [
        Node("Cast", [np.array([text], dtype=object)], {"to": T.INT64}, REFUSED)
        for text in ("1e999", "", "x", "9" * 30, "9" * 5000, "nan", "1_0" and "0x10")
    ]
    found += [
        Node("Cast", [np.array(["1e999", "-1e999", "nan"], dtype=object)], {"to": T.FLOAT}, ANY),
        Node("Cast", [np.array(["9" * 5000], dtype=object)], {"to": T.FLOAT}, [INF]),
        Node("Cast", [f(NAN, INF, 1e30)], {"to": T.INT64}, ANY),
        Node("Cast", [f(NAN, INF, -1)], {"to": T.UINT8}, ANY),
        Node("Cast", [f(1)], {"to": 999}, REFUSED),
        Node("Cast", [f(1)], {"to": -1}, REFUSED),
        Node("Cast", [f(NAN, 1e30)], {"to": T.FLOAT8E4M3FN}, ANY),
        Node("Cast", [i(2**63 - 1)], {"to": T.INT32}, [-1]),
        Node("Cast", [f(3e9)], {"to": T.INT32}, ANY),
        Node("StringConcat", [words, np.array(["b", "c", "d"], dtype=object)[None].repeat(2, 0)[:, :3]], {}, [["ab", "ac", "ad"]] * 2, 20),
        Node("StringConcat", [np.array(["a", "b"], dtype=object), np.array(["b", "c", "d"], dtype=object)], {}, REFUSED, 20),
        Node("StringSplit", [words], {"maxsplit": -5}, ANY, 20, outputs=2),
        Node("RegexFullMatch", [words], {"pattern": "(" * 5000}, REFUSED, 20),
        Node("RegexFullMatch", [words], {"pattern": "((a{1,1000}){1,1000}){1,1000}"}, REFUSED, 20),
        Node("StringNormalizer", [words], {"case_change_action": "EVIL"}, REFUSED),
        Node("StringNormalizer", [words], {"locale": "\x00" * 99}, ANY),
        Node("Add", [words, words], {}, REFUSED),
        Node("QuantizeLinear", [f(1, NAN), f(0).reshape(()), np.uint8(0)], {}, ANY),
        Node("QuantizeLinear", [f(INF), f(1).reshape(()), np.uint8(0)], {}, [255]),
        Node("QuantizeLinear", [ones(2, 4), ones(2, 2)], {"axis": 1, "block_size": -2}, REFUSED),
        Node("QuantizeLinear", [ones(2, 4), ones(2, 1)], {"axis": 1, "block_size": 1}, REFUSED),
        Node("DequantizeLinear", [np.ones((2, 4), np.uint8), ones(2, 2)], {"axis": 9}, REFUSED),
        Node("MatMulInteger", [np.ones((2, 2), np.uint8), np.ones((3, 2), np.uint8)], {}, REFUSED),
        Node("LSTM", [ones(2, 1, 3), ones(1, 8, 4), ones(1, 8, 2)], {"hidden_size": 2}, REFUSED),
        Node("LSTM", [ones(2, 1, 3), ones(1, 8, 3), ones(1, 4, 2)], {"hidden_size": 2}, REFUSED),
        Node("LSTM", [ones(2, 1, 3), ones(1, 8, 3), ones(1, 8, 2), ones(1, 3)], {"hidden_size": 2}, REFUSED),
        Node("LSTM", [ones(2, 1, 3), ones(1, 8, 3), ones(1, 8, 2)], {"hidden_size": 2**40}, REFUSED),
        Node("LSTM", [ones(2, 1, 3), ones(1, 8, 3), ones(1, 8, 2)], {"hidden_size": -2}, REFUSED),
        Node("LSTM", [ones(2, 1, 3), ones(1, 8, 3), ones(1, 8, 2), None, i(9, dtype=np.int32)], {"hidden_size": 2}, REFUSED),
        Node("LSTM", [ones(2, 1, 3), ones(1, 8, 3), ones(1, 8, 2), None, i(-9, dtype=np.int32)], {"hidden_size": 2}, REFUSED),
        Node("LSTM", [ones(2, 1, 3), ones(1, 8, 3), ones(1, 8, 2), None, None, ones(1, 1, 5)], {"hidden_size": 2}, REFUSED),
        Node("LSTM", [ones(2, 1, 3), ones(1, 8, 3), ones(1, 8, 2)], {"activations": ["Evil"] * 3}, REFUSED),
        Node("LSTM", [ones(2, 1, 3), ones(1, 8, 3), ones(1, 8, 2)], {"direction": "evil"}, REFUSED),
        Node("GRU", [ones(2, 1, 3), ones(1, 6, 3), ones(1, 6, 2), None, i(9, dtype=np.int32)], {"hidden_size": 2, "linear_before_reset": 1}, REFUSED),
        Node("GRU", [ones(2, 1, 3), ones(1, 6, 3), ones(1, 6, 2), None, i(-9, dtype=np.int32)], {"hidden_size": 2}, REFUSED),
        Node("RNN", [ones(2, 1, 3), ones(1, 2, 3), ones(1, 2, 2), None, i(9, dtype=np.int32)], {"hidden_size": 2}, REFUSED),
        Node("RNN", [ones(2, 1, 3), ones(1, 2, 3), ones(1, 2, 2), None, i(9, 9, dtype=np.int32)], {"hidden_size": 2}, REFUSED),
        Node("RNN", [ones(0, 1, 3), ones(1, 2, 3), ones(1, 2, 2)], {"hidden_size": 2}, ANY),
        Node("NonMaxSuppression", [ones(1, 3, 4), ones(1, 1, 5), SCALAR(3)], {}, REFUSED, 11),
        Node("NonMaxSuppression", [np.full((1, 3, 4), NAN, np.float32), np.full((1, 1, 3), NAN, np.float32), SCALAR(3)], {}, ANY, 11),
        Node("NonMaxSuppression", [ones(1, 3, 4), ones(1, 1, 3), SCALAR(-3)], {}, ANY, 11),
        Node("NonMaxSuppression", [ones(1, 3, 4), ones(1, 1, 3), SCALAR(2**63 - 1)], {}, ANY, 11),
        Node("BatchNormalization", [ones(1, 4, 2), ones(3), ones(4), ones(4), ones(4)], {}, REFUSED, 15),
        Node("LayerNormalization", [ones(2, 3), ones(7)], {}, REFUSED),
        Node("LayerNormalization", [ones(2, 3), ones(3)], {"axis": 9}, REFUSED),
        Node("Attention", [ones(1, 2, 4), ones(1, 2, 4), ones(1, 2, 4)], {"q_num_heads": 0, "kv_num_heads": 0}, REFUSED, 23),
        Node("Attention", [ones(1, 2, 4), ones(1, 2, 4), ones(1, 2, 4)], {"q_num_heads": 3, "kv_num_heads": 2}, REFUSED, 23),
        Node("RotaryEmbedding", [ones(1, 1, 2, 4), ones(2, 2), ones(2, 2), i(9, 9)[None]], {}, REFUSED, 23),
        Node("RotaryEmbedding", [ones(1, 1, 2, 4), ones(2, 2), ones(2, 2), i(-9, 1)[None]], {}, REFUSED, 23),
        Node("Det", [ones(2, 3)], {}, REFUSED),
        Node("ImageDecoder", [np.frombuffer(b"P6 99999 99999 255\n123", np.uint8)], {}, REFUSED, 20),
        Node("ImageDecoder", [np.frombuffer(b"P6 12000 12000 255\n123", np.uint8)], {}, REFUSED, 20),
        Node("ImageDecoder", [np.uint8([1, 2, 3])], {}, ANY, 20),
        Node("ImageDecoder", [np.uint8([1, 2, 3])], {"pixel_format": "evil"}, REFUSED, 20),
    ]
    return found


def _machine_learning() -> list[Node]:
    def tree(**changes: Any) -> dict[str, Any]:
        return {
            "nodes_treeids": [0, 0, 0],
            "nodes_nodeids": [0, 1, 2],
            "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
            "nodes_featureids": [0, 0, 0],
            "nodes_values": [0.5, 0.0, 0.0],
            "nodes_truenodeids": [1, 0, 0],
            "nodes_falsenodeids": [2, 0, 0],
            "target_treeids": [0, 0],
            "target_nodeids": [1, 2],
            "target_ids": [0, 0],
            "target_weights": [1.0, 2.0],
            "n_targets": 1,
            **changes,
        }

    def regressor(expected: Any = REFUSED, **changes: Any) -> Node:
        return Node("TreeEnsembleRegressor", [f([0.0], [1.0])], tree(**changes), expected, 3, ML)

    x = f([1, 2])
    svm = {"coefficients": [1.0, 1.0], "rho": [0.0], "support_vectors": [1.0] * 4, "n_supports": 2}
    gram = {
        "mode": "TF",
        "min_gram_length": 1,
        "max_gram_length": 1,
        "max_skip_count": 0,
        "ngram_counts": [0],
        "ngram_indexes": [0, 1],
        "pool_int64s": [1, 2],
    }
    return [
        regressor([[1.0], [2.0]]),
        regressor(nodes_truenodeids=[0, 0, 0]),
        regressor(nodes_truenodeids=[9, 0, 0]),
        regressor(nodes_truenodeids=[-1, 0, 0]),
        regressor(nodes_modes=["BRANCH_LEQ", "BRANCH_LEQ", "LEAF"], nodes_truenodeids=[1, 0, 0]),
        regressor(nodes_modes=["BRANCH_LEQ", "BRANCH_LEQ", "LEAF"], nodes_truenodeids=[1, 1, 0]),
        regressor(nodes_modes=["EVIL", "LEAF", "LEAF"]),
        regressor(nodes_featureids=[9, 0, 0]),
        regressor(nodes_featureids=[-1, 0, 0]),
        regressor(nodes_featureids=[2**62, 0, 0]),
        regressor(target_nodeids=[1, 9]),
        regressor(target_ids=[0, 9]),
        regressor(target_ids=[0, -1]),
        regressor(n_targets=2**40),
        regressor(n_targets=-1),
        regressor(target_weights=[1.0]),
        regressor(nodes_values=[0.5]),
        regressor(nodes_nodeids=[0, 0, 0]),
        regressor(aggregate_function="EVIL"),
        regressor(post_transform="EVIL"),
        Node("SVMRegressor", [x], svm, [[6.0]], 1, ML),
        Node("SVMRegressor", [x], {**svm, "n_supports": 3}, REFUSED, 1, ML),
        Node("SVMRegressor", [x], {**svm, "n_supports": -3}, REFUSED, 1, ML),
        Node("SVMRegressor", [x], {**svm, "support_vectors": [1.0] * 6}, REFUSED, 1, ML),
        Node("SVMRegressor", [x], {**svm, "rho": []}, REFUSED, 1, ML),
        Node("SVMRegressor", [x], {**svm, "kernel_type": "RBF", "kernel_params": [1.0]}, REFUSED, 1, ML),
        Node("SVMClassifier", [x], {"coefficients": [1.0] * 4, "rho": [0.0], "support_vectors": [1.0] * 8, "vectors_per_class": [2, 9], "classlabels_ints": [0, 1]}, REFUSED, 1, ML, 2),
        Node("SVMClassifier", [x], {"coefficients": [1.0] * 4, "rho": [0.0], "support_vectors": [1.0] * 8, "vectors_per_class": [-2, 6], "classlabels_ints": [0, 1]}, REFUSED, 1, ML, 2),
        Node("LinearClassifier", [x], {"coefficients": [1.0], "classlabels_ints": [0, 1]}, REFUSED, 1, ML, 2),
        Node("LinearRegressor", [x], {"coefficients": [1.0, 1.0], "targets": -3}, REFUSED, 1, ML),
        Node("LinearRegressor", [x], {"coefficients": [1.0, 1.0], "targets": 0}, REFUSED, 1, ML),
        Node("ArrayFeatureExtractor", [x, i(9)], {}, REFUSED, 1, ML),
        Node("ArrayFeatureExtractor", [x, i(-9)], {}, REFUSED, 1, ML),
        Node("OneHotEncoder", [i(9)], {"cats_int64s": [1, 2], "zeros": 0}, REFUSED, 1, ML),
        Node("LabelEncoder", [i(1)], {"keys_int64s": [1], "values_int64s": [1, 2]}, REFUSED, 2, ML),
        Node("LabelEncoder", [i(1)], {}, REFUSED, 2, ML),
        Node("FeatureVectorizer", [x], {"inputdimensions": [2**40]}, REFUSED, 1, ML),
        Node("FeatureVectorizer", [x], {"inputdimensions": [-1]}, REFUSED, 1, ML),
        Node("Scaler", [x], {"offset": [1.0] * 3, "scale": [1.0]}, REFUSED, 1, ML),
        Node("Imputer", [x], {"imputed_value_floats": [1.0] * 3}, REFUSED, 1, ML),
        Node("TfIdfVectorizer", [i(1, 2)], {**gram, "ngram_indexes": [0, -1]}, REFUSED),
        Node("TfIdfVectorizer", [i(1, 2)], {**gram, "ngram_indexes": [0, 2**62]}, REFUSED),
        Node("TfIdfVectorizer", [i(1, 2)], {**gram, "ngram_indexes": [0]}, REFUSED),
        Node("TfIdfVectorizer", [i(1, 2)], {**gram, "ngram_counts": [9]}, REFUSED),
        Node("TfIdfVectorizer", [i(1, 2)], {**gram, "ngram_counts": [-9]}, REFUSED),
        Node("TfIdfVectorizer", [i(1, 2)], {**gram, "weights": [1.0]}, REFUSED),
        Node("TfIdfVectorizer", [i(1, 2)], {**gram, "max_skip_count": 2**40, "max_gram_length": 2, "ngram_counts": [0, 0]}, ANY),
        Node("TfIdfVectorizer", [i(1, 2)], {**gram, "mode": "EVIL"}, REFUSED),
    ]


def nodes() -> dict[str, Node]:
    """All of them, by what they are."""
    every = [*_integers(), *_places(), *_windows(), *_shapes(), *_types(), *_machine_learning()]
    return {f"{n:03d} {_described(node)}": node for n, node in enumerate(every)}


def _described(node: Node) -> str:
    given = [x if x is None or isinstance(x, str) else x.tolist() for x in node.inputs]
    return f"{node.op_type}-{node.opset} {given} {node.attributes}".replace("\n", " ")[:150]


def cases() -> dict[str, Callable[[], str]]:
    """What comes of each, its inputs given at the call and as constants of the file."""
    warnings.simplefilter("ignore")
    return {
        f"{name} [{'constant' if constant else 'given'}]": lambda node=node, c=constant: outcome(node, c)
        for name, node in nodes().items()
        for constant in (False, True)
        if node.inputs or not constant
    }


def outcome(node: Node, constant: bool) -> str:
    """`ok`, or what is wrong."""
    try:
        got = _run(node, constant)
    except OnnxError as error:
        if node.expected in (REFUSED, ANY) if isinstance(node.expected, str) else False:
            return "ok"
        return f"is refused: {error}; {error.__cause__}"[:300]
    except Exception as error:
        return f"raises a raw {type(error).__name__}: {error}"[:300]
    if isinstance(node.expected, str):
        return "ok" if node.expected == ANY else f"gives {got}"[:300]
    return "ok" if got == node.expected else f"gives {got}"[:300]


def _run(node: Node, constant: bool) -> Any:
    """What the node gives, as nested lists."""
    names = ["" if x is None else f"x{n}" for n, x in enumerate(node.inputs)]
    feeds = {n: x for n, x in zip(names, node.inputs, strict=True) if n}
    infos, initializers = [], []
    for name, x in feeds.items():
        if isinstance(x, str):
            infos.append(helper.make_tensor_sequence_value_info(name, onnx.TensorProto.FLOAT, None))
        elif constant:
            initializers.append(numpy_helper.from_array(np.asarray(x), name))
        else:
            kind = onnx.TensorProto.STRING if x.dtype == object else helper.np_dtype_to_tensor_dtype(x.dtype)
            infos.append(helper.make_tensor_value_info(name, kind, x.shape))
    outputs = [f"y{n}" for n in range(node.outputs)]
    made = helper.make_node(node.op_type, names, outputs, domain=node.domain, **node.attributes)
    results = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph([made], "one", infos, results, initializers)
    imports = [helper.make_opsetid(node.domain, node.opset)]
    module = OnnxModule(helper.make_model(graph, opset_imports=imports, ir_version=10))
    given = {name: _fed(x) for name, x in feeds.items() if name in module.input_names}
    got = module(**given)
    return _plain(got)


def _fed(x: Any) -> Any:
    if isinstance(x, str):
        return [torch.ones(2), torch.ones(2)]
    return x if x.dtype == object else torch.from_numpy(np.array(x))


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value.tolist() if hasattr(value, "tolist") else value

"""Attributes of the wrong type, of unknown names, and of values that no operator can mean."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import AttributeProto, helper

from tests.untrusted.files.case import TIGHT, Case, Must
from tests.untrusted.files.models import attribute, one, tensor

A = AttributeProto
X = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
M = np.arange(6, dtype=np.float32).reshape(2, 3)
W = np.ones((1, 1, 2, 2), np.float32)
ML = {"domain": "ai.onnx.ml", "opset": 3}

HONEST: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("Conv", [X, W], {"kernel_shape": [2, 2], "strides": [1, 1], "dilations": [1, 1],
                      "pads": [0, 0, 0, 0], "group": 1, "auto_pad": "NOTSET"}),
    ("ConvTranspose", [X, W], {"kernel_shape": [2, 2], "strides": [1, 1], "dilations": [1, 1],
                               "pads": [0, 0, 0, 0], "output_padding": [0, 0], "group": 1}),
    ("MaxPool", [X], {"kernel_shape": [2, 2], "strides": [1, 1], "dilations": [1, 1],
                      "pads": [0, 0, 0, 0], "ceil_mode": 0, "storage_order": 0}),
    ("AveragePool", [X], {"kernel_shape": [2, 2], "strides": [1, 1], "pads": [0, 0, 0, 0],
                          "count_include_pad": 0}),
    ("LpPool", [X], {"kernel_shape": [2, 2], "strides": [1, 1], "p": 2}),
    ("GlobalLpPool", [X], {"p": 2}),
    ("Transpose", [M], {"perm": [1, 0]}),
    ("Softmax", [M], {"axis": 1}),
    ("Concat", [M, M], {"axis": 0}),
    ("Flatten", [M], {"axis": 1}),
    ("Gather", [M, [0]], {"axis": 0}),
    ("GatherND", [M, [[0]]], {"batch_dims": 0}),
    ("Split", [M], {"axis": 1, "num_outputs": 1}),
    ("ArgMax", [M], {"axis": 0, "keepdims": 1, "select_last_index": 0}),
    ("TopK", [M, [1]], {"axis": 1, "largest": 1, "sorted": 1}),
    ("ReduceSum", [M], {"keepdims": 1, "noop_with_empty_axes": 0}),
    ("Cast", [M], {"to": 7, "saturate": 1}),
    ("Gemm", [M, M], {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}),
    ("LeakyRelu", [M], {"alpha": 0.1}),
    ("LRN", [X], {"size": 3, "alpha": 0.1, "beta": 0.5, "bias": 1.0}),
    ("BatchNormalization", [X, [1.0], [0.0], [0.0], [1.0]],
     {"epsilon": 1e-5, "momentum": 0.9, "training_mode": 0}),
    ("LayerNormalization", [M, [1.0, 1.0, 1.0]], {"axis": -1, "epsilon": 1e-5, "stash_type": 1}),
    ("GroupNormalization", [X, [1.0], [0.0]], {"num_groups": 1, "epsilon": 1e-5}),
    ("InstanceNormalization", [X, [1.0], [0.0]], {"epsilon": 1e-5}),
    ("Resize", [X, None, [1.0, 1.0, 2.0, 2.0]],
     {"mode": "linear", "coordinate_transformation_mode": "half_pixel", "nearest_mode": "floor",
      "antialias": 0, "cubic_coeff_a": -0.75, "exclude_outside": 0}),
    ("Pad", [M, [0, 0, 1, 1]], {"mode": "constant"}),
    ("Einsum", [M, M], {"equation": "ij,kj->ik"}),
    ("DepthToSpace", [np.zeros((1, 4, 2, 2), np.float32)], {"blocksize": 2, "mode": "DCR"}),
    ("SpaceToDepth", [X], {"blocksize": 2}),
    ("OneHot", [[0, 1], 2, [0.0, 1.0]], {"axis": -1}),
    ("CumSum", [M, 0], {"exclusive": 0, "reverse": 0}),
    ("EyeLike", [M], {"dtype": 1, "k": 0}),
    ("RandomUniformLike", [M], {"dtype": 1, "low": 0.0, "high": 1.0, "seed": 1.0}),
    ("Multinomial", [M], {"sample_size": 2, "dtype": 6}),
    ("QuantizeLinear", [M, [1.0, 1.0, 1.0]], {"axis": 1, "saturate": 1, "block_size": 0}),
    ("LSTM", [np.ones((3, 2, 1), np.float32), np.ones((1, 4, 1), np.float32),
              np.ones((1, 4, 1), np.float32)],
     {"hidden_size": 1, "direction": "forward", "layout": 0, "clip": 1.0, "input_forget": 0,
      "activations": ["Sigmoid", "Tanh", "Tanh"], "activation_alpha": [1.0]}),
    ("GridSample", [X, np.zeros((1, 2, 2, 2), np.float32)],
     {"mode": "linear", "padding_mode": "zeros", "align_corners": 0}),
    ("RoiAlign", [X, np.float32([[0, 0, 3, 3]]), [0]],
     {"mode": "avg", "output_height": 2, "output_width": 2, "sampling_ratio": 2,
      "spatial_scale": 1.0}),
    ("Trilu", [M, 0], {"upper": 1}),
    ("Unique", [M], {"axis": 0, "sorted": 1}),
    ("ReverseSequence", [M, [1, 1, 1]], {"batch_axis": 1, "time_axis": 0}),
    ("Shape", [M], {"start": 0, "end": 2}),
    ("BitShift", [np.uint8([1]), np.uint8([1])], {"direction": "LEFT"}),
    ("StringNormalizer", [["a", "b"]],
     {"case_change_action": "UPPER", "is_case_sensitive": 0, "stopwords": ["a"]}),
    ("StringSplit", [["a b"]], {"delimiter": " ", "maxsplit": 1}),
    ("Scaler", [M], {"offset": [0.0], "scale": [1.0], **ML}),
    ("Normalizer", [M], {"norm": "MAX", **ML}),
    ("Binarizer", [M], {"threshold": 0.5, **ML}),
    ("LinearRegressor", [M], {"coefficients": [1.0, 1.0, 1.0], "targets": 1, "intercepts": [0.0],
                              "post_transform": "NONE", **ML}),
    ("SVMRegressor", [M], {"kernel_type": "LINEAR", "coefficients": [1.0, 1.0, 1.0],
                           "kernel_params": [0.0, 0.0, 0.0], "rho": [0.0], "n_supports": 0, **ML}),
    ("LabelEncoder", [["a", "b"]], {"keys_strings": ["a", "b"], "values_int64s": [1, 2],
                                    "default_int64": 0, **ML}),
    ("DictVectorizer", [M], {"string_vocabulary": ["a"], **ML}),
    ("FeatureVectorizer", [M], {"inputdimensions": [3], **ML}),
    ("OneHotEncoder", [["a", "b"]], {"cats_strings": ["a", "b"], "zeros": 1, **ML}),
]  # fmt: skip
"""One good call of operators of every kind."""

INTS = (-1, 0, 2, 9, 2**31, 2**62, -(2**63), 2**63 - 1)
TEXTS = (
    "",
    "NO_SUCH",
    "{0.__class__}",
    "%s%n",
    "__import__('os')",
    "a" * 100_000,
    "\x1b[2J",
    "lambda: 0",
)
FLOATS = (float("nan"), float("inf"), -1.0, 3e38)
BOTH_ANSWER = ("saturate",)


def wrong_type(name: str, value: Any, seed: int) -> AttributeProto:
    """The attribute as another type than the operator wants."""
    others = [
        attribute(name, A.INT, i=1),
        attribute(name, A.STRING, s=b"1"),
        attribute(name, A.FLOAT, f=1.0),
        attribute(name, A.INTS, ints=[1, 1]),
        attribute(name, A.FLOATS, floats=[1.0]),
        attribute(name, A.STRINGS, strings=[b"a"]),
        attribute(name, A.TENSOR, t=tensor(np.float32([1]))),
        attribute(name, A.GRAPH, g=helper.make_graph([], "g", [], [])),
        attribute(name, A.UNDEFINED, i=1),
    ]
    own = helper.make_attribute(name, value).type
    fitting = [o for o in others if o.type != own]
    return fitting[seed % len(fitting)]


def odd_values(value: Any) -> list[Any]:
    """Values of the same type that hardly any operator can mean."""
    if isinstance(value, str):
        return list(TEXTS)
    if isinstance(value, float):
        return list(FLOATS)
    if isinstance(value, int):
        return list(INTS)
    if isinstance(value[0], int):
        few = [[n] * len(value) for n in (-1, 0, 2**31, 2**62, -(2**63))]
        return [*few, value[:-1], [*value, *value], [1] * 200]
    if isinstance(value[0], str):
        return [[t] * len(value) for t in TEXTS[:4]] + [[*value, *value]]
    return [[n] * len(value) for n in FLOATS] + [[*value, *value]]


def cases() -> Iterator[Case]:
    for index, (op, values, attributes) in enumerate(HONEST):
        outputs = 2 if op in ("TopK", "StringSplit") else 1
        where = {k: attributes[k] for k in ("domain", "opset") if k in attributes}
        honest = {k: v for k, v in attributes.items() if k not in where}
        if op != "DictVectorizer":  # which takes maps
            content, feeds = one(op, values, outputs=outputs, **attributes)
            random = op in ("RandomUniformLike", "Multinomial", "StringNormalizer")
            yield Case(
                f"attributes/{op}-honest",
                content,
                "right" if not random else "either",
                feeds,
                asked=not random,
            )
        for place, (name, value) in enumerate(honest.items()):
            rest = {k: v for k, v in honest.items() if k != name}
            wrong = wrong_type(name, value, index + place)
            content, feeds = one(op, values, outputs=outputs, raw=[wrong], **rest, **where)
            yield Case(f"attributes/{op}-{name}-as-type-{wrong.type}", content, "refused", feeds)
            odd = odd_values(value)
            for n in {(index + place) % len(odd), (index + place + 3) % len(odd)}:
                content, feeds = one(
                    op, values, outputs=outputs, **{**honest, name: odd[n]}, **where
                )
                label = f"attributes/{op}-{name}-odd-{n}"
                yield Case(label, content, "either", feeds, limits=TIGHT, asked=False)
        content, feeds = one(op, values, outputs=outputs, no_such_attribute=1, **attributes)
        yield Case(f"attributes/{op}-unknown", content, "refused", feeds)
    yield from _refused()
    yield from _odd_forms()


REFUSED: list[tuple[str, str, list[Any], dict[str, Any]]] = [
    ("perm-twice", "Transpose", [M], {"perm": [0, 0]}),
    ("perm-far", "Transpose", [M], {"perm": [0, 9]}),
    ("perm-short", "Transpose", [M], {"perm": [0]}),
    ("axis-far", "Softmax", [M], {"axis": 2}),
    ("axis-below", "Concat", [M, M], {"axis": -3}),
    ("group-0", "Conv", [X, W], {"group": 0}),
    ("group-minus", "Conv", [X, W], {"group": -1}),
    ("group-far", "Conv", [X, W], {"group": 2**62}),
    ("strides-0", "Conv", [X, W], {"strides": [0, 0]}),
    ("strides-minus", "Conv", [X, W], {"strides": [-1, -1]}),
    ("dilations-0", "Conv", [X, W], {"dilations": [0, 0]}),
    ("kernel-other", "Conv", [X, W], {"kernel_shape": [3, 3]}),
    ("auto_pad", "Conv", [X, W], {"auto_pad": "SAME_NEVER"}),
    ("pads-with-auto_pad", "MaxPool", [X], {"kernel_shape": [9, 9]}),
    ("pool-kernel-0", "MaxPool", [X], {"kernel_shape": [0, 0]}),
    ("pool-kernel-minus", "AveragePool", [X], {"kernel_shape": [-2, -2]}),
    ("pool-strides-0", "AveragePool", [X], {"kernel_shape": [2, 2], "strides": [0, 1]}),
    ("transpose-strides-0", "ConvTranspose", [X, W], {"strides": [0, 1]}),
    ("cast-to-0", "Cast", [M], {"to": 0}),
    ("cast-to-99", "Cast", [M], {"to": 99}),
    ("cast-to-minus", "Cast", [M], {"to": -1}),
    ("cast-nowhere", "Cast", [M], {}),
    ("blocksize-0", "DepthToSpace", [np.zeros((1, 4, 2, 2), np.float32)], {"blocksize": 0}),
    ("blocksize-minus", "SpaceToDepth", [X], {"blocksize": -2}),
    ("blocksize-3", "SpaceToDepth", [X], {"blocksize": 3}),
    ("resize-mode", "Resize", [X, None, [1.0, 1.0, 2.0, 2.0]], {"mode": "eval"}),
    ("pad-mode", "Pad", [M, [0, 0, 1, 1]], {"mode": "exec"}),
    ("direction", "BitShift", [np.uint8([1]), np.uint8([1])], {"direction": "UP"}),
    ("lstm-direction", "LSTM", HONEST[35][1], {"hidden_size": 1, "direction": "sideways"}),
    ("lstm-activation", "LSTM", HONEST[35][1], {"hidden_size": 1, "activations": ["eval"] * 3}),
    ("lstm-hidden_size", "LSTM", HONEST[35][1], {"hidden_size": 2**40}),
    ("groups-0", "GroupNormalization", [X, [1.0], [0.0]], {"num_groups": 0}),
    ("einsum-empty", "Einsum", [M, M], {"equation": ""}),
    ("einsum-few", "Einsum", [M, M], {"equation": "ij->ij"}),
    ("einsum-letters", "Einsum", [M, M], {"equation": "ij,kl->mn"}),
    ("einsum-sign", "Einsum", [M, M], {"equation": "i!,j?->ij"}),
    ("einsum-arrows", "Einsum", [M, M], {"equation": "ij,kj->->ik"}),
    ("einsum-dots", "Einsum", [M, M], {"equation": "....ij,kj->ik"}),
    ("einsum-rank", "Einsum", [M, M], {"equation": "ijk,kj->ik"}),
    ("einsum-twice", "Einsum", [M, M], {"equation": "ij,kj->ii"}),
    ("einsum-code", "Einsum", [M, M], {"equation": "__import__('os').system('id')"}),
    ("einsum-format", "Einsum", [M, M], {"equation": "{0.__class__}"}),
    ("einsum-long", "Einsum", [M, M], {"equation": "ij,kj->ik" * 10_000}),
    ("split-0", "Split", [M], {"num_outputs": 0}),
    ("sequence-axis", "ConcatFromSequence", [[M, M]], {"axis": 9}),
    ("constant-none", "Constant", [], {}),
    ("constant-two", "Constant", [], {"value_int": 1, "value_float": 1.0}),
    ("loop-no-body", "Loop", [1, None], {}),
    ("if-no-branches", "If", [np.array(True)], {}),
    ("scan-no-body", "Scan", [M], {"num_scan_inputs": 1}),
    ("gradient-xs", "Gradient", [M], {"domain": "ai.onnx.preview.training", "opset": 1,
                                      "xs": ["nothing"], "y": "nothing"}),
    ("gradient-itself", "Gradient", [M], {"domain": "ai.onnx.preview.training", "opset": 1,
                                          "xs": ["x0"], "y": "y0"}),
    ("gradient-no-y", "Gradient", [M], {"domain": "ai.onnx.preview.training", "opset": 1,
                                        "xs": ["x0"]}),
    ("image-format", "ImageDecoder", [np.zeros(9, np.uint8)], {"pixel_format": "CMYK"}),
    ("image-broken", "ImageDecoder", [np.zeros(9, np.uint8)], {}),
    ("image-postscript", "ImageDecoder", [np.frombuffer(b"%!PS-Adobe-3.0\n", np.uint8)], {}),
    ("stft-text", "StringConcat", [["a"], ["a", "b", "c"], ["d"]], {}),
]  # fmt: skip


def _refused() -> Iterator[Case]:
    for name, op, values, attributes in REFUSED:
        content, feeds = one(op, values, **attributes)
        # what cannot be decoded is an empty picture, says the specification
        must: Must = "either" if op == "ImageDecoder" else "refused"
        yield Case(f"attributes/{name}", content, must, feeds, limits=TIGHT, asked=False)


def _odd_forms() -> Iterator[Case]:
    """One attribute, in forms that protobuf lets pass."""
    forms: dict[str, tuple[list[AttributeProto], Must]] = {
        "twice": ([attribute("axis", A.INT, i=1), attribute("axis", A.INT, i=0)], "refused"),
        "no-name": ([attribute("", A.INT, i=1)], "refused"),
        "no-type": ([AttributeProto(name="axis", i=1)], "either"),
        "two-values": ([attribute("axis", A.INT, i=1, s=b"0", floats=[1.0])], "either"),
        "type-without-value": ([attribute("axis", A.INT)], "either"),
        "dunder": ([attribute("__class__", A.STRING, s=b"x")], "refused"),
        "self": ([attribute("self", A.INT, i=1)], "refused"),
        "input": ([attribute("input", A.INT, i=1)], "refused"),
        "device": ([attribute("device", A.STRING, s=b"cuda")], "refused"),
        "opset": ([attribute("opset", A.INT, i=1)], "refused"),
        "training": ([attribute("training", A.INT, i=1)], "refused"),
        "output_type": ([attribute("output_type", A.INT, i=1)], "refused"),
        "type-99": ([AttributeProto.FromString(b"\x0a\x04axis\x18\x01\xa0\x01\x63")], "either"),
        "reference-outside": ([attribute("axis", A.INT, ref_attr_name="axis")], "refused"),
    }
    for name, (raw, must) in forms.items():
        for op in ("Softmax", "Dropout", "EyeLike", "QuantizeLinear"):
            values = {"QuantizeLinear": [M, 1.0]}.get(op, [M])
            content, feeds = one(op, values, raw=raw)
            wanted = must if op == "Softmax" or must == "refused" else "either"
            yield Case(f"attributes/form-{name}-{op}", content, wanted, feeds, asked=False)

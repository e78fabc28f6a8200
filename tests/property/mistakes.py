"""What an oracle is known to answer wrongly, so that it is not asked: the reason, and when."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from onnx import NodeProto, TensorProto, helper

from onnxinterp.ops.resizing import FRACTIONAL
from tests.property.drawing import FLOATING, STRING

Types: TypeAlias = Mapping[str, int]  # type parameter -> element type
Mistake: TypeAlias = Callable[[NodeProto, int, Types], bool]  # of node, opset and types

COMPLEX = (TensorProto.COMPLEX64, TensorProto.COMPLEX128)
HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
SOFTMAX_FAMILY = ("Softmax", "LogSoftmax", "Hardmax")
RECURRENT = ("RNN", "GRU", "LSTM")
T123 = ("T1", "T2", "T3")
INTEGERS = {TensorProto.INT8, TensorProto.UINT8}
BIAS_OF_BEAMS = {"MultiHeadAttention": (5, 9), "DecoderMaskedMultiHeadAttention": (4, 9)}
"""Operator -> its inputs `attention_bias` and `cache_indirection`."""
RARE_OPTIONS = ("activations", "activation_alpha", "activation_beta", "clip")


def _has(node: NodeProto, *names: str) -> bool:
    return any(a.name in names for a in node.attribute)


def _old_softmax(node: NodeProto, opset: int, _types: Types) -> bool:
    return node.op_type in SOFTMAX_FAMILY and opset < 13


def _scores_of_two(node: NodeProto, _opset: int, _types: Types) -> bool:
    """Trees that give each of two classes a score."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    names = attributes.get("classlabels_int64s") or attributes.get("classlabels_strings", [])
    two = node.op_type == "TreeEnsembleClassifier" and len(names) == 2
    return two and len(set(attributes["class_ids"])) > 1


ONNXRUNTIME: dict[str, Mistake] = {
    "of two scores it reads the second, and gives 0 and 1 for the labels": _scores_of_two,
    "of the strings of a Loop it keeps those of the first iteration": lambda node, _, types: (
        node.op_type == "Loop" and STRING in types.values()
    ),
    "it copies a part of the strings of a Gather": lambda node, _, types: (
        node.op_type == "Gather" and types.get("T") == STRING
    ),
    "it rounds every exponential of integers down": lambda node, _, types: (
        node.op_type == "ReduceLogSumExp" and types.get("T") not in FLOATING
    ),
    "beside a mask of integers it forgets the window": lambda node, _, types: (
        node.op_type == "Attention" and types.get("U") not in (*FLOATING, TensorProto.BOOL, None)
    ),
    "it dies of queries, keys and values in one tensor": lambda node, _opset, _types: (
        node.op_type == "DecoderMaskedMultiHeadAttention" and not any(node.input[1:3])
    ),
    "it takes the attention bias of another beam": lambda node, _opset, _types: (
        node.op_type in BIAS_OF_BEAMS
        and all(node.input[i] for i in BIAS_OF_BEAMS[node.op_type] if i < len(node.input))
        and len(node.input) > max(BIAS_OF_BEAMS[node.op_type])
    ),
}

CONVERTER: dict[str, Mistake] = {
    "it ignores that the axes from `axis` on count as one": _old_softmax,
}

REFERENCE: dict[str, Mistake] = {
    "it ignores `post_transform`": lambda node, _opset, _types: node.op_type == "TreeEnsemble",
    "it ignores that the axes from `axis` on count as one": _old_softmax,
    "it ignores activations, clip and the lengths of sequences": lambda node, _opset, _types: (
        node.op_type in RECURRENT and (_has(node, *RARE_OPTIONS) or any(node.input[4:5]))
    ),
    "of some types it takes a text for their bits": lambda node, _, types: (
        node.op_type.startswith("Cast") and types.get("T1") == STRING
    ),
    "it joins the scan outputs of a Loop that it should stack": lambda node, _opset, _types: (
        node.op_type == "Loop" and len(node.output) > 1
    ),
    "of complex numbers it resizes the real part": lambda node, _, types: (
        node.op_type == "Resize" and types.get("T1") in COMPLEX
    ),
    "it keeps the fractions of sizes": lambda node, _opset, _types: (
        node.op_type == "Resize" and any(a.s.decode() in FRACTIONAL for a in node.attribute)
    ),
    "it knows no axis of the batch in Scan-8, and no negative axes later": lambda node, *_: (
        node.op_type == "Scan"
    ),
    "it takes the end of a backward Slice for one from the front": lambda node, _, types: (
        node.op_type == "Slice" and types.get("T") in COMPLEX
    ),
    "it inserts the last element of a sequence as the first": lambda node, *_: (
        node.op_type == "SequenceInsert"
    ),
    "it takes indices as those of one channel": lambda node, *_: node.op_type == "MaxUnpool",
    "it mixes up the elements where Unique does not sort": lambda node, _opset, _types: (
        node.op_type == "Unique" and any(a.name == "sorted" and not a.i for a in node.attribute)
    ),
    "it rounds every step to the type of the edges": lambda node, _, types: (
        node.op_type == "MelWeightMatrix" and types.get("T2") in HALVES
    ),
    "it adds the bias of the first group to all of them": lambda node, _opset, _types: (
        node.op_type == "ConvTranspose" and _has(node, "group")
    ),
    "it cuts 8-bit floats down to integers": lambda node, _, types: (
        node.op_type == "QLinearMatMul" and not INTEGERS.issuperset(types[t] for t in T123)
    ),
}

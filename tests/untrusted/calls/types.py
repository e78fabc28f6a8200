"""Text, types and layers whose parts do not fit together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import TensorProto

from tests.untrusted.calls.one_node import (
    INF,
    NAN,
    SCALAR,
    Node,
    either,
    f,
    full,
    gives,
    i,
    ones,
    refused,
    text,
)

WORDS = text("a")
I32, U8 = np.int32, np.uint8


def numbers_in_text() -> Iterator[Node]:
    """Text that names no integer, or one beyond 64 bits; of floats, infinity."""
    for number in ("1e999", "", "x", "9" * 30, "9" * 5000, "nan", "0x10"):
        yield refused("Cast", [text(number)], to=TensorProto.INT64)
    yield either("Cast", [text("1e999", "-1e999", "nan")], to=TensorProto.FLOAT)
    yield gives([INF], "Cast", [text("9" * 5000)], to=TensorProto.FLOAT)


def casts() -> Iterator[Node]:
    """Numbers that the type wanted cannot hold, and types that there are not."""
    yield either("Cast", [f(NAN, INF, 1e30)], to=TensorProto.INT64)
    yield either("Cast", [f(NAN, INF, -1)], to=TensorProto.UINT8)
    yield refused("Cast", [f(1)], to=999)
    yield refused("Cast", [f(1)], to=-1)
    yield either("Cast", [f(NAN, 1e30)], to=TensorProto.FLOAT8E4M3FN)
    yield gives([-1], "Cast", [i(2**63 - 1)], to=TensorProto.INT32)
    yield refused("BitCast", [i(1, 2)], opset=26, to=TensorProto.INT8)
    yield refused("BitCast", [i(1, 2, dtype=np.int8)], opset=26, to=TensorProto.INT16)
    yield refused("BitCast", [i(1, 2, dtype=np.int8)], opset=26, to=TensorProto.INT4)
    yield either("Cast", [f(3e9)], to=TensorProto.INT32)


def strings() -> Iterator[Node]:
    """Shapes, patterns and actions of text that do not fit; a row of text is repeated."""
    bcd = text("b", "c", "d")
    yield gives([["ab", "ac", "ad"]] * 2, "StringConcat", [WORDS, np.stack([bcd, bcd])], opset=20)
    yield refused("StringConcat", [text("a", "b"), bcd], opset=20)
    yield either("StringSplit", [WORDS], opset=20, outputs=2, maxsplit=-5)
    yield refused("RegexFullMatch", [WORDS], opset=20, pattern="(" * 5000)
    yield refused("RegexFullMatch", [WORDS], opset=20, pattern="((a{1,1000}){1,1000}){1,1000}")
    yield refused("StringNormalizer", [WORDS], case_change_action="EVIL")
    yield either("StringNormalizer", [WORDS], locale="\x00" * 99)
    yield refused("Add", [WORDS, WORDS])


def quantized() -> Iterator[Node]:
    """Scales of zero, blocks and axes that do not fit the numbers."""
    yield either("QuantizeLinear", [f(1, NAN), f(0).reshape(()), U8(0)])
    yield gives([255], "QuantizeLinear", [f(INF), f(1).reshape(()), U8(0)])
    yield refused("QuantizeLinear", [ones(2, 4), ones(2, 2)], axis=1, block_size=-2)
    yield refused("QuantizeLinear", [ones(2, 4), ones(2, 1)], axis=1, block_size=1)
    yield refused("DequantizeLinear", [np.ones((2, 4), U8), ones(2, 2)], axis=9)
    x, one, scale = ones(2, 3), U8(1), f(1).reshape(())
    yield refused("QuantizeLinear", [x, scale, i(1, 2, 3, dtype=U8)])
    yield refused("QuantizeLinear", [x, ones(3), one])
    yield refused("QuantizeLinear", [x, ones(1, 1)])
    yield refused("QuantizeLinear", [x, ones(1, 3)])
    yield refused("QuantizeLinear", [ones(1, 3), ones(2)], axis=0)
    yield refused("QuantizeLinear", [ones(3), ones(3)])
    yield refused("QuantizeLinear", [ones(2, 4), ones(1, 2)], axis=1, block_size=2)
    yield refused("QuantizeLinear", [ones(2, 4), ones(2, 3)], axis=1, block_size=2)
    y = np.full((2, 3), 3, U8)
    yield refused("DequantizeLinear", [y, scale, i(1, 2, 3, dtype=U8)])
    yield refused("DequantizeLinear", [y, ones(3), i(1, dtype=U8)])
    yield refused("DequantizeLinear", [y, ones(1, 1)])
    yield gives([[2, 2, 2]] * 2, "DequantizeLinear", [y, ones(1), one], axis=9)
    yield gives([[2, 2, 2]] * 2, "DequantizeLinear", [y, scale, i(1, dtype=U8)])
    yield refused("MatMulInteger", [np.ones((2, 2), U8), np.ones((3, 2), U8)])


def lstm() -> Iterator[Node]:
    """Weights, states and lengths of other sizes than the node says."""
    x, w, r = ones(2, 1, 3), ones(1, 8, 3), ones(1, 8, 2)
    yield refused("LSTM", [x, ones(1, 8, 4), r], hidden_size=2)
    yield refused("LSTM", [x, w, ones(1, 4, 2)], hidden_size=2)
    yield refused("LSTM", [x, w, r, ones(1, 3)], hidden_size=2)
    yield refused("LSTM", [x, w, r], hidden_size=2**40)
    yield refused("LSTM", [x, w, r], hidden_size=-2)
    yield refused("LSTM", [x, w, r, None, i(9, dtype=I32)], hidden_size=2)
    yield refused("LSTM", [x, w, r, None, i(-9, dtype=I32)], hidden_size=2)
    yield refused("LSTM", [x, w, r, None, None, ones(1, 1, 5)], hidden_size=2)
    yield refused("LSTM", [ones(2, 3, 3), w, r, None, i(2, dtype=I32)], hidden_size=2)
    yield refused("LSTM", [ones(2, 3, 3), w, r, None, i(2, dtype=I32)[0]], hidden_size=2)
    for shape in ((1, 3), (1, 5), (1, 12), (2, 6), (1, 6, 1)):
        yield refused("LSTM", [x, w, r, *[None] * 4, ones(*shape)], hidden_size=2)
    yield refused("LSTM", [x, w, r], activations=["Sigmoid", "Tanh", "Tanh", "Relu"])
    yield refused("LSTM", [x, w, r], activations=["Evil"] * 3)
    yield refused("LSTM", [x, w, r], direction="evil")


def gru_and_rnn() -> Iterator[Node]:
    """Lengths of sequences beyond the steps, below zero, or too many; and no steps at all."""
    x = ones(2, 1, 3)
    gru: list[Any] = [x, ones(1, 6, 3), ones(1, 6, 2), None]
    w, r = ones(1, 2, 3), ones(1, 2, 2)
    yield refused("GRU", [*gru, i(9, dtype=I32)], hidden_size=2, linear_before_reset=1)
    yield refused("GRU", [*gru, i(-9, dtype=I32)], hidden_size=2)
    yield refused("RNN", [x, w, r, None, i(9, dtype=I32)], hidden_size=2)
    yield refused("RNN", [x, w, r, None, i(9, 9, dtype=I32)], hidden_size=2)
    yield refused("RNN", [ones(2, 3, 3), w, r, None, i(2, dtype=I32)], hidden_size=2)
    yield refused("GRU", gru, activations=["Sigmoid", "Tanh", "Tanh"])
    yield either("RNN", [ones(0, 1, 3), w, r], hidden_size=2)


def sequences() -> Iterator[Node]:
    """A tensor is no sequence of its rows, and a sequence no tensor."""
    x, at = ones(2, 2), SCALAR(1)
    yield gives([1, 1], "SequenceAt", ["sequence", at])
    yield refused("SequenceAt", [x, at])
    yield refused("SequenceLength", [x])
    yield refused("SequenceErase", [x, at])
    yield refused("SequenceInsert", [x, ones(2), at])
    yield refused("SequenceInsert", ["sequence", "sequence", at])
    yield refused("SequenceConstruct", ["sequence"])
    yield refused("ConcatFromSequence", [x], axis=0)
    yield refused("Relu", ["sequence"])
    yield refused("Shape", ["sequence"])
    yield refused("Concat", ["sequence", "sequence"], axis=0)


def boxes() -> Iterator[Node]:
    """Boxes that do not fit the scores, are no numbers, or are wanted without end."""
    x, scores = ones(1, 3, 4), ones(1, 1, 3)
    no_numbers: list[Any] = [full(NAN, 1, 3, 4), full(NAN, 1, 1, 3)]
    yield refused("NonMaxSuppression", [x, ones(1, 1, 5), SCALAR(3)], opset=11)
    yield either("NonMaxSuppression", [*no_numbers, SCALAR(3)], opset=11)
    yield either("NonMaxSuppression", [x, scores, SCALAR(-3)], opset=11)
    yield either("NonMaxSuppression", [x, scores, SCALAR(2**63 - 1)], opset=11)
    for threshold in (5, -0.5, NAN):
        yield refused("NonMaxSuppression", [x, scores, SCALAR(3), f(threshold)], opset=11)


def normalization() -> Iterator[Node]:
    """Statistics and scales of other sizes than the values, and an axis that is not there."""
    four = ones(4)
    yield refused("BatchNormalization", [ones(1, 4, 2), ones(3), four, four, four], opset=15)
    yield refused("LpNormalization", [ones(2, 3)], p=7)
    yield refused("LpNormalization", [ones(2, 3)], p=0)
    yield refused("LayerNormalization", [ones(2, 3), ones(7)])
    yield refused("LayerNormalization", [ones(2, 3), ones(3)], axis=9)
    for scale in (ones(4, 2, 3), ones(1, 2, 3)):
        yield refused("LayerNormalization", [ones(2, 3), scale])
        yield refused("LayerNormalization", [ones(2, 3), ones(3), scale])
        yield refused("LayerNormalization", [ones(2, 3), scale], outputs=3)
        yield refused("RMSNormalization", [ones(2, 3), scale], opset=23)
        yield refused("SimplifiedLayerNormalization", [ones(2, 3), scale])
    for axis in (-3, -(2**63)):
        yield refused("LayerNormalization", [ones(2, 3), ones(2, 3)], axis=axis)
        yield refused("RMSNormalization", [ones(2, 3), ones(2, 3)], opset=23, axis=axis)
        yield refused("SimplifiedLayerNormalization", [ones(2, 3), ones(2, 3)], axis=axis)
    yield gives([[0, 0], [0, 0]], "LayerNormalization", [ones(2, 2), full(5, 2, 1)])


def statistics() -> Iterator[Node]:
    """Parameters of a batch normalization that are not one for each channel."""
    x, four = ones(2, 4, 3), ones(4)
    for bad in (ones(1), ones(4, 1), ones(2, 2), full(1)):
        for place in range(1, 5):
            inputs = [x, four, four, four, four]
            inputs[place] = bad
            yield refused("BatchNormalization", inputs, opset=15)
            yield refused("BatchNormalization", inputs, opset=9)
            yield refused("BatchNormalization", inputs, opset=15, outputs=3, training_mode=1)


def attention() -> Iterator[Node]:
    """Heads that the values cannot be cut into, samples, pasts and counts of other sizes."""
    qkv, x, two, long = [ones(1, 2, 4)] * 3, ones(1, 1, 2, 2), ones(2, 1, 2, 2), ones(1, 1, 3, 2)
    heads = ones(1, 2, 2, 2)
    own: dict[str, Any] = {"opset": 23}
    yield refused("Attention", qkv, **own, q_num_heads=0, kv_num_heads=0)
    yield refused("Attention", qkv, **own, q_num_heads=3, kv_num_heads=2)
    yield refused("Attention", [x, x, x], **own, q_num_heads=1, kv_num_heads=2)
    yield refused("Attention", [x, ones(1, 2, 2), ones(1, 2, 2)], **own, kv_num_heads=1)
    yield refused("Attention", [ones(2, 2)] * 3, **own, q_num_heads=1, kv_num_heads=1)
    for q, k, v in ((two, x, x), (two, two, x), (x, two, two), (x, long, x), (heads, heads, x)):
        yield refused("Attention", [q, k, v], **own)
        yield refused("Attention", [q, k, v], **own, outputs=4)
    yield refused("Attention", [x, heads, heads], **own, outputs=4)
    yield refused("Attention", [x, x, x, None, long], **own)
    yield refused("Attention", [x, x, x, None, None, long], **own)
    yield refused("Attention", [x, x, x, None, long, x], **own)
    yield refused("Attention", [x, x, x, None, x, x, i(2)], opset=24)
    yield refused("Attention", [two, two, two, None, None, None, i(1)], opset=24)
    yield refused("Attention", [two, two, two, None, None, None, i(1, 2)[:, None]], opset=24)


def scores() -> Iterator[Node]:
    """Masks that do not fit the scores, and steps and scales of which there are no such."""
    x = ones(1, 1, 2, 2)
    for shape in ((2, 5), (3, 2), (2, 1, 2, 2), (1, 3, 2, 2), (1, 1, 1, 2, 2)):
        for mask in (ones(*shape), ones(*shape) > 0):
            yield refused("Attention", [x, x, x, mask], opset=23)
            yield refused("Attention", [x, x, x, mask], opset=23, outputs=4)
    for mode in (-1, 4):
        yield refused("Attention", [x, x, x], opset=23, outputs=4, qk_matmul_output_mode=mode)
    yield refused("Attention", [x, x, x], opset=23, scale=-1.0)
    yield gives([[[[1, 1], [1, 1]]]], "Attention", [x, x, x, ones(1, 2)], opset=23)


def rotations() -> Iterator[Node]:
    """Positions beyond the tables, and tables for other places, samples and channels."""
    x, table, odd = ones(2, 1, 3, 4), ones(5, 2), ones(5, 1)
    at = np.zeros((2, 3), np.int64)
    own: dict[str, Any] = {"opset": 23}
    for bad in (at + 9, at - 9, at[:1], at[:, :1], at[0]):
        yield refused("RotaryEmbedding", [x, table, table, bad], **own)
    for bad in (ones(2, 3, 1), ones(1, 3, 2), ones(2, 1, 2), ones(3, 2)):
        yield refused("RotaryEmbedding", [x, bad, bad], **own)
        yield refused("RotaryEmbedding", [x, bad, ones(2, 3, 2)], **own)
        yield refused("RotaryEmbedding", [x, ones(2, 3, 2), bad], **own)
    yield refused("RotaryEmbedding", [x, table, ones(9, 2), at], **own)
    yield refused("RotaryEmbedding", [x, odd, odd, at], **own, rotary_embedding_dim=3)
    yield refused("RotaryEmbedding", [x, table, table, at], **own, rotary_embedding_dim=8)
    yield refused("RotaryEmbedding", [x, odd, odd, at], **own, rotary_embedding_dim=-2)
    yield refused("RotaryEmbedding", [ones(3, 4), table, table, at], **own, num_heads=1)


def matrices() -> Iterator[Node]:
    """One that is not square has no determinant; Gemm multiplies no vectors and no batches."""
    yield refused("Det", [ones(2, 3)])
    for a, b in ((ones(2, 1, 2), ones(2, 1)), (ones(2), ones(2, 1)), (ones(1, 2), ones(2))):
        for alpha in (1.0, 2.0):
            yield refused("Gemm", [a, b], alpha=alpha)
            yield refused("Gemm", [a.astype(I32), b.astype(I32)], alpha=alpha)
    two, many = np.ones((2, 2), I32), np.ones((4, 2, 2), I32)
    yield refused("Gemm", [two, two, many])
    yield refused("Gemm", [two, two, many], alpha=0.5)
    yield refused("Clip", [f(1, 2), ones(2)])
    yield refused("Clip", [f(1, 2), None, ones(4, 2)])
    yield gives([2, 2], "Clip", [f(1, 2), f(2)])


def images() -> Iterator[Node]:
    """Files of a few bytes that say they are large, or are none."""
    for header in (b"P6 99999 99999 255\n123", b"P6 12000 12000 255\n123"):
        yield refused("ImageDecoder", [np.frombuffer(header, U8)], opset=20)
    yield either("ImageDecoder", [i(1, 2, 3, dtype=U8)], opset=20)
    yield refused("ImageDecoder", [i(1, 2, 3, dtype=U8)], opset=20, pixel_format="evil")


GROUPS = (
    numbers_in_text,
    casts,
    strings,
    quantized,
    lstm,
    gru_and_rnn,
    sequences,
    boxes,
    normalization,
    statistics,
    attention,
    scores,
    rotations,
    matrices,
    images,
)

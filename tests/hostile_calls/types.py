"""Text, types and layers whose parts do not fit together."""

from __future__ import annotations

import numpy as np
import onnx

from tests.hostile_calls.one_node import ANY, INF, NAN, REFUSED, SCALAR, Node, f, i, ones


def nodes() -> list[Node]:
    """Each with what must become of it."""
    words = np.array(["a"], dtype=object)
    T = onnx.TensorProto
    found = [
        Node("Cast", [np.array([text], dtype=object)], {"to": T.INT64}, REFUSED)
        for text in ("1e999", "", "x", "9" * 30, "9" * 5000, "nan", "0x10")
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
        Node(
            "StringConcat",
            [words, np.array(["b", "c", "d"], dtype=object)[None].repeat(2, 0)[:, :3]],
            {},
            [["ab", "ac", "ad"]] * 2,
            20,
        ),
        Node(
            "StringConcat",
            [np.array(["a", "b"], dtype=object), np.array(["b", "c", "d"], dtype=object)],
            {},
            REFUSED,
            20,
        ),
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
        Node(
            "LSTM",
            [ones(2, 1, 3), ones(1, 8, 3), ones(1, 8, 2), ones(1, 3)],
            {"hidden_size": 2},
            REFUSED,
        ),
        Node(
            "LSTM", [ones(2, 1, 3), ones(1, 8, 3), ones(1, 8, 2)], {"hidden_size": 2**40}, REFUSED
        ),
        Node("LSTM", [ones(2, 1, 3), ones(1, 8, 3), ones(1, 8, 2)], {"hidden_size": -2}, REFUSED),
        Node(
            "LSTM",
            [ones(2, 1, 3), ones(1, 8, 3), ones(1, 8, 2), None, i(9, dtype=np.int32)],
            {"hidden_size": 2},
            REFUSED,
        ),
        Node(
            "LSTM",
            [ones(2, 1, 3), ones(1, 8, 3), ones(1, 8, 2), None, i(-9, dtype=np.int32)],
            {"hidden_size": 2},
            REFUSED,
        ),
        Node(
            "LSTM",
            [ones(2, 1, 3), ones(1, 8, 3), ones(1, 8, 2), None, None, ones(1, 1, 5)],
            {"hidden_size": 2},
            REFUSED,
        ),
        Node(
            "LSTM",
            [ones(2, 1, 3), ones(1, 8, 3), ones(1, 8, 2)],
            {"activations": ["Evil"] * 3},
            REFUSED,
        ),
        Node("LSTM", [ones(2, 1, 3), ones(1, 8, 3), ones(1, 8, 2)], {"direction": "evil"}, REFUSED),
        Node(
            "GRU",
            [ones(2, 1, 3), ones(1, 6, 3), ones(1, 6, 2), None, i(9, dtype=np.int32)],
            {"hidden_size": 2, "linear_before_reset": 1},
            REFUSED,
        ),
        Node(
            "GRU",
            [ones(2, 1, 3), ones(1, 6, 3), ones(1, 6, 2), None, i(-9, dtype=np.int32)],
            {"hidden_size": 2},
            REFUSED,
        ),
        Node(
            "RNN",
            [ones(2, 1, 3), ones(1, 2, 3), ones(1, 2, 2), None, i(9, dtype=np.int32)],
            {"hidden_size": 2},
            REFUSED,
        ),
        Node(
            "RNN",
            [ones(2, 1, 3), ones(1, 2, 3), ones(1, 2, 2), None, i(9, 9, dtype=np.int32)],
            {"hidden_size": 2},
            REFUSED,
        ),
        Node("RNN", [ones(0, 1, 3), ones(1, 2, 3), ones(1, 2, 2)], {"hidden_size": 2}, ANY),
        Node("NonMaxSuppression", [ones(1, 3, 4), ones(1, 1, 5), SCALAR(3)], {}, REFUSED, 11),
        Node(
            "NonMaxSuppression",
            [np.full((1, 3, 4), NAN, np.float32), np.full((1, 1, 3), NAN, np.float32), SCALAR(3)],
            {},
            ANY,
            11,
        ),
        Node("NonMaxSuppression", [ones(1, 3, 4), ones(1, 1, 3), SCALAR(-3)], {}, ANY, 11),
        Node("NonMaxSuppression", [ones(1, 3, 4), ones(1, 1, 3), SCALAR(2**63 - 1)], {}, ANY, 11),
        Node(
            "BatchNormalization",
            [ones(1, 4, 2), ones(3), ones(4), ones(4), ones(4)],
            {},
            REFUSED,
            15,
        ),
        Node("LayerNormalization", [ones(2, 3), ones(7)], {}, REFUSED),
        Node("LayerNormalization", [ones(2, 3), ones(3)], {"axis": 9}, REFUSED),
        Node(
            "Attention",
            [ones(1, 2, 4), ones(1, 2, 4), ones(1, 2, 4)],
            {"q_num_heads": 0, "kv_num_heads": 0},
            REFUSED,
            23,
        ),
        Node(
            "Attention",
            [ones(1, 2, 4), ones(1, 2, 4), ones(1, 2, 4)],
            {"q_num_heads": 3, "kv_num_heads": 2},
            REFUSED,
            23,
        ),
        Node(
            "RotaryEmbedding",
            [ones(1, 1, 2, 4), ones(2, 2), ones(2, 2), i(9, 9)[None]],
            {},
            REFUSED,
            23,
        ),
        Node(
            "RotaryEmbedding",
            [ones(1, 1, 2, 4), ones(2, 2), ones(2, 2), i(-9, 1)[None]],
            {},
            REFUSED,
            23,
        ),
        Node("Det", [ones(2, 3)], {}, REFUSED),
        Node(
            "ImageDecoder", [np.frombuffer(b"P6 99999 99999 255\n123", np.uint8)], {}, REFUSED, 20
        ),
        Node(
            "ImageDecoder", [np.frombuffer(b"P6 12000 12000 255\n123", np.uint8)], {}, REFUSED, 20
        ),
        Node("ImageDecoder", [np.uint8([1, 2, 3])], {}, ANY, 20),
        Node("ImageDecoder", [np.uint8([1, 2, 3])], {"pixel_format": "evil"}, REFUSED, 20),
    ]
    return found

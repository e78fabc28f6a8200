"""Arithmetic at the ends of integers."""

from __future__ import annotations

import numpy as np

from tests.hostile_calls.one_node import ANY, REFUSED, SCALAR, Node, i


def nodes() -> list[Node]:
    """Each with what must become of it."""
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

"""Arithmetic at the ends of integers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tests.untrusted.calls.one_node import SCALAR, Node, either, gives, i, refused

U8, U32, U64 = np.uint8, np.uint32, np.uint64


def lowest() -> Iterator[Node]:
    """The lowest number of a type, which has no opposite, and divisors of zero."""
    for kind in (np.int8, np.int16, np.int32, np.int64):
        low = int(np.iinfo(kind).min)
        a, b, zero = i(low, dtype=kind), i(-1, dtype=kind), i(0, dtype=kind)
        yield gives([low], "Div", [a, b])
        yield gives([low] * 70, "Div", [np.full(70, low, dtype=kind), b])
        yield gives([low], "Div", [a, b.reshape(())])
        yield refused("Div", [a, zero])
        yield gives([0], "Mod", [a, b])
        yield gives([0], "Mod", [a, b], fmod=1)
        yield refused("Mod", [a, zero])
        yield refused("Mod", [a, zero], fmod=1)
        yield gives([low], "Abs", [a])
        yield gives([low], "Neg", [a])


def overflow() -> Iterator[Node]:
    """Results beyond a type wrap round, as in C; a mean of nothing is none."""
    for kind in (np.int32, np.int64):
        low, most = int(np.iinfo(kind).min), int(np.iinfo(kind).max)
        a = i(low, dtype=kind)
        yield either("Pow", [a, i(-1, dtype=kind)])
        yield gives([0], "Pow", [i(2, dtype=kind), i(10**6, dtype=kind)])
        yield either("Pow", [i(3, dtype=kind), i(2**31 - 1, dtype=kind)])
        yield gives([low], "Add", [i(most, dtype=kind), i(1, dtype=kind)])
        yield gives([most], "Sub", [a, i(1, dtype=kind)])
        yield gives([-2], "Mul", [i(most, dtype=kind), i(2, dtype=kind)])
        yield gives(low, "ReduceSum", [i(most, 1, dtype=kind)], keepdims=0)
        yield gives(-2, "ReduceProd", [i(most, 2, dtype=kind)], keepdims=0)
        yield gives(0, "ReduceMean", [i(dtype=kind)], keepdims=0)
        yield gives(low, "ReduceMax", [i(dtype=kind)], keepdims=0)
        yield gives([low], "Sum", [i(most, dtype=kind), i(1, dtype=kind)], opset=13)


def unsigned_by_zero() -> Iterator[Node]:
    """Division of unsigned integers by zero."""
    yield either("Div", [i(8, dtype=U64), i(0, dtype=U64)])
    yield refused("Mod", [i(8, dtype=U32), i(0, dtype=U32)])
    yield refused("Div", [i(8, dtype=U8), i(0, dtype=U8)])


def shifts() -> Iterator[Node]:
    """A shift by as many bits as there are, or more, leaves none."""
    yield gives([0], "BitShift", [i(1, dtype=U32), i(99, dtype=U32)], direction="LEFT")
    yield gives([0], "BitShift", [i(1, dtype=U64), i(64, dtype=U64)], direction="LEFT")
    yield gives([0], "BitShift", [i(2**63, dtype=U64), i(2**63, dtype=U64)], direction="RIGHT")
    yield gives([0], "BitShift", [i(255, dtype=U8), i(8, dtype=U8)], direction="RIGHT")
    yield gives([0], "BitShift", [i(255, dtype=U8), i(8, dtype=U8)], direction="LEFT")
    yield refused("BitShift", [i(255, dtype=U8), i(8, dtype=U8)], direction="UP")


def axes() -> Iterator[Node]:
    """An axis that is not there."""
    yield refused("CumSum", [i(1, 2), SCALAR(5)])


GROUPS = (lowest, overflow, unsigned_by_zero, shifts, axes)

"""Packed weights whose sizes lie, and products, gathers and experts that do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.untrusted.calls.one_node import REFUSED, Node, f, gives, i

DOMAIN = "com.microsoft"


def u(*shape: int) -> Any:
    """Bytes of 0x88: numbers of 4 bits that mean 0."""
    return np.full(shape, 0x88, np.uint8)


def _product(expected: Any = REFUSED, *inputs: Any, **changes: Any) -> Node:
    given = inputs or (f([1.0] * 16), u(2, 1, 8), f([1.0], [1.0]))
    attributes = {"K": 16, "N": 2, "block_size": 16, **changes}
    return gives(expected, "MatMulNBits", list(given), opset=1, domain=DOMAIN, **attributes)


def products() -> Iterator[Node]:
    """Sizes, blocks and zero points that contradict each other."""
    yield _product([[0.0, 0.0]])
    for changes in (
        {"K": 17},
        {"K": 0},
        {"K": -16},
        {"K": 2**40},
        {"N": 3},
        {"N": -2},
        {"block_size": 0},
        {"block_size": -16},
        {"block_size": 8},
        {"block_size": 24},
        {"block_size": 2**40},
        {"bits": 3},
        {"bits": 0},
        {"bits": 8},
        {"weight_prepacked": 1},
    ):
        yield _product(REFUSED, **changes)
    a, s = f([1.0] * 16), f([1.0], [1.0])
    yield _product(REFUSED, a, u(2, 16), s)
    yield _product(REFUSED, a, u(2, 1, 7), s)
    yield _product(REFUSED, a, u(2, 1, 8), f([1.0, 1.0], [1.0, 1.0]))
    yield _product(REFUSED, a, u(2, 1, 8), s, u(2, 2))
    yield _product(REFUSED, a, u(2, 1, 8), s, f([1.0, 1.0]))
    yield _product(REFUSED, a, u(2, 1, 8), s, None, np.full(16, 7, np.int32))
    yield _product(REFUSED, a, u(2, 1, 8), s, None, np.full(16, -1, np.int32))
    yield _product(REFUSED, a, u(2, 1, 8), s, None, np.zeros(3, np.int32))
    yield _product(REFUSED, a, u(2, 1, 8), s, None, None, f([1.0]))
    yield _product(REFUSED, np.float32(1), u(2, 1, 8), s)


def _bnb4(expected: Any, packed: Any, absmax: Any, **changes: Any) -> Node:
    attributes = {"K": 16, "N": 1, "block_size": 16, "quant_type": 1, **changes}
    inputs = [f([1.0] * 16), packed, absmax]
    return gives(expected, "MatMulBnb4", inputs, opset=1, domain=DOMAIN, **attributes)


def code_products() -> Iterator[Node]:
    """Bytes and scales of other counts."""
    right = np.full(8, 0x77, np.uint8), np.ones(1, np.float32)
    yield _bnb4([[0.0]], *right)
    yield _bnb4(REFUSED, right[0][:7], right[1])
    yield _bnb4(REFUSED, right[0], np.ones(2, np.float32))
    for changes in ({"quant_type": 2}, {"block_size": 0}, {"K": -16}, {"N": 2**40}, {"transB": 0}):
        yield _bnb4(REFUSED, *right, **changes)


def _gather(expected: Any, inputs: list[Any], **changes: Any) -> Node:
    attributes = {"block_size": 16, **changes}
    return gives(expected, "GatherBlockQuantized", inputs, opset=1, domain=DOMAIN, **attributes)


def gathers() -> Iterator[Node]:
    """Axes, blocks and scales that do not fit; indices out of range are zeros."""
    data, scales = u(2, 8), f([1.0], [1.0])
    yield _gather([[0.0] * 16] * 3, [data, i(0, 9, -9), scales])
    for changes in (
        {"gather_axis": 1},
        {"quantize_axis": 0},
        {"quantize_axis": 7},
        {"gather_axis": -9},
        {"block_size": 0},
        {"block_size": 12},
        {"bits": 5},
    ):
        yield _gather(REFUSED, [data, i(0), scales], **changes)
    yield _gather(REFUSED, [data, i(0), f([1.0, 1.0], [1.0, 1.0])])
    yield _gather(REFUSED, [data, i(0), f([1.0])])
    yield _gather(REFUSED, [data, i(0), scales, u(2, 2)])


def _rows(expected: Any, data: Any, indices: Any, **changes: Any) -> Node:
    attributes = {"K": 32, "packed_type": 2, "output_dtype": 1, **changes}
    return gives(expected, "GatherPacked", [data, indices], opset=1, domain=DOMAIN, **attributes)


def packed_rows() -> Iterator[Node]:
    """Rows of other sizes, and formats that are none."""
    row = np.full((1, 18), 0x88, np.uint8)
    yield _rows([[0.0] * 32] * 3, row, i(0, 5, -1))
    for changes in ({"K": 64}, {"K": 0}, {"K": -32}, {"K": 33}, {"packed_type": 99}):
        yield _rows(REFUSED, row, i(0), **changes)
    yield _rows(REFUSED, row[0], i(0))
    yield _rows(REFUSED, row[:0], i(0))


def _experts(expected: Any, *inputs: Any, **changes: Any) -> Node:
    given = inputs or (f([1.0]), f([1.0, 2.0]), np.ones((2, 1, 1), np.float32), None)
    given = given if len(given) > 4 else (*given, np.ones((2, 1, 1), np.float32))
    return gives(expected, "MoE", list(given), opset=1, domain=DOMAIN, **changes)


def experts() -> Iterator[Node]:
    """Counts of experts, tokens and matrices that differ."""
    yield _experts([[1.0]], normalize_routing_weights=1)
    for changes in (
        {"k": 0},
        {"k": 3},
        {"k": -1},
        {"activation_type": "evil"},
        {"activation_type": "swiglu"},
        {"use_sparse_mixer": 1},
    ):
        yield _experts(REFUSED, **changes)
    x, w = f([1.0]), np.ones((2, 1, 1), np.float32)
    yield _experts(REFUSED, x, f([1.0, 2.0, 3.0]), w, None, w)
    yield _experts(REFUSED, x, f([1.0, 2.0], [1.0, 2.0]), w, None, w)
    yield _experts(REFUSED, f([1.0, 1.0]), f([1.0, 2.0]), w, None, w)
    yield _experts(REFUSED, x, f([1.0, 2.0]), w[:1], None, w)
    yield _experts(REFUSED, x, f([1.0, 2.0]), w, np.ones((2, 3), np.float32), w)
    yield _experts(REFUSED, x, f([1.0, 2.0]), w, None, w, None, w)


GROUPS = (products, code_products, gathers, packed_rows, experts)

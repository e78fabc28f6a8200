"""Attentions of language models whose heads, lengths, caches and tables do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.untrusted.calls.one_node import Node, either, full, gives, i, ones, refused

I32 = np.int32
OWN: dict[str, Any] = {"opset": 1, "domain": "com.microsoft"}
HEADS: dict[str, Any] = {**OWN, "num_heads": 2, "kv_num_heads": 1}


def _step(length: int = 1, past: int = 4, total: int = 5, last: int = 4) -> list[Any]:
    """Queries of two heads of 8, keys and values of one, a past, and the lengths."""
    new = ones(1, length, 8)
    cache = ones(1, 1, past, 8)
    return [ones(1, length, 16), new, new, cache, cache, i(last, dtype=I32), np.array(total, I32)]


def _changed(place: int, value: Any, inputs: list[Any] | None = None) -> list[Any]:
    inputs = list(inputs or _step())
    inputs += [None] * (place + 1 - len(inputs))
    inputs[place] = value
    return inputs


def heads() -> Iterator[Node]:
    """Heads that divide neither each other nor the inputs."""
    yield gives([[[1] * 16]], "GroupQueryAttention", _step(), **HEADS)
    for count, own in ((3, 2), (0, 1), (2, 0), (-2, -1), (2**40, 1), (2, 2)):
        yield refused("GroupQueryAttention", _step(), **OWN, num_heads=count, kv_num_heads=own)
    for place in (1, 2):
        for bad in (ones(1, 1, 16), ones(1, 1, 7), ones(2, 1, 8), ones(1, 2, 8), ones(1, 8), None):
            yield refused("GroupQueryAttention", _changed(place, bad), **HEADS)
    yield refused("GroupQueryAttention", _changed(0, ones(1, 16)), **HEADS)
    packed: list[Any] = [ones(1, 1, 33), *[None] * 4, i(0, dtype=I32), np.array(1, I32)]
    yield refused("GroupQueryAttention", packed, **HEADS)


def caches() -> Iterator[Node]:
    """Pasts of other sizes, and lengths beyond them or below zero."""
    for place in (3, 4):
        for bad in (ones(2, 1, 4, 8), ones(1, 2, 4, 8), ones(1, 1, 4, 4), ones(1, 1, 3, 8), None):
            yield refused("GroupQueryAttention", _changed(place, bad), **HEADS)
    for total in (4 + 2, 2**31 - 1, 0, -1):
        yield refused("GroupQueryAttention", _step(total=total), **HEADS)
    for last in (-1, -(2**31), 5, 2**31 - 1):
        yield either("GroupQueryAttention", _step(last=last), **HEADS, outputs=3)
    yield refused("GroupQueryAttention", _changed(5, i(4, 4, dtype=I32)), **HEADS)
    yield refused("GroupQueryAttention", _changed(16, i(1, 1, dtype=I32)), **HEADS)
    window: dict[str, Any] = {**HEADS, "sliding_window_cache": 1}
    for size in (-1, 0, 5, 2**40):
        yield refused("GroupQueryAttention", _step(), **window, local_window_size=size)
    first = _changed(3, None, _changed(4, None, _step(total=1, last=0)))
    yield refused("GroupQueryAttention", first, **window, local_window_size=2)


def quantized() -> Iterator[Node]:
    """Caches of integers without scales, or with scales of other sizes."""
    cache = np.ones((1, 1, 4, 8), np.int8)
    inputs = _changed(3, cache, _changed(4, cache))
    eight: dict[str, Any] = {**HEADS, "kv_cache_bit_width": 8}
    tensor = {"k_quant_type": "PER_TENSOR", "v_quant_type": "PER_TENSOR"}
    channel = {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL"}
    yield refused("GroupQueryAttention", inputs, **HEADS)
    yield refused("GroupQueryAttention", inputs, **eight)
    yield refused("GroupQueryAttention", inputs, **eight, **tensor)
    for bad, kind in ((ones(3), channel), (ones(8), tensor), (ones(0), tensor)):
        scaled = _changed(12, bad, _changed(13, bad, inputs))
        yield refused("GroupQueryAttention", scaled, **eight, **kind)
    scaled = _changed(12, ones(1), _changed(13, ones(1), inputs))
    for bits in (0, 3, 16):
        yield refused("GroupQueryAttention", scaled, **HEADS, **tensor, kv_cache_bit_width=bits)


def rotations() -> Iterator[Node]:
    """Positions beyond the tables, and tables of other sizes."""
    x, table, at = ones(1, 2, 8), ones(3, 4), np.zeros((1, 2), np.int64)
    for bad in (at + 3, at - 1, at[0], at[:, :1], i(2)):
        yield refused("RotaryEmbedding", [x, bad, table, table], **OWN)
    for cos, sin in ((ones(3, 5), ones(3, 5)), (table, ones(2, 4)), (ones(4), ones(4))):
        yield refused("RotaryEmbedding", [x, at, cos, sin], **OWN)
    yield refused("RotaryEmbedding", [x, at, table, table], **OWN, num_heads=3)
    yield refused("RotaryEmbedding", [x, at, table, table], **OWN, rotary_embedding_dim=6)
    rotated: dict[str, Any] = {**HEADS, "do_rotary": 1}
    yield refused("GroupQueryAttention", _step(), **rotated)
    for cos, sin in ((ones(4, 4), ones(4, 4)), (ones(9, 5), ones(9, 5)), (ones(9, 4), ones(9, 2))):
        yield refused("GroupQueryAttention", _changed(7, cos, _changed(8, sin)), **rotated)
    tables = _changed(7, ones(9, 4), _changed(8, ones(9, 4)))
    for bad in (np.array([[9]]), np.array([[-1]]), np.array([[0, 1]]), i(0)):
        yield refused("GroupQueryAttention", _changed(9, bad, tables), **rotated)
    streams, section = np.zeros((3, 1, 2), np.int64), [2, 1, 1]
    inputs: list[Any] = [x, streams, table, table]
    for bad_section in ([4], [2, 2, 2], [5, -1, 0], [2**40, 0, 0]):
        yield refused("MRotaryEmbedding", inputs, **OWN, num_heads=1, mrope_section=bad_section)
    for bad in (streams[:2], streams + 3, streams[0]):
        yield refused(
            "MRotaryEmbedding", _changed(1, bad, inputs), **OWN, num_heads=1, mrope_section=section
        )


def scores() -> Iterator[Node]:
    """Biases and sinks of other sizes."""
    for shape in ((1, 1, 1, 4), (1, 1, 1, 1), (1, 3, 1, 5), (2, 1, 1, 5), (5,), (1, 1, 2, 5)):
        yield refused("GroupQueryAttention", _changed(10, ones(*shape)), **HEADS)
    for sink in (ones(1), ones(3), ones(2, 1)):
        yield refused("GroupQueryAttention", _changed(11, sink), **HEADS)
    for place in (14, 15):
        yield refused("GroupQueryAttention", _changed(place, ones(8)), **HEADS)
    huge = _changed(10, full(3e38, 1, 1, 1, 5))
    yield either("GroupQueryAttention", huge, **HEADS)


def sequences() -> Iterator[Node]:
    """Ends of sequences that are in no order, below zero or beyond the tokens."""
    x, filters, state = ones(4, 2), ones(2, 1, 2), ones(1, 2, 1)
    for ends in ((0, 9), (-5, 4), (4, 0), (3, 3)):
        inputs = [x, filters, i(*ends, dtype=I32), None, state]
        yield either("VarlenCausalConvWithState", inputs, **OWN, outputs=2)
    for wrong in (i(0, dtype=I32), i(0, 2, 4, dtype=I32)):
        yield refused(
            "VarlenCausalConvWithState", [x, filters, wrong, None, state], **OWN, outputs=2
        )
    ids, ends = i(1, 2, 3), i(0, 3, dtype=I32)
    sizes: dict[str, Any] = {**OWN, "max_ngram_size": 2, "n_head_per_ngram": 1, "pad_id": 0}
    yield gives([[1], [3], [1]], "VarlenNGramHashMapping", [ids, i(1, 1), i(7), ends], **sizes)
    for multipliers, tables in ((i(1), i(7)), (i(1, 1), i(7, 7)), (i(1, 1), i(0))):
        yield refused("VarlenNGramHashMapping", [ids, multipliers, tables, ends], **sizes)


GROUPS = (heads, caches, quantized, rotations, scores, sequences)

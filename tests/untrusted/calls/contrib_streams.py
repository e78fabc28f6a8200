"""Gates, streams, sparse and linear attentions and fused projections whose parts do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.untrusted.calls.one_node import Node, either, f, full, gives, i, ones, refused

I32 = np.int32
OWN: dict[str, Any] = {"opset": 1, "domain": "com.microsoft"}


def _changed(place: int, value: Any, inputs: list[Any]) -> list[Any]:
    inputs = [*inputs, *[None] * (place + 1 - len(inputs))]
    inputs[place] = value
    return inputs


def gates() -> Iterator[Node]:
    """Scales and gates of other sizes, and experts that there are not."""
    yield refused("ScaledSiLU", [ones(2, 3), ones(3)], **OWN)
    yield refused("SwiGLU", [ones(2, 3)], **OWN)
    yield refused("SwiGLU", [ones(2, 3), ones(3)], **OWN)
    yield refused("GatedAdd", [ones(2, 3), ones(2, 3), ones(2, 3)], **OWN)
    yield refused("GatedAdd", [ones(2, 3), ones(3), ones(2, 1)], **OWN)
    for scale in (ones(4), ones(0), ones(2, 3), full(1)):
        yield refused("GatedRMSNorm", [ones(2, 3), scale, ones(2, 3)], **OWN)
    yield refused("GatedRMSNorm", [ones(2, 3), ones(3), ones(3)], **OWN)
    yield refused("GatedRMSNorm", [ones(2, 3), ones(3), ones(2, 3)], **OWN, activation="evil")
    for count in (-1, 2, 2**40):
        yield refused("BranchwiseRMSNorm", [ones(2, 3)], **OWN, num_branches=count)
    yield refused("BranchwiseRMSNorm", [ones(2, 3), ones(2)], **OWN)
    for top in (-1, 0, 3, 2**40):
        yield refused("MoEGroupRouter", [ones(1, 2), ones(2)], **OWN, top_k=top)


def streams() -> Iterator[Node]:
    """Streams that are no multiple of the branches, and mixtures of other sizes."""
    yield gives([[2.0, 2.0]], "HyperConnectionPreMix", [ones(1, 2, 2), ones(1, 2)], **OWN)
    for mix in (ones(1, 3), ones(2), ones(1, 4), ones(1, 2, 3)):
        yield refused("HyperConnectionPreMix", [ones(1, 2, 2), mix], **OWN)
    for count in (-1, 3, 2**40):
        yield refused("HyperConnectionPreMix", [ones(1, 4), ones(1, 2)], **OWN, num_branches=count)
    post = [ones(1, 2, 2), ones(1, 2), ones(1, 2)]
    for place, bad in ((1, ones(1, 3)), (1, ones(2)), (2, ones(1, 3)), (3, ones(1, 2, 3))):
        yield refused("HyperConnectionPostMix", _changed(place, bad, post), **OWN)
    mixed: list[Any] = [ones(1, 4), ones(4), ones(4, 1), ones(1, 4), ones(4, 2)]
    own: dict[str, Any] = {**OWN, "num_branches": 2, "outputs": 2}
    for count in (-2, 0, 3):
        changes = {**own, "num_branches": count}
        yield refused("HyperConnectionLowRankMix", mixed, **changes)
    yield refused("HyperConnectionLowRankMix", mixed, **own, gate_div=0.0)
    for place in range(1, 5):
        for bad in (ones(1), ones(4, 4), full(1)):
            yield refused("HyperConnectionLowRankMix", _changed(place, bad, mixed), **own)
    for place in (5, 6):
        yield refused("HyperConnectionLowRankMix", _changed(place, ones(1, 2), mixed), **own)


def sparse() -> Iterator[Node]:
    """Heads, buffers and layouts that contradict each other; blocks beyond the layout."""
    cache, new = ones(1, 1, 4, 8), ones(1, 1, 8)
    layout = [i(0, 1, dtype=I32)[None], i(0, dtype=I32)[None]]
    totals: list[Any] = [np.array(1, I32), i(1, dtype=I32)]
    inputs: list[Any] = [new, new, new, cache, cache, *layout, *totals]
    own: dict[str, Any] = {**OWN, "outputs": 3, "num_heads": 1, "kv_num_heads": 1}
    for block in (-1, 0, 3, 2**40):
        yield either("SparseAttention", inputs, **own, sparse_block_size=block)
    for heads in (-1, 0, 3, 2**40):
        changes = {**own, "num_heads": heads}
        yield refused("SparseAttention", inputs, **changes, sparse_block_size=4)
    for place, bad in ((3, None), (4, ones(1, 1, 3, 8)), (3, ones(2, 1, 4, 8)), (5, None)):
        changed = _changed(place, bad, inputs)
        yield refused("SparseAttention", changed, **own, sparse_block_size=4)
    for place, value in ((7, 2**31 - 1), (7, -1), (8, 2**31 - 1), (8, -1)):
        bad = np.full(inputs[place].shape, value, I32)
        yield either("SparseAttention", _changed(place, bad, inputs), **own, sparse_block_size=4)
    for place in (5, 6):
        bad = np.full(inputs[place].shape, 2**31 - 1, I32)
        yield either("SparseAttention", _changed(place, bad, inputs), **own, sparse_block_size=4)


def recurrences() -> Iterator[Node]:
    """Heads, states and ends of sequences that do not fit."""
    x = ones(3, 2, 4)
    ends, gate, state = i(0, 3, dtype=I32), ones(3, 2), ones(1, 2, 4, 4)
    inputs: list[Any] = [x, x, x, ends, gate, gate, state]
    own: dict[str, Any] = {**OWN, "outputs": 2}
    for place, bad in (
        (0, ones(3, 4)),
        (1, ones(2, 2, 4)),
        (2, ones(3, 3, 4)),
        (4, ones(3, 3)),
        (5, ones(2, 2)),
        (6, ones(2, 2, 4, 4)),
        (6, ones(1, 2, 4, 3)),
    ):
        yield refused("GatedDeltaNet", _changed(place, bad, inputs), **own)
    for bad in ((0, 9), (3, 0), (-1, 3), (2**31 - 1, 3)):
        yield either("GatedDeltaNet", _changed(3, i(*bad, dtype=I32), inputs), **own)
    for size in (-1, 0, 2**40):
        yield either("GatedDeltaNet", inputs, **own, chunk_size=size)
    yield refused("GatedDeltaNet", inputs, **own, update_rule="evil")


def projections() -> Iterator[Node]:
    """Norms, sums and adapters that are not there, and small floats of other sizes."""
    packed, scales, x = np.full((2, 1, 8), 0x88, np.uint8), ones(2, 1), ones(1, 16)
    own: dict[str, Any] = {**OWN, "K": 16, "N": 2, "block_size": 16}
    weights = [packed, scales, None, packed, scales]
    mlp = {**own, "activation": "silu"}
    yield gives([[0.0, 0.0]], "MatMulNBitsMlp", [x, None, None, *weights], **mlp)
    yield refused("MatMulNBitsMlp", [x, None, None, *weights], **mlp, outputs=2)
    yield refused("MatMulNBitsMlp", [x, x, None, *weights], **mlp)
    yield refused("MatMulNBitsMlp", [x, None, ones(1), *weights], **mlp)
    yield refused("MatMulNBitsMlp", [x, None, None, *weights], **own, activation="evil")
    lora: list[Any] = [x, packed, scales, packed, scales, np.zeros((2, 1, 8), np.uint8), scales]
    adapters = {**own, "lora_bits": 4, "lora_block_size": 16}
    yield gives([[0.0, 0.0]], "MatMulNBitsQLoRA", lora, **adapters)
    for place, bad in ((4, ones(3, 1)), (4, ones(2)), (5, packed[0]), (6, ones(2, 2))):
        yield refused("MatMulNBitsQLoRA", _changed(place, bad, lora), **adapters)
    for size in (0, -16, 2**40):
        yield refused("MatMulNBitsQLoRA", lora, **{**adapters, "lora_block_size": size})
    half, four = np.ones((1, 4), np.float16), np.full((2, 2), 0x22, np.uint8)
    of_block, one = np.full((2, 1), 0x38, np.uint8), full(1)
    small: list[Any] = [half, four, of_block, one]
    name = "MatMulBlockQuantizedFp4Weight"
    yield gives([[4.0, 4.0]], name, small, **OWN, block_size=2**40)
    for size in (0, -1, 1):
        yield refused(name, small, **OWN, block_size=size)
    for place, bad in ((0, half[:, :3]), (1, four[0]), (2, of_block[:1]), (3, f(1, 1))):
        yield refused(name, _changed(place, bad, small), **OWN)
    yield refused(name, _changed(5, np.ones(1, np.float16), small), **OWN)


def windows() -> Iterator[Node]:
    """Flags and masks of other sizes, and windows of no token."""
    x, flags = ones(1, 2, 2), np.zeros((1, 2), I32)
    inputs: list[Any] = [x, ones(2, 6), ones(6), full(0, 1, 2), ones(2, 6), ones(6), flags]
    own: dict[str, Any] = {**OWN, "num_heads": 1}
    for window in (-1, 0):
        yield refused("LongformerAttention", inputs, **own, window=window)
    yield gives([[[3.0, 3.0], [3.0, 3.0]]], "LongformerAttention", inputs, **own, window=2**40)
    for heads in (-1, 0, 3):
        yield refused("LongformerAttention", inputs, **OWN, num_heads=heads, window=1)
    for place, bad in ((1, ones(3, 2, 2)), (2, ones(10)), (3, full(0, 2)), (4, ones(2, 3))):
        yield refused("LongformerAttention", _changed(place, bad, inputs), **own, window=1)
    yield refused("LongformerAttention", _changed(6, flags[:, :1], inputs), **own, window=1)


GROUPS = (gates, streams, sparse, recurrences, projections, windows)

"""Attention of onnxruntime: heads, caches, masks and packings that do not fit together."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from tests.untrusted.calls import one_node
from tests.untrusted.calls.one_node import INF, NAN, Node, full, i, ones

refused = partial(one_node.refused, domain="com.microsoft", opset=1)
either = partial(one_node.either, domain="com.microsoft", opset=1)
gives = partial(one_node.gives, domain="com.microsoft", opset=1)
I32, MOST, LEAST = np.int32, 2**31 - 1, -(2**31)


def i32(*values: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    return np.array(values, dtype=I32)


X, W, B = ones(2, 3, 5), ones(5, 12), ones(12)  # hidden sizes of 4
Q = ones(2, 3, 4)
CACHE, PAST = ones(2, 2, 6, 2), ones(2, 2, 2, 6, 2)  # of 2 heads


def projections() -> Iterator[Node]:
    """Numbers of heads, hidden sizes, weights and biases."""
    for heads in (0, -1, 3, 8, MOST, -(2**63)):
        yield refused("Attention", [X, W, B], num_heads=heads)
        yield refused("MultiHeadAttention", [Q, Q, Q], num_heads=heads)
    for sizes in ([4, 4], [4, 4, 4, 0], [4, 4, 5], [6, 2, 4], [8, 8, -4], [0, 0, 12]):
        yield refused("Attention", [X, W, B], num_heads=2, qkv_hidden_sizes=sizes)
    for bias in (ones(1), ones(11), ones(1, 12), np.array(1, np.float32)):
        yield refused("Attention", [X, W, bias], num_heads=2)
        yield refused("MultiHeadAttention", [Q, Q, Q, bias], num_heads=2)
    for weights in (ones(5), ones(4, 12), ones(5, 11), ones(1, 5, 12), ones(5, 0)):
        yield refused("Attention", [X, weights], num_heads=1)
    for x in (ones(5), ones(3, 5), ones(1, 2, 3, 5)):
        yield refused("Attention", [x, W, B], num_heads=2)
    yield refused("Attention", [X, W, B], num_heads=2, do_rotary=1)
    yield refused("Attention", [X, W, B], num_heads=2, unidirectional=2)
    for scale in (NAN, INF, -INF, 1e38):
        yield either("Attention", [X, W, B], num_heads=2, scale=scale)
        yield either("Attention", [X, W, B, i32(1, 2)], num_heads=2, mask_filter_value=scale)


def masks() -> Iterator[Node]:
    """Shapes that torch would broadcast, and ends beyond the keys."""
    shapes = [(3,), (5,), (2, 2), (1, 3), (3, 3), (1, 3, 3), (2, 1, 3), (2, 3, 1), (2, 2, 3, 3)]
    shapes += [(2, 1, 2, 2), (1, 1, 3, 3), (2, 1, 3, 4), (1, 1, 1, 1, 3), (3, 1), ()]
    for shape in shapes:
        yield refused("Attention", [X, W, B, np.ones(shape, I32)], num_heads=2)
        yield refused("MultiHeadAttention", [Q, Q, Q, None, np.ones(shape, I32)], num_heads=2)
    same = [[[6.0] * 4] * 3] * 2  # the keys are alike: a mask changes nothing
    for ends in (i32(MOST, LEAST), i32(-1, 99), i32(0, 0), i32(2, 3, MOST, LEAST)):
        yield gives(same, "Attention", [X, W, B, ends], num_heads=2)
    for shape in ((3, 3), (2, 2, 3), (2, 2, 1, 3), (2, 2, 3, 1), (3, 2, 3, 3), (2, 3, 3, 3)):
        yield refused("Attention", [X, W, B, None, None, ones(*shape)], num_heads=2)
        yield refused("MultiHeadAttention", [Q, Q, Q, None, None, ones(*shape)], num_heads=2)


def caches() -> Iterator[Node]:
    """Caches of other sizes, and lengths beyond buffers."""
    attention = partial(refused, "Attention", num_heads=2, outputs=2)
    for past in (CACHE, ones(1, 2, 2, 6, 2), ones(3, 2, 2, 6, 2), ones(2, 1, 2, 6, 2)):
        yield attention([X, W, B, None, past])
    for past in (ones(2, 2, 1, 6, 2), ones(2, 2, 2, 6, 1), ones(2, 2, 2, 6, 4)):
        yield attention([X, W, B, None, past])
    for filled in (i32(4), i32(MOST), i32(-1), i32(LEAST), i32(1, 1), np.zeros(0, I32), None):
        inputs = [X, W, B, None, PAST, None, filled]
        yield attention(inputs, past_present_share_buffer=1)
    heads = partial(refused, "MultiHeadAttention", num_heads=2, outputs=3)
    new = [Q, Q, Q, None, None, None]
    yield heads([*new, CACHE])
    yield heads([*new, None, CACHE])
    for cache in (ones(1, 2, 6, 2), ones(2, 1, 6, 2), ones(2, 2, 6, 1), ones(2, 2, 6), PAST):
        yield heads([*new, cache, cache])
    for filled in (i32(4), i32(MOST), i32(-1), i32(LEAST), i32(1, 1)):
        yield heads([*new, CACHE, CACHE, filled])
    for sources in (i32(0, 0), np.zeros((1, 2, 5), I32), np.zeros((1, 3, 6), I32), full_of(2)):
        yield heads([*new, CACHE, CACHE, i32(2), sources])
    yield heads([*new, CACHE, CACHE, i32(2), full_of(-1)])
    yield heads([*new, CACHE, CACHE, i32(2), full_of(MOST)])


def full_of(beam: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    return np.full((1, 2, 6), beam, I32)


def keys() -> Iterator[Node]:
    """Queries, keys and values of sizes that torch would broadcast."""
    heads = partial(refused, "MultiHeadAttention", num_heads=2)
    yield heads([Q])
    yield heads([Q, Q])
    yield heads([Q, None, Q])
    for key in (ones(1, 3, 4), ones(2, 3, 2), ones(3, 4), ones(2, 2, 3, 2), ones(2, 3, 6)):
        yield heads([Q, key, Q])
    for value in (ones(1, 3, 4), ones(2, 1, 4), ones(2, 4, 4), ones(2, 3, 5), ones(4)):
        yield heads([Q, Q, value])
    for cached in (ones(2, 1, 3, 2), ones(1, 2, 3, 2), ones(2, 2, 3, 1), ones(2, 2, 3, 4)):
        yield heads([Q, cached, cached])
    yield heads([Q, CACHE, CACHE, None, None, None, CACHE, CACHE], outputs=3)
    for packed in (ones(2, 3, 2, 2, 2), ones(2, 3, 3, 3, 2), ones(2, 3, 12), ones(2, 3, 2, 3)):
        yield heads([packed])
    for packed in (ones(2, 3, 2, 3, 2), ones(2, 3, 1, 2, 4), ones(1, 3, 2, 2, 2)):
        yield heads([Q, packed])
    step = partial(refused, "DecoderMaskedMultiHeadAttention", num_heads=2)
    one = ones(2, 1, 4)
    yield step([Q, CACHE, CACHE])
    yield step([one, one, one])
    yield step([one, CACHE, CACHE, None, None, CACHE, CACHE], outputs=3)
    yield step([one, CACHE, CACHE, i32(1, 1)])
    yield step([one, CACHE, CACHE, np.ones((2, 5), I32)])
    yield step([ones(2, 1, 12), None, None, None, None, CACHE, CACHE, None, None, None, ones(1)])
    step = partial(step, outputs=3, past_present_share_buffer=1)
    for filled in (i32(6), i32(-1), i32(MOST), None):
        yield step([one, one, one, None, None, CACHE, CACHE, filled])


def packings() -> Iterator[Node]:
    """Offsets that lie, and lengths that do not add up."""
    tokens, sums = ones(3, 5), i32(0, 1, 3)
    offsets = i32(0, 2, 3, 1)[None].reshape(2, 2)
    packed = partial(refused, "PackedAttention", num_heads=2)
    yield packed([tokens, W, B, i32(0, 2, 3, 1), sums])
    yield packed([tokens, W, B, i32(0, 1)[None], sums])
    for bad in (offsets + 4, offsets - 1, offsets + MOST - 3, offsets[:1]):
        yield packed([tokens, W, B, bad, sums])
        yield refused("RestorePadding", [tokens, bad])
    for bad_sums in (i32(0, 3), i32(0, 1, 2, 3), np.array(3, I32)):
        yield packed([tokens, W, B, offsets, bad_sums])
    for lies in (i32(3, 1, 0), i32(0, MOST, LEAST), i32(0, 0, 0)):
        yield either("PackedAttention", [tokens, W, B, offsets, lies], num_heads=2)
    yield refused("RestorePadding", [ones(5, 2), offsets])
    yield refused("RestorePadding", [ones(5), offsets])
    yield refused("RemovePadding", [X, i32(1)], outputs=4)
    yield refused("RemovePadding", [ones(2, 3), i32(1, 1)], outputs=4)
    yield either("RemovePadding", [X, i32(MOST, LEAST)], outputs=4)
    heads = partial(refused, "PackedMultiHeadAttention", num_heads=2)
    q = ones(3, 4)
    yield heads([q, q, ones(2, 4), None, offsets, sums])
    yield heads([q, q, ones(1, 4), None, offsets, sums])
    yield heads([q, None, None, None, offsets, sums])
    yield heads([ones(3, 3, 2, 2), None, None, None, offsets, sums])
    yield heads([q, q, q, ones(1), offsets, sums])


def position_biases() -> Iterator[Node]:
    """Distances and tables without a bucket, lengths that no tensor has."""
    bias, one = partial(refused, "RelativePositionBias"), np.array(2, np.int64)
    for distance in (0, -1, 1, 2, -(2**63)):
        yield bias([ones(4, 2), one, one], max_distance=distance)
    for table in (ones(0, 2), ones(1, 2), ones(4), ones(2, 2, 2)):
        yield bias([table, one, one], max_distance=8)
    yield bias([ones(3, 2), one, one], max_distance=8, is_bidirectional=1)
    for length in (-1, 2**62, -(2**63)):
        yield bias([ones(4, 2), np.array(length), one], max_distance=8)
    yield either("RelativePositionBias", [ones(4, 2), one, one], max_distance=2**63 - 1)
    gated = partial(refused, "GatedRelativePositionBias", num_heads=2)
    rest = [ones(4), ones(1, 2, 3, 3), ones(2, 2), ones(2), ones(1, 2, 1, 1)]
    for at, bad in enumerate([ones(1), ones(1, 1, 3, 3), ones(2, 3), ones(1), ones(1, 1, 1, 1)]):
        yield gated([Q, *rest[:at], bad, *rest[at + 1 :]])
    yield gated([ones(3, 4), *rest])
    yield gated([Q, *rest, i32(0, 1)[None]])


def quantized() -> Iterator[Node]:
    """Scales and zero points of other sizes."""
    x, w = i(*[1] * 30, dtype=np.uint8).reshape(2, 3, 5), i(*[1] * 60, dtype=np.int8).reshape(5, 12)
    one = np.array(1, np.float32)
    attention = partial(refused, "QAttention", num_heads=2)
    for scale in (ones(2), ones(1, 12), ones(5), np.zeros(0, np.float32)):
        yield attention([x, w, B, one, scale])
        yield attention([x, w, B, scale, one])
    for zero in (i(1, 1, dtype=np.uint8), i(dtype=np.uint8)):
        yield attention([x, w, B, one, one, None, zero])
    yield attention([x, w, ones(1), one, one])
    yield attention([x, w, B, one, one, None, None, None, PAST], past_present_share_buffer=1)
    yield either("QAttention", [x, w, B, full(NAN, 1), full(INF, 1)], num_heads=2)


def decoders() -> Iterator[Node]:
    """Weights and caches of other sizes."""
    true, false = np.array(True), np.array(False)
    plain = [ones(3, 2, 4), ones(3, 2, 4), ones(4, 4), ones(4, 8), ones(12)]
    rest, cached = [None, None, None, false, false, false, false], [true, true, true, false]
    decoder = partial(refused, "DecoderAttention", num_heads=2)
    shapes = [(3, 4), (3, 1, 4), (4, 1), (4, 4), (1,)]
    for at, shape in enumerate(shapes):
        yield decoder([*plain[:at], ones(*shape), *plain[at + 1 :], *rest])
    yield decoder([*plain, None, None, None, *cached])
    yield decoder([*plain, None, CACHE, None, *cached])
    yield decoder([*plain, None, ones(1, 2, 6, 2), ones(1, 2, 6, 2), *cached])
    for mask in (np.ones((2, 1), bool), np.ones(2, bool), np.ones((2, 3, 3), bool)):
        yield decoder([*plain, mask, None, None, false, false, false, true])
    step, one = (
        partial(refused, "DecoderMaskedSelfAttention", num_heads=2, outputs=2),
        ones(2, 1, 5),
    )
    yield step([X, W, B, None, PAST, None, i32(1)])
    yield step([one, W, B, None, CACHE, None, i32(1)])
    for filled in (i32(6), i32(-1), i32(MOST)):
        yield step([one, W, B, None, PAST, None, filled], past_present_share_buffer=1)


GROUPS = (projections, masks, caches, keys, packings, position_biases, quantized, decoders)

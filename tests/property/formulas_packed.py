"""The formulas of attention without padding, of position biases, and of older decoders."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.property.formulas import formula
from tests.property.formulas_attention import Array, attend, multi_head_attention, wide


def _tokens(offsets: Array, cumulated: Array) -> list[tuple[int, int]]:
    """The sequence and the place in it of each token, in the order of the tokens."""
    length = offsets.shape[1]
    return [divmod(int(offset), length) for offset in offsets.flat[: int(cumulated[-1])]]


@formula("RemovePadding")
def remove_padding(x: Array, counts: Array) -> tuple[Array, ...]:
    batch, length, _ = x.shape
    places = [(b, s) for b in range(batch) for s in range(length)]
    tokens = [p for p in places if p[1] < counts[p[0]]]
    offsets = [b * length + s for b, s in tokens + [p for p in places if p not in tokens]]
    packed = np.array([x[p] for p in tokens], x.dtype).reshape(-1, x.shape[2])
    cumulated = np.array([0, *np.cumsum(counts)], counts.dtype)
    return (
        packed,
        np.array(offsets, counts.dtype).reshape(batch, length),
        cumulated,
        (np.array([max(counts)], counts.dtype)),
    )


@formula("RestorePadding")
def restore_padding(x: Array, offsets: Array) -> Array:
    y = np.zeros((offsets.size, x.shape[1]), x.dtype)
    for row, offset in zip(x, offsets.flat, strict=False):
        y[offset] = row
    return y.reshape(*offsets.shape, -1)


@formula("PackedAttention")
def packed_attention(
    x: Array,
    weights: Array,
    bias: Array,
    offsets: Array,
    cumulated: Array,
    attention_bias: Array | None = None,
    *,
    qkv_hidden_sizes: list[int] | None = None,
    **attributes: Any,
) -> Array:
    x, weights, bias = wide(x, weights, bias)
    q_size, k_size, _ = qkv_hidden_sizes or [weights.shape[1] // 3] * 3
    parts = np.split(x @ weights + bias, [q_size, q_size + k_size], -1)
    q, k, v = parts
    inputs = q, k, v, None, offsets, cumulated, attention_bias
    return packed_multi_head_attention(*inputs, **attributes)


@formula("PackedMultiHeadAttention")
def packed_multi_head_attention(
    query: Array,
    key: Array | None,
    value: Array | None,
    bias: Array | None,
    offsets: Array,
    cumulated: Array,
    attention_bias: Array | None = None,
    *,
    num_heads: int,
    scale: float = 0,
    **_others: Any,
) -> Array:
    """Each sequence is attended to alone: it has no padding then."""
    query, key, value, bias, attention_bias = wide(query, key, value, bias, attention_bias)
    if key is None or value is None:
        tokens, heads, _, head = query.shape
        query, key, value = (query[:, :, i].reshape(tokens, heads * head) for i in range(3))
    if bias is not None:
        width = query.shape[1]
        query, key = query + bias[:width], key + bias[width : 2 * width]
        value = value + bias[2 * width :]
    y = np.zeros_like(value)
    batch = len(cumulated) - 1
    places = _tokens(offsets, cumulated)
    for b in range(batch):
        rows = [i for i, (entry, _) in enumerate(places) if entry == b]
        if not rows:
            continue
        own = None
        if attention_bias is not None:
            at = [places[i][1] for i in rows]
            of_entry = attention_bias[b if len(attention_bias) > 1 else 0]
            own = of_entry[:, at][:, :, at][None]
        q, k, v = (
            x[rows].reshape(1, len(rows), num_heads, -1).transpose(0, 2, 1, 3)
            for x in (query, key, value)
        )
        y[rows] = attend(q, k, v, None, own, scale=scale)[0][0]
    return y


@formula("DecoderMaskedSelfAttention")
def decoder_masked_self_attention(
    x: Array,
    weights: Array,
    bias: Array,
    mask: Array | None,
    past: Array,
    attention_bias: Array | None,
    past_length: Array,
    _beam_width: Array | None = None,
    sources: Array | None = None,
    *,
    past_present_share_buffer: int = 0,
    **attributes: Any,
) -> tuple[Array, Array]:
    """As MultiHeadAttention after the projection; the keys in a buffer are in no special order."""
    x, weights, bias = wide(x, weights, bias)
    q, k, v = np.split(x @ weights + bias, 3, -1)
    filled = past_length if past_present_share_buffer else None
    masks, cached = (mask, attention_bias), (past[0], past[1], filled, sources)
    y, *present, _ = multi_head_attention(q, k, v, None, *masks, *cached, **attributes)
    return y, np.stack(present)


@formula("DecoderAttention")
def decoder_attention(
    query: Array,
    key: Array,
    q_weight: Array,
    kv_weight: Array,
    bias: Array,
    mask: Array | None,
    key_cache: Array | None,
    value_cache: Array | None,
    static_kv: Array,
    use_past: Array,
    has_layer_state: Array,
    has_mask: Array,
    *,
    num_heads: int,
    **attributes: Any,
) -> tuple[Array, ...]:
    query, key, q_weight, kv_weight, bias = wide(query, key, q_weight, kv_weight, bias)
    x, source = query.swapaxes(0, 1), (key if static_kv else query).swapaxes(0, 1)
    width = x.shape[2]
    q = x @ q_weight + bias[:width]
    k, v = np.split(source @ kv_weight + bias[width:], 2, -1)
    past = (key_cache, value_cache) if use_past and has_layer_state else (None, None)
    if static_kv and past[0] is not None:
        (k, v), past = wide(*past), (None, None)
    seen = ~mask if mask is not None and has_mask else None
    inputs = q, k, v, None, seen, None, *past
    y, *present, _ = multi_head_attention(*inputs, num_heads=num_heads, **attributes)
    return y.swapaxes(0, 1), *present


@formula("RelativePositionBias")
def relative_position_bias(
    table: Array, queries: Array, keys: Array, *, is_bidirectional: int = 0, max_distance: int
) -> Array:
    """The buckets of T5, one place at a time; the table is stored by columns."""
    buckets, heads = table.shape
    columns = table.flatten().reshape(heads, buckets)
    y = np.zeros((1, heads, int(queries.item()), int(keys.item())), table.dtype)
    count = buckets // 2 if is_bidirectional else buckets
    for _, _, query, key in np.ndindex(1, 1, *y.shape[2:]):
        distance = query - key
        offset = count if is_bidirectional and distance < 0 else 0
        distance = abs(distance) if is_bidirectional else max(distance, 0)
        if distance >= count // 2:
            steps = np.log(distance / (count // 2)) / np.log(max_distance / (count // 2))
            above = int(steps * (count - count // 2) + 1e-6)
            distance = min(count // 2 + above, count - 1)
        y[0, :, query, key] = columns[:, offset + distance]
    return y


@formula("GatedRelativePositionBias")
def gated_relative_position_bias(
    query: Array,
    query_bias: Array,
    rel_pos: Array,
    weight: Array,
    bias: Array,
    eco_a: Array,
    offsets: Array | None = None,
    *,
    num_heads: int,
) -> Array:
    if offsets is not None:
        query = restore_padding(query, offsets)
    query, query_bias, rel_pos, weight, bias, eco_a = wide(
        query, query_bias, rel_pos, weight, bias, eco_a
    )
    batch, length, _ = query.shape
    layer = (query + query_bias).reshape(batch, length, num_heads, -1).transpose(0, 2, 1, 3)
    gates = (layer @ weight + bias).reshape(batch, num_heads, length, 2, -1).sum(-1)
    gate_u, gate_r = np.split(1 / (1 + np.exp(-gates)), 2, -1)
    return (gate_u * (gate_r * eco_a - 1.0) + 2.0) * rel_pos

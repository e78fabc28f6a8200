"""The formulas of attention operators that onnxruntime runs on GPUs only.

Those of Attention, MultiHeadAttention, DecoderMaskedMultiHeadAttention and QAttention are for the
calls that its CPU kernels refuse: int8 inputs, packed inputs, a buffer that past and present share.
Everything is computed in float64, a batch entry and a head at a time.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from tests.property.formulas import formula

Array: TypeAlias = np.ndarray[Any, Any]
LOWEST = float(np.finfo(np.float32).min)


def _heads(x: Array, heads: int) -> Array:
    """[batch, length, hidden] as [batch, heads, length, head]."""
    batch, length, hidden = x.shape
    return x.reshape(batch, length, heads, hidden // heads).transpose(0, 2, 1, 3)


def _merged(x: Array) -> Array:
    batch, heads, length, head = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch, length, heads * head)


def _wide(*arrays: Array | None) -> list[Any]:
    return [None if a is None else np.asarray(a).astype(np.float64) for a in arrays]


def _is_seen(mask: Array | None, sizes: tuple[int, ...], at: tuple[int, ...], past: int) -> bool:
    """Whether a mask of 1 to 4 dimensions lets a query see a key.

    Args:
        mask: the mask.
        sizes: of the batch, of the queries, of the keys.
        at: entry, query and key.
        past: how many keys are of the past.
    """
    batch, _, length = sizes
    entry, query, key = at
    if mask is None:
        return True
    if mask.ndim == 1:
        starts = mask[batch:] if len(mask) == 2 * batch else np.zeros(batch)
        return bool(starts[entry] <= key < mask[entry])
    if mask.ndim == 2:
        is_column = mask.shape != (batch, length)  # it masks all keys or none
        return is_column or bool(mask[entry, key] > 0)
    if mask.ndim == 3:
        return bool(mask[entry, query, key] > 0)
    return bool(mask[entry, 0, past + query, key] > 0)


def _attend(
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None = None,
    bias: Array | None = None,
    past: int = 0,
    *,
    scale: float = 0,
    mask_filter_value: float = -10000.0,
    unidirectional: int = 0,
    **_others: Any,
) -> tuple[Array, Array]:
    """The output and the scores before the softmax."""
    batch, _, queries, head = q.shape
    length = k.shape[2]
    scores = q @ k.swapaxes(2, 3) * (scale or head**-0.5)
    if bias is not None:
        scores = scores + bias
    sizes = batch, queries, length
    for entry, query, key in np.ndindex(*sizes):
        if not _is_seen(mask, sizes, (entry, query, key), past):
            scores[entry, :, query, key] += mask_filter_value
        if unidirectional and key > query + past and query < queries - 1:
            scores[entry, :, query, key] = LOWEST
    rounded = scores.astype(np.float32).astype(np.float64)  # the lowest number absorbs a score
    weights = np.exp(rounded - rounded.max(-1, keepdims=True))
    return _merged(weights / weights.sum(-1, keepdims=True) @ v), scores


def _cached(past: Array, new: Array, filled: int | None) -> tuple[Array, Array]:
    """What is attended to, and what is the next past."""
    if filled is None:
        both = np.concatenate([past, new], 2)
        return both, both
    present = past.copy()
    present[:, :, filled : filled + new.shape[2]] = new
    return present[:, :, : filled + new.shape[2]], present


@formula("Attention")
def attention(
    x: Array,
    weights: Array,
    bias: Array | None = None,
    mask: Array | None = None,
    past: Array | None = None,
    attention_bias: Array | None = None,
    past_length: Array | None = None,
    *,
    num_heads: int,
    qkv_hidden_sizes: list[int] | None = None,
    past_present_share_buffer: int = 0,
    **attributes: Any,
) -> tuple[Array, Array]:
    x, weights, bias, past, attention_bias = _wide(x, weights, bias, past, attention_bias)
    projected = x @ weights + (0 if bias is None else bias)
    q_size, k_size, _ = qkv_hidden_sizes or [weights.shape[1] // 3] * 3
    parts = np.split(projected, [q_size, q_size + k_size], -1)
    filled = int(past_length.item()) if past_present_share_buffer and past is not None else None
    return _attend_self(parts, mask, past, attention_bias, filled, num_heads, **attributes)


def _attend_self(
    parts: list[Array],
    mask: Array | None,
    past: Array | None,
    attention_bias: Array | None,
    filled: int | None,
    heads: int,
    **attributes: Any,
) -> tuple[Array, Array]:
    q, k, v = (_heads(part, heads) for part in parts)
    present = k, v
    if past is not None:
        length = past.shape[3] if filled is None else filled
        (k, new_k), (v, new_v) = (_cached(past[i], x, filled) for i, x in enumerate((k, v)))
        present = new_k, new_v
    else:
        length = 0
    y, _ = _attend(q, k, v, mask, attention_bias, length, **attributes)
    differ = present[0].shape != present[1].shape  # then there is no second output
    return y, present[0] if differ else np.stack(present)


def _beams(x: Array, sources: Array | None, past: int) -> Array:
    """The past of each row is in the rows of the beams that a table names."""
    if sources is None:
        return x
    found = x.copy()
    batch, beams, _ = sources.shape
    for entry, beam, slot in np.ndindex(batch, beams, past):
        row = entry * beams
        found[row + beam, :, slot] = x[row + int(sources[entry, beam, slot]), :, slot]
    return found


@formula("MultiHeadAttention")
def multi_head_attention(
    query: Array,
    key: Array | None = None,
    value: Array | None = None,
    bias: Array | None = None,
    mask: Array | None = None,
    attention_bias: Array | None = None,
    past_key: Array | None = None,
    past_value: Array | None = None,
    past_length: Array | None = None,
    sources: Array | None = None,
    *,
    num_heads: int,
    **attributes: Any,
) -> tuple[Array, ...]:
    dtype = query.dtype
    query, key, value, bias = _wide(query, key, value, bias)
    past_key, past_value, attention_bias = _wide(past_key, past_value, attention_bias)
    if key is None:  # packed: [batch, length, heads, 3, head], or side by side
        parts = np.moveaxis(query, 3, 0) if query.ndim == 5 else np.split(query, 3, -1)
        query, key, value = (x.reshape(*x.shape[:2], -1) for x in parts)
    elif value is None:
        key, value = (x.reshape(*x.shape[:2], -1) for x in np.moveaxis(key, 3, 0))
    if bias is not None:
        width = query.shape[2]
        query = query + bias[:width]
        if key.ndim == 3:
            key, value = key + bias[width : 2 * width], value + bias[2 * width :]
    q = _heads(query, num_heads)
    k, v = (x if x.ndim == 4 else _heads(x, num_heads) for x in (key, value))
    new_k, new_v, past = k, v, 0
    if past_key is not None and past_value is not None:
        filled = None if past_length is None else int(past_length.item())
        past = past_key.shape[2] if filled is None else filled
        k, new_k = _cached(past_key, k, filled)
        v, new_v = _cached(past_value, v, filled)
        k, v = _beams(k, sources, past), _beams(v, sources, past)
    y, scores = _attend(q, k, v, mask, attention_bias, past, **attributes)
    with np.errstate(over="ignore"):  # the lowest number of float32 in a half
        return y, new_k, new_v, scores.astype(dtype)


@formula("DecoderMaskedMultiHeadAttention")
def decoder_masked_multi_head_attention(
    query: Array,
    key: Array | None = None,
    value: Array | None = None,
    mask: Array | None = None,
    attention_bias: Array | None = None,
    past_key: Array | None = None,
    past_value: Array | None = None,
    past_length: Array | None = None,
    _beam_width: Array | None = None,
    sources: Array | None = None,
    bias: Array | None = None,
    *,
    past_present_share_buffer: int = 0,
    output_qk: int = 0,
    **attributes: Any,
) -> tuple[Array, ...]:
    cached = past_key, past_value, past_length if past_present_share_buffer else None, sources
    inputs = query, key, value, bias, mask, attention_bias, *cached
    return multi_head_attention(*inputs, **attributes)


@formula("QAttention")
def q_attention(
    x: Array,
    weights: Array,
    bias: Array,
    x_scale: Array,
    weight_scale: Array,
    mask: Array | None = None,
    x_zero: Array | None = None,
    weight_zero: Array | None = None,
    past: Array | None = None,
    *,
    num_heads: int,
    **attributes: Any,
) -> tuple[Array, Array]:
    x, weights, bias, past = _wide(x, weights, bias, past)
    x_scale, weight_scale = _wide(x_scale, weight_scale)
    x = (x - (0 if x_zero is None else x_zero.item())) * x_scale.item()
    weights = (weights - (0.0 if weight_zero is None else weight_zero)) * weight_scale
    parts = np.split(x @ weights + bias, 3, -1)
    attributes.pop("past_present_share_buffer", None)
    return _attend_self(parts, mask, past, None, None, num_heads, **attributes)

"""Attention of projected queries, keys and values: MultiHeadAttention and its step in decoders.

onnxruntime's optimizers write MultiHeadAttention for encoders and decoders of BART, T5, CLIP,
Whisper and Stable Diffusion; its converters of generation write DecoderMaskedMultiHeadAttention,
which has one query.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from onnxinterp.ops.contrib.attention import draw_mask, draw_scoring
from onnxinterp.ops.contrib.attention_scores import (
    LOWEST,
    Keys,
    Scoring,
    append,
    attend,
    attend_by_scores,
    follow_beams,
    split_heads,
    split_projection,
)
from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag, is_known


@contrib_op("MultiHeadAttention")
def multi_head_attention(
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    bias: Tensor | None = None,
    key_padding_mask: Tensor | None = None,
    attention_bias: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    past_sequence_length: Tensor | None = None,
    cache_indirection: Tensor | None = None,
    *,
    mask_filter_value: float | None = None,
    num_heads: int,
    scale: float | None = None,
    unidirectional: Flag = 0,
    n_outputs: int,
) -> tuple[Tensor, ...]:
    """`past_sequence_length` makes buffers of past keys and values, which present ones share.

    Queries see keys up to their own place, but the last query sees all keys, as in onnxruntime:
    this differs for more keys than queries. Output qk has masks and biases in it.
    """
    q, k, v = _heads(query, key, value, bias, num_heads)
    past = _pair(past_key, past_value)
    if past is not None and key is not None and key.ndim != 3:
        raise ValueError(
            f"key must be [batch, length, hidden] beside a past, got {list(key.shape)}"
        )
    keys = append(k, v, past, past_sequence_length)
    present = keys.k, keys.v
    keys = follow_beams(keys, cache_indirection) if past is not None else keys
    lengths = q.shape[2], k.shape[2]
    is_square = past is None and all(map(is_known, lengths)) and lengths[0] == lengths[1]
    scoring = Scoring(scale, mask_filter_value, bool(unidirectional))
    masks = key_padding_mask, attention_bias
    if n_outputs > 3:
        y, scores = attend_by_scores(q, keys, *masks, scoring=scoring)
        return y, *present, scores
    return attend(q, keys, *masks, scoring=scoring, is_square=is_square), *present


def _pair(first: Tensor | None, second: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """Past keys and values, which come together."""
    if first is None and second is None:
        return None
    if first is None or second is None:
        raise ValueError("past_key and past_value must be given together")
    return first, second


def _heads(
    query: Tensor, key: Tensor | None, value: Tensor | None, bias: Tensor | None, heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values in heads, with their biases.

    Keys and values of cross attention, [batch, heads, length, head], have their biases already.
    """
    if query.ndim == 5 and key is value is None:
        q, k, v = (x.flatten(2) for x in _unpack(query, heads, 3))
    elif key is not None and key.ndim == 5 and value is None and bias is None:
        q, (k, v) = query, (x.flatten(2) for x in _unpack(key, heads, 2))
    elif key is not None and value is not None and key.ndim == value.ndim:
        q, k, v = query, key, value
    else:
        shapes = [x if x is None else list(x.shape) for x in (query, key, value)]
        raise ValueError(f"query, key and value must fit each other, got {shapes}")
    cached = k.ndim == 4
    if bias is not None:
        width = v.shape[1] * v.shape[3] if cached else v.shape[-1]
        q_bias, k_bias, v_bias = _split_bias(bias, q.shape[-1], width)
        q = q + q_bias
        k, v = (k, v) if cached else (k + k_bias, v + v_bias)
    k, v = (k, v) if cached else (split_heads(k, heads), split_heads(v, heads))
    return split_heads(q, heads), k, v


def _unpack(packed: Tensor, heads: int, count: int) -> tuple[Tensor, ...]:
    """The parts of [batch, length, heads, count, head]."""
    if packed.shape[2:4] != (heads, count):
        expected = f"[batch, length, {heads}, {count}, head]"
        raise ValueError(f"a packed input must be {expected}, got {list(packed.shape)}")
    return packed.unbind(3)


def _split_bias(bias: Tensor, width: int, v_width: int) -> tuple[Tensor, ...]:
    """The biases of queries, keys and values."""
    if bias.shape != (2 * width + v_width,):
        raise ValueError(f"bias must be [{2 * width + v_width}], got {list(bias.shape)}")
    return bias.split([width, width, v_width])


@contrib_op("DecoderMaskedMultiHeadAttention")
def decoder_masked_multi_head_attention(
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    mask_index: Tensor | None = None,
    attention_bias: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    past_sequence_length: Tensor | None = None,
    beam_width: Tensor | None = None,  # noqa: ARG001  # it is a size of cache_indirection
    cache_indirection: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    mask_filter_value: float | None = None,
    num_heads: int,
    output_qk: Flag | None = None,  # noqa: ARG001  # the number of outputs says it
    past_present_share_buffer: Flag | None = None,
    scale: float | None = None,
    n_outputs: int,
) -> tuple[Tensor | None, ...]:
    """One query: of cross attention with keys [batch, heads, length, head], or of self attention.

    Buffers hold keys as they are: onnxruntime's kernel for processors does not reorder them.
    """
    past, scoring = _pair(past_key, past_value), Scoring(scale, mask_filter_value)
    if query.ndim != 3 or query.shape[1] != 1:
        raise ValueError(f"query must be [batch, 1, hidden], got {list(query.shape)}")
    if mask_index is not None and mask_index.ndim != 2:
        raise ValueError(f"mask_index must be [batch, length], got {list(mask_index.shape)}")
    if key is value is None:
        if bias is not None and bias.shape != query.shape[2:]:
            raise ValueError(f"bias must be {list(query.shape[2:])}, got {list(bias.shape)}")
        q, k, v = split_projection(query if bias is None else query + bias, num_heads)
    else:
        q, k, v = _heads(query, key, value, bias, num_heads)
    if (key is None or key.ndim == 3) == (past is None):
        raise ValueError("self attention needs past_key, cross attention has none")
    keys, present = Keys(k, v), (None, None)
    if past is not None:
        position = past_sequence_length if past_present_share_buffer else None
        if past_present_share_buffer and position is None:
            raise ValueError("a shared buffer needs past_sequence_length")
        keys = append(k, v, past, position)
        present = keys.k, keys.v
        keys = follow_beams(keys, cache_indirection)
    masks = mask_index, attention_bias
    if n_outputs > 3:
        y, scores = attend_by_scores(q, keys, *masks, scoring=scoring)
        return y, *present, scores
    return attend(q, keys, *masks, scoring=scoring), *present


@sample(multi_head_attention)
def _(d: Draw) -> Call:
    batch, queries, heads, head = d.integer(1, 3), d.integer(1, 4), d.integer(1, 3), d.integer(1, 3)
    kind = d.choice(["separate", "past", "buffer", "beams", "cached", "packed", "packed keys"])
    queries = 1 if kind == "beams" else queries
    new = queries if kind == "packed" else d.integer(1, 4)
    new = 1 if kind == "beams" else new
    past = d.integer(1, 3) if kind in ("past", "buffer", "beams") else 0
    v_head = d.integer(1, 3) if kind == "separate" else head
    scoring, all_masked = draw_scoring(d)
    total, slots = new + past, new + past + (0 if kind == "past" else d.integer(0, 2))
    shapes: dict[str, list[Any]] = {
        "cached": [(batch, queries, heads * head), *[(batch, heads, new, head)] * 2],
        "packed": [(batch, queries, heads, 3, head), None, None],
        "packed keys": [(batch, queries, heads * head), (batch, new, heads, 2, head), None],
    }
    usual = [(batch, n, heads * h) for n, h in ((queries, head), (new, head), (new, v_head))]
    inputs = [None if s is None else _draw(d, s) for s in shapes.get(kind, usual)]
    mask = draw_mask(d, batch, queries, total, "M", all_masked=all_masked)
    if kind == "beams":  # for which onnxruntime reads any mask as one of 0 and 1
        mask = _draw_key_mask(d, batch, total, all_masked)
    elif mask is not None and mask.shape == (2 * batch,):
        mask = None  # no left padding here
    buffer = (batch, heads, slots if kind != "past" else past, head)
    pasts = [_draw(d, buffer), _draw(d, buffer)] if past else [None, None]
    bias = d.maybe(_draw(d, (heads * (2 * head + v_head),))) if kind != "packed keys" else None
    is_buffer = kind in ("buffer", "beams")
    attention_bias = d.maybe(_draw(d, (d.choice([1, batch]), d.choice([1, heads]), queries, total)))
    outputs = 3 if past else d.choice([1, 3])
    is_told = attention_bias is not None or (mask is not None and mask.ndim > 1) or not is_buffer
    if is_told and _has_scores(d, scoring):
        outputs = 4
    return call(
        *inputs,
        bias,
        mask,
        attention_bias,
        *pasts,
        torch.tensor([past], dtype=d.dtype("M")) if is_buffer else None,
        d.ints((1, batch, slots), 0, batch - 1, d.dtype("M")) if kind == "beams" else None,
        outputs=outputs,
        num_heads=heads,
        unidirectional=d.maybe(d.integer(0, 1)),
        **scoring,
    )


def _draw_key_mask(d: Draw, batch: int, length: int, all_masked: bool) -> Tensor | None:
    mask = d.ints((batch, length), 0, 1, d.dtype("M"))
    mask[:, : 0 if all_masked else 1] = 1
    return d.maybe(mask)


def _has_scores(d: Draw, scoring: dict[str, float | None]) -> bool:
    """Whether scores are an output: seldom, and not where masked ones overflow or lose digits."""
    wide = d.dtype("T").itemsize > 2
    return wide and scoring["mask_filter_value"] != LOWEST and d.integer(0, 2) == 1


def _draw(d: Draw, shape: tuple[int, ...]) -> Tensor:
    drawn: Tensor = d.tensor(shape, lo=-2, hi=2)
    return drawn


@sample(decoder_masked_multi_head_attention)
def _(d: Draw) -> Call:
    batch, heads, head, past = d.integer(1, 3), d.integer(1, 3), d.integer(1, 3), d.integer(1, 3)
    kind = d.choice(["buffer", "beams", "cross", "packed", "past"])
    scoring, all_masked = draw_scoring(d)
    hidden, is_cross = heads * head, kind == "cross"
    total = past if is_cross else past + 1
    slots = past if kind == "past" else past + 1 + d.integer(0, 2)
    mask = _draw_key_mask(d, batch, total, all_masked)
    single, cached = (batch, 1, hidden), (batch, heads, total, head)
    scores = (d.choice([1, batch]), d.choice([1, heads]), 1, total)
    attention_bias = None if is_cross else d.maybe(_draw(d, scores))
    is_told = mask is not None or attention_bias is not None
    pasts = [None] * 2 if is_cross else [_draw(d, (batch, heads, slots, head)) for _ in "kv"]
    number = torch.tensor([past], dtype=d.dtype("M"))
    is_packed, is_beams = kind == "packed", kind == "beams"
    keys = [None] * 2 if is_packed else [_draw(d, cached if is_cross else single) for _ in "kv"]
    with_scores = not is_cross and is_told and _has_scores(d, scoring)
    return call(
        _draw(d, (batch, 1, 3 * hidden) if is_packed else single),
        *keys,
        mask,
        attention_bias,
        *pasts,
        number if not is_cross and kind != "past" else None,
        torch.tensor([batch], dtype=d.dtype("M")) if is_beams else None,
        d.ints((1, batch, slots), 0, batch - 1, d.dtype("M")) if is_beams else None,
        d.maybe(_draw(d, (3 * hidden,))),
        outputs=1 if is_cross else 4 if with_scores else 3,
        num_heads=heads,
        past_present_share_buffer=d.maybe(0) if kind in ("past", "cross") else 1,
        output_qk=1 if with_scores else d.maybe(0),
        **scoring,
    )

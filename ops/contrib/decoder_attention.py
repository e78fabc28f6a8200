"""Attention of decoders with the projection: DecoderAttention, DecoderMaskedSelfAttention.

onnxruntime has kernels for GPUs, and its converters of generation write the nodes.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.ops.contrib.attention import draw_scoring, unstack
from onnxinterp.ops.contrib.attention_scores import (
    Keys,
    Scoring,
    append,
    attend,
    filled_slots,
    follow_beams,
    project,
    split_heads,
)
from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag, Scalar


@contrib_op("DecoderMaskedSelfAttention")
def decoder_masked_self_attention(
    input: Tensor,
    weights: Tensor,
    bias: Tensor,
    mask_index: Tensor | None = None,
    past: Tensor | None = None,
    attention_bias: Tensor | None = None,
    past_sequence_length: Tensor | None = None,
    beam_width: Tensor | None = None,  # noqa: ARG001  # it is a size of cache_indirection
    cache_indirection: Tensor | None = None,
    *,
    do_rotary: Literal[0] | None = None,  # noqa: ARG001  # no documented angles
    mask_filter_value: float | None = None,
    num_heads: int,
    past_present_share_buffer: Flag | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """One query. Buffers hold keys as they are, as those of DecoderMaskedMultiHeadAttention do.

    The order that the documentation describes is one of GPUs' memory: there, the search that runs
    the decoder reorders the keys before the first step.
    """
    if past is None or past_sequence_length is None:
        raise ValueError("past and past_sequence_length must be given")
    if input.ndim != 3 or input.shape[1] != 1:
        raise ValueError(f"input must be [batch, 1, hidden], got {list(input.shape)}")
    if mask_index is not None and mask_index.ndim != 2:
        raise ValueError(f"mask_index must be [batch, length], got {list(mask_index.shape)}")
    q, k, v = project(input, weights, bias, num_heads)
    position = filled_slots(past_sequence_length, is_shared=bool(past_present_share_buffer))
    keys = append(k, v, unstack(past), position)
    followed = follow_beams(keys, cache_indirection)
    scoring = Scoring(scale, mask_filter_value)
    y = attend(q, followed, mask_index, attention_bias, scoring=scoring)
    return y, torch.stack((keys.k, keys.v))


@contrib_op("DecoderAttention")
def decoder_attention(
    query: Tensor,
    key: Tensor,
    q_weight: Tensor,
    kv_weight: Tensor,
    bias: Tensor,
    key_padding_mask: Tensor | None = None,
    key_cache: Tensor | None = None,
    value_cache: Tensor | None = None,
    static_kv: Scalar = False,
    use_past: Scalar = False,
    has_layer_state: Scalar = False,
    has_key_padding_mask: Scalar = False,
    *,
    mask_filter_value: float | None = None,
    num_heads: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Batches are on the second axis, and True masks a key, as in fairseq.

    Keys are those of `key` in cross attention (`static_kv`), of the query in self attention; the
    cache has those of the past in self attention, and all of them in cross attention.
    """
    _check_layer(query, key, q_weight, kv_weight, bias)
    hidden, past = query.shape[2], None
    if use_past and has_layer_state:
        if key_cache is None or value_cache is None:
            raise ValueError("key_cache and value_cache must be given if the past is used")
        past = key_cache, value_cache
    q = _project(query, q_weight, bias[:hidden], num_heads)
    if static_kv and past is not None:
        keys = Keys(*past)
    else:
        source = key if static_kv else query
        k, v = _project(source, kv_weight, bias[hidden:], 2 * num_heads).chunk(2, 1)
        keys = append(k, v, past)
    mask = ~key_padding_mask if has_key_padding_mask and key_padding_mask is not None else None
    if mask is not None and mask.ndim != 2:
        raise ValueError(f"key_padding_mask must be [batch, length], got {list(mask.shape)}")
    y = attend(q, keys, mask, scoring=Scoring(None, mask_filter_value))
    return y.transpose(0, 1), keys.k, keys.v


def _project(x: Tensor, weight: Tensor, bias: Tensor, heads: int) -> Tensor:
    """[length, batch, hidden] as [batch, heads, length, head]."""
    return split_heads(functional.linear(x.transpose(0, 1), weight.t(), bias), heads)


def _check_layer(
    query: Tensor, key: Tensor, q_weight: Tensor, kv_weight: Tensor, bias: Tensor
) -> None:
    """Check the sizes of inputs and weights."""
    if query.ndim != 3 or key.ndim != 3 or query.shape[1:] != key.shape[1:]:
        got = f"{list(query.shape)} and {list(key.shape)}"
        raise ValueError(f"query and key must be [length, batch, hidden], got {got}")
    n = query.shape[2]
    if (q_weight.shape, kv_weight.shape, bias.shape) != ((n, n), (n, 2 * n), (3 * n,)):
        shapes = [list(x.shape) for x in (q_weight, kv_weight, bias)]
        raise ValueError(f"weights must be [{n}, {n}] and [{n}, {2 * n}], got {shapes}")


@sample(decoder_masked_self_attention)
def _(d: Draw) -> Call:
    batch, width, heads, head, past = (d.integer(1, 3) for _ in range(5))
    is_buffer = d.boolean()
    has_beams = is_buffer and d.boolean()
    hidden, total = heads * head, past + 1
    slots = total + d.integer(0, 2) if is_buffer else past
    scoring, all_masked = draw_scoring(d)
    mask = d.ints((batch, total), -1, 2, d.dtype("M"))
    mask[:, : 0 if all_masked else 1] = 1
    bias = d.tensor((d.choice([1, batch]), d.choice([1, heads]), 1, total), lo=-2, hi=2)
    return call(
        d.tensor((batch, 1, width), lo=-2, hi=2),
        d.tensor((width, 3 * hidden), lo=-2, hi=2),
        d.tensor((3 * hidden,), lo=-2, hi=2),
        d.maybe(mask),
        d.tensor((2, batch, heads, slots, head), lo=-2, hi=2),
        d.maybe(bias),
        torch.tensor([past], dtype=d.dtype("M")),
        torch.tensor([batch], dtype=d.dtype("M")) if has_beams else None,
        d.ints((1, batch, slots), 0, batch - 1, d.dtype("M")) if has_beams else None,
        outputs=2,
        num_heads=heads,
        past_present_share_buffer=1 if is_buffer else d.maybe(0),
        do_rotary=d.maybe(0),
        **scoring,
    )


@sample(decoder_attention)
def _(d: Draw) -> Call:
    batch, queries, new, heads, head, cached = (d.integer(1, 3) for _ in range(6))
    hidden = heads * head
    static_kv, use_past, has_layer_state, has_mask = (d.boolean() for _ in range(4))
    is_cached = use_past and has_layer_state
    length = new if static_kv else queries
    if is_cached:
        length = cached if static_kv else cached + queries
    mask = torch.zeros(batch, length, dtype=torch.bool)  # the first key is seen
    mask[:, 1:] = d.ints((batch, length - 1), 0, 1).bool()
    cache = (batch, heads, cached, head)
    return call(
        d.tensor((queries, batch, hidden), lo=-2, hi=2),
        d.tensor((new, batch, hidden), lo=-2, hi=2),
        d.tensor((hidden, hidden), lo=-2, hi=2),
        d.tensor((hidden, 2 * hidden), lo=-2, hi=2),
        d.tensor((3 * hidden,), lo=-2, hi=2),
        mask if has_mask else d.maybe(mask),
        *([d.tensor(cache, lo=-2, hi=2) for _ in "kv"] if is_cached else (None, None)),
        *map(torch.tensor, (static_kv, use_past, has_layer_state, has_mask)),
        outputs=d.choice([1, 3]),
        num_heads=heads,
        mask_filter_value=d.choice([None, -10000.0]),
    )

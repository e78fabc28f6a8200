"""Sequences without their padding: RemovePadding, RestorePadding and attention between them.

onnxruntime has kernels for GPUs. Tokens of all sequences are rows of one matrix, and
`token_offset` [batch, length] has the places that they have with padding: first those of the
tokens, then those of the padding. Padding is at the end of a sequence and is never attended to.
"""

from __future__ import annotations

import torch
from torch import Tensor

from onnxinterp.ops.contrib.attention_scores import (
    LOWEST,
    Keys,
    Scoring,
    attend,
    project,
    split_bias,
    split_heads,
    unpack,
)
from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call


@contrib_op("RemovePadding", data_shaped=True)
def remove_padding(
    input: Tensor, sequence_token_count: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The tokens, `token_offset`, cumulated lengths from 0 on, and the greatest length."""
    if input.ndim != 3 or sequence_token_count.shape != input.shape[:1]:
        got = f"{list(input.shape)} and {list(sequence_token_count.shape)}"
        raise ValueError(f"input and counts must be [batch, length, hidden] and [batch], got {got}")
    dtype, counts = sequence_token_count.dtype, sequence_token_count
    columns = torch.arange(input.shape[1], device=input.device)
    is_token = columns < counts.unsqueeze(-1)
    order = is_token.flatten().to(torch.uint8).argsort(stable=True, descending=True)
    ends = counts.clamp(0, input.shape[1]).cumsum(0, dtype=dtype)
    cumulated = torch.cat((ends.new_zeros(1), ends))
    most = torch.cat((counts.new_zeros(1), counts)).amax(0, keepdim=True)
    return input[is_token], order.reshape(is_token.shape).to(dtype), cumulated, most


@contrib_op("RestorePadding")
def restore_padding(input: Tensor, token_offset: Tensor) -> Tensor:
    """Zeros in the places of padding."""
    if input.ndim != 2:
        raise ValueError(f"input must be [tokens, hidden], got {list(input.shape)}")
    return unpack_tokens(input, token_offset)


def unpack_tokens(tokens: Tensor, token_offset: Tensor) -> Tensor:
    """[tokens, ...] as [batch, length, ...] with zeros in the places of padding."""
    places = _places(tokens, token_offset)
    rows = tokens.new_zeros((token_offset.numel(), *tokens.shape[1:]))
    return torch.unflatten(rows.index_copy(0, places, tokens), 0, token_offset.shape)


def _places(tokens: Tensor, token_offset: Tensor) -> Tensor:
    """The places of tokens."""
    if token_offset.ndim != 2 or token_offset.numel() < tokens.shape[0]:
        expected = f"[batch, length] of {tokens.shape[0]} tokens or more"
        raise ValueError(f"token_offset must be {expected}, got {list(token_offset.shape)}")
    return token_offset.flatten()[: tokens.shape[0]].to(torch.int64)


@contrib_op("PackedAttention")
def packed_attention(
    input: Tensor,
    weights: Tensor,
    bias: Tensor,
    token_offset: Tensor,
    cumulative_sequence_length: Tensor,
    attention_bias: Tensor | None = None,
    *,
    num_heads: int,
    qkv_hidden_sizes: list[int] | None = None,
    scale: float | None = None,
) -> Tensor:
    if input.ndim != 2:
        raise ValueError(f"input must be [tokens, hidden], got {list(input.shape)}")
    qkv = project(input.unsqueeze(0), weights, bias, num_heads, qkv_hidden_sizes)
    return _attend_packed(qkv, token_offset, cumulative_sequence_length, attention_bias, scale)


@contrib_op("PackedMultiHeadAttention")
def packed_multi_head_attention(
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    bias: Tensor | None = None,
    token_offset: Tensor | None = None,
    cumulative_sequence_length: Tensor | None = None,
    attention_bias: Tensor | None = None,
    *,
    mask_filter_value: float | None = None,  # noqa: ARG001  # no padding is among the inputs
    num_heads: int,
    scale: float | None = None,
) -> Tensor:
    """Queries, keys and values may be packed as [tokens, heads, 3, head]."""
    if token_offset is None or cumulative_sequence_length is None:
        raise ValueError("token_offset and cumulative_sequence_length must be given")
    q, k, v = query, key, value
    if query.ndim == 4 and key is value is None:
        q, k, v = (x.flatten(1) for x in unpack(query, num_heads, 3))
    if k is None or v is None or not (q.ndim == k.ndim == v.ndim == 2):
        shapes = [x if x is None else list(x.shape) for x in (query, key, value)]
        raise ValueError(f"query, key and value must be [tokens, hidden], got {shapes}")
    if not q.shape[0] == k.shape[0] == v.shape[0]:
        tokens = [x.shape[0] for x in (q, k, v)]
        raise ValueError(f"query, key and value must be of the same tokens, got {tokens}")
    if bias is not None:
        parts = split_bias(bias, q.shape[1], v.shape[1])
        q, k, v = (x + part for x, part in zip((q, k, v), parts, strict=True))
    qkv = tuple(split_heads(x.unsqueeze(0), num_heads) for x in (q, k, v))
    return _attend_packed(qkv, token_offset, cumulative_sequence_length, attention_bias, scale)


def _attend_packed(
    qkv: tuple[Tensor, ...],
    token_offset: Tensor,
    cumulated: Tensor,
    attention_bias: Tensor | None,
    scale: float | None,
) -> Tensor:
    """Attention of tokens [1, heads, tokens, head] to those of their sequence."""
    if token_offset.ndim != 2 or cumulated.shape != (token_offset.shape[0] + 1,):
        got = f"{list(token_offset.shape)} and {list(cumulated.shape)}"
        raise ValueError(f"offsets and lengths must be [batch, length] and [batch + 1], got {got}")
    places = _places(qkv[0][0].transpose(0, 1), token_offset)
    q, k, v = (unpack_tokens(x[0].transpose(0, 1), token_offset).transpose(1, 2) for x in qkv)
    lengths = cumulated[1:] - cumulated[:-1]
    y = attend(q, Keys(k, v), lengths, attention_bias, scoring=Scoring(scale, LOWEST))
    return y.flatten(0, 1).index_select(0, places)


def draw_packing(d: Draw, type: str) -> tuple[Tensor, Tensor, Tensor]:
    """The lengths of sequences, `token_offset` and cumulated lengths."""
    batch, length = d.integer(1, 3), d.integer(1, 4)
    counts = d.ints((batch,), 0, length)
    is_token = (torch.arange(length) < counts.unsqueeze(-1)).flatten()
    order = torch.cat([torch.nonzero(is_token).flatten(), torch.nonzero(~is_token).flatten()])
    cumulated = torch.cat((torch.zeros(1, dtype=torch.int64), counts.cumsum(0)))
    dtype = d.dtype(type)
    return counts.to(dtype), order.reshape(batch, length).to(dtype), cumulated.to(dtype)


@sample(remove_padding)
def _(d: Draw) -> Call:
    counts, offsets, _ = draw_packing(d, "M")
    return call(d.tensor((*offsets.shape, d.integer(1, 3))), counts, outputs=4)


@sample(restore_padding)
def _(d: Draw) -> Call:
    counts, offsets, _ = draw_packing(d, "M")
    return call(d.tensor((int(counts.sum()), d.integer(1, 3))), offsets)


@sample(packed_attention)
def _(d: Draw) -> Call:
    counts, offsets, cumulated = draw_packing(d, "M")
    width, heads, head, v_head = (d.integer(1, 3) for _ in range(4))
    differs = d.boolean()
    sizes = [heads * head] * 2 + [heads * (v_head if differs else head)]
    batch, length = offsets.shape
    bias = d.tensor((d.choice([1, batch]), d.choice([1, heads]), length, length), lo=-2, hi=2)
    return call(
        d.tensor((int(counts.sum()), width), lo=-2, hi=2),
        d.tensor((width, sum(sizes)), lo=-2, hi=2),
        d.tensor((sum(sizes),), lo=-2, hi=2),
        offsets,
        cumulated,
        d.maybe(bias),
        num_heads=heads,
        qkv_hidden_sizes=sizes if differs else d.maybe(sizes),
        scale=d.choice([None, 0.5, -0.5]),
    )


@sample(packed_multi_head_attention)
def _(d: Draw) -> Call:
    counts, offsets, cumulated = draw_packing(d, "M")
    heads, head, v_head, tokens = *(d.integer(1, 3) for _ in range(3)), int(counts.sum())
    is_packed = d.boolean()
    v_head = head if is_packed else v_head
    shapes: list[tuple[int, ...]] = [(tokens, heads * n) for n in (head, head, v_head)]
    shapes = [(tokens, heads, 3, head)] if is_packed else shapes
    qkv = [d.tensor(shape, lo=-2, hi=2) for shape in shapes]
    batch, length = offsets.shape
    bias = d.tensor((d.choice([1, batch]), d.choice([1, heads]), length, length), lo=-2, hi=2)
    return call(
        *qkv,
        *[None] * (3 - len(qkv)),
        d.maybe(d.tensor((heads * (2 * head + v_head),), lo=-2, hi=2)),
        offsets,
        cumulated,
        d.maybe(bias),
        num_heads=heads,
        scale=d.choice([None, 0.5, -0.5]),
        mask_filter_value=d.maybe(-10000.0),
    )

"""Biases of attention scores by distance: RelativePositionBias, GatedRelativePositionBias.

onnxruntime has kernels for GPUs. The first is that of T5 (Raffel et al., 2020, arXiv:1910.10683),
the second that of WavLM (Chen et al., 2022, arXiv:2110.13900).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from onnxinterp.ops.contrib.attention_scores import split_heads
from onnxinterp.ops.contrib.packed_attention import draw_packing, unpack_tokens
from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag, Scalar


@contrib_op("RelativePositionBias")
def relative_position_bias(
    bias_table: Tensor,
    query_length: Scalar,
    key_length: Scalar,
    *,
    is_bidirectional: Flag = 0,
    max_distance: int,
) -> Tensor:
    """The table [buckets, heads] is stored by columns: its elements are those of [heads, buckets].

    Half of the buckets are for one distance each, the others for ranges that grow to
    `max_distance`. Bidirectional ones have as many for later keys as for earlier ones; otherwise
    later keys are in bucket 0.
    """
    if bias_table.ndim != 2:
        raise ValueError(f"bias_table must be [buckets, heads], got {list(bias_table.shape)}")
    buckets, heads = bias_table.shape
    count = buckets // 2 if is_bidirectional else buckets
    exact = count // 2
    if exact < 1 or max_distance <= exact:
        raise ValueError(f"{buckets} buckets do not fit a distance of {max_distance}")
    device = bias_table.device
    rows = torch.arange(query_length, device=device).unsqueeze(-1)
    ahead = torch.arange(key_length, device=device) - rows
    distance = ahead.abs() if is_bidirectional else (-ahead).clamp(min=0)
    ratio = torch.log(distance.clamp(min=exact).to(torch.float32) / exact)
    far = exact + (ratio / math.log(max_distance / exact) * (count - exact)).to(torch.int64)
    bucket = torch.where(distance < exact, distance, far.clamp(max=count - 1))
    if is_bidirectional:
        bucket = bucket + (ahead > 0) * count
    return bias_table.reshape(heads, buckets)[:, bucket].unsqueeze(0)


@contrib_op("GatedRelativePositionBias")
def gated_relative_position_bias(
    query_layer: Tensor,
    query_bias: Tensor,
    rel_pos: Tensor,
    weight: Tensor,
    bias: Tensor,
    eco_a: Tensor,
    token_offset: Tensor | None = None,
    *,
    num_heads: int,
) -> Tensor:
    """The bias of a distance, scaled by two gates of the query.

    Queries may be packed, [tokens, hidden]; those of padding are 0 then.
    """
    x = query_layer
    if token_offset is not None:
        if x.ndim != 2:
            raise ValueError(f"packed queries must be [tokens, hidden], got {list(x.shape)}")
        x = unpack_tokens(x, token_offset)
    if x.ndim != 3 or query_bias.shape != x.shape[2:]:
        got = f"{list(x.shape)} and {list(query_bias.shape)}"
        raise ValueError(f"queries and bias must be [batch, length, n] and [n], got {got}")
    q = split_heads(x + query_bias, num_heads)
    length, head = q.shape[2:]
    wanted = (1, num_heads, length, length), (1, num_heads, 1, 1), (head,), weight.shape[1:]
    shapes = rel_pos.shape, eco_a.shape, weight.shape[:1], bias.shape
    if shapes != wanted or weight.ndim != 2 or weight.shape[1] % 2:
        sizes = [list(t.shape) for t in (rel_pos, weight, bias, eco_a)]
        raise ValueError(f"rel_pos, weight, bias and eco_a must fit {list(q.shape)}, got {sizes}")
    gates = torch.unflatten(q @ weight + bias, -1, (2, -1)).sum(-1).sigmoid()
    update, reset = gates.chunk(2, -1)
    return (update * (reset * eco_a - 1) + 2) * rel_pos


@sample(relative_position_bias)
def _(d: Draw) -> Call:
    """Distances of which the ranges end at integers in each precision."""
    bidirectional, exact = d.integer(0, 1), d.choice([1, 2, 4])
    buckets = exact * (4 if bidirectional else 2) + d.integer(0, 1)
    lengths = (d.integer(1, 40), d.integer(1, 40))
    return call(
        d.tensor((buckets, d.integer(1, 3))),
        *lengths,
        is_bidirectional=bidirectional if bidirectional else d.maybe(0),
        max_distance=exact * d.choice([2, 4, 16]),
    )


@sample(gated_relative_position_bias)
def _(d: Draw) -> Call:
    heads, head, half = (d.integer(1, 3) for _ in range(3))
    counts, offsets, _ = draw_packing(d, "M")
    is_packed = d.boolean()
    length = offsets.shape[1]
    sizes: tuple[int, ...] = (int(counts.sum()),) if is_packed else tuple(offsets.shape)
    return call(
        d.tensor((*sizes, heads * head), lo=-2, hi=2),
        d.tensor((heads * head,), lo=-2, hi=2),
        d.tensor((1, heads, length, length), lo=-2, hi=2),
        d.tensor((head, 2 * half), lo=-2, hi=2),
        d.tensor((2 * half,), lo=-2, hi=2),
        d.tensor((1, heads, 1, 1), lo=-2, hi=2),
        offsets if is_packed else None,
        num_heads=heads,
    )

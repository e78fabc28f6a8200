"""Self attention with the projection of queries, keys and values: Attention.

onnxruntime's optimizers write it for BERT, GPT-2, ViT and CLIP: one node for a product with the
merged weights, the scores, and their product with the values.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from onnxinterp.ops.contrib.attention_scores import (
    LOWEST,
    Scoring,
    append,
    attend,
    filled_slots,
    project,
)
from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag


@contrib_op("Attention")
def attention(
    input: Tensor,
    weights: Tensor,
    bias: Tensor | None = None,
    mask_index: Tensor | None = None,
    past: Tensor | None = None,
    attention_bias: Tensor | None = None,
    past_sequence_length: Tensor | None = None,
    *,
    do_rotary: Literal[0] | None = None,  # noqa: ARG001  # no documented angles
    mask_filter_value: float | None = None,
    num_heads: int,
    past_present_share_buffer: Flag | None = None,
    qkv_hidden_sizes: list[int] | None = None,
    rotary_embedding_dim: int | None = None,  # noqa: ARG001  # of do_rotary
    scale: float | None = None,
    unidirectional: Flag = 0,
    n_outputs: int,
) -> tuple[Tensor, ...]:
    """A scale of 0 is the default one. `past` holds keys and values, [2, batch, heads, ...].

    In onnxruntime, an input `past` needs the output `present`, and excludes `attention_bias`.
    """
    scoring = Scoring(scale, mask_filter_value, bool(unidirectional))
    qkv = project(input, weights, bias, num_heads, qkv_hidden_sizes)
    is_shared = past is not None and bool(past_present_share_buffer)
    position = filled_slots(past_sequence_length, is_shared=is_shared)
    return attend_self(qkv, mask_index, past, attention_bias, position, scoring, n_outputs)


def attend_self(
    qkv: tuple[Tensor, ...],
    mask: Tensor | None,
    past: Tensor | None,
    attention_bias: Tensor | None,
    position: Tensor | None,
    scoring: Scoring,
    n_outputs: int,
) -> tuple[Tensor, ...]:
    """The output, and if there is a second one, keys and values in one tensor.

    A mask of one column masks all keys or none, which is the same.
    """
    q, k, v = qkv
    keys = append(k, v, unstack(past), position)
    if mask is not None and mask.ndim == 2 and mask.shape[1] == 1:
        if mask.shape[0] not in (1, q.shape[0]):
            raise ValueError(f"the mask must be [{q.shape[0]}, 1], got {list(mask.shape)}")
        mask = None
    y = attend(q, keys, mask, attention_bias, scoring=scoring, is_square=past is None)
    return (y, torch.stack((keys.k, keys.v))) if n_outputs > 1 else (y,)


def unstack(past: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """Keys and values of [2, batch, heads, length, head]."""
    if past is None:
        return None
    if past.ndim != 5 or past.shape[0] != 2:
        raise ValueError(f"past must be [2, batch, heads, length, head], got {list(past.shape)}")
    return past[0], past[1]


def draw_scoring(d: Draw, type: str = "T") -> tuple[dict[str, float | None], bool]:
    """The attributes of the scores, and whether all keys of a query may be masked.

    Of scores near -10000, and of halves near -64, the digits depend on the order of additions. The
    lowest number is what exporters take over from models; it absorbs scores, and so their slopes.
    """
    value = d.choice([None, -10000.0, -64.0, LOWEST])
    exact = value == LOWEST and d.dtype(type) is torch.float32
    exact = exact or (value == -64 and d.dtype(type).itemsize > 2)
    return {"scale": d.choice([None, 0.0, 0.5, -0.5]), "mask_filter_value": value}, exact


def draw_mask(
    d: Draw, batch: int, queries: int, keys: int, type: str, *, all_masked: bool
) -> Tensor | None:
    """A mask of any kind that lets the first key be seen unless `all_masked`."""
    kind = d.choice(["none", "2-D", "ends", "3-D", "ends and starts", "ends and sums"])
    dtype, least = d.dtype(type), 0 if all_masked else 1
    if kind == "none":
        return None
    if kind in ("2-D", "3-D"):
        shape = (batch, keys) if kind == "2-D" else (batch, queries, keys)
        mask = d.ints(shape, -1, 2, dtype)
        mask[..., :least] = 1
        return mask
    ends = d.ints((batch,), least, keys + 1, dtype)
    if kind == "ends and starts":
        return torch.cat((ends, d.ints((batch,), -1, keys + 1 if all_masked else 0, dtype)))
    return torch.cat((ends, d.ints((2 * batch + 2,), 0, keys, dtype))) if "sums" in kind else ends


@sample(attention)
def _(d: Draw) -> Call:
    batch, length, width = d.integer(1, 3), d.integer(1, 4), d.integer(1, 3)
    heads, head, v_head = (d.integer(1, 3) for _ in range(3))
    past = d.choice([None, 1, 2])
    differs = past is None and d.boolean()
    sizes = [heads * head] * 2 + [heads * (v_head if differs else head)]
    total = length + (past or 0)
    buffer = total + d.integer(0, 2) if past and d.integer(0, 3) == 1 else None
    cache = d.tensor((2, batch, heads, buffer or past or 0, head), lo=-2, hi=2)
    scoring, all_masked = draw_scoring(d)
    mask = draw_mask(d, batch, length, total, "M", all_masked=all_masked)
    causal, rare = d.maybe(d.integer(0, 1)), d.integer(0, 7)
    if rare == 1:
        mask = d.ints((d.choice([1, batch]), 1), 0, 1, d.dtype("M"))
    if rare == 2 and buffer is None:  # that of Megatron
        mask = d.ints((batch, 1, total + 1, total + 1), 0, 1, d.dtype("M"))
        mask[..., :1] = 1
    bias = d.tensor((d.choice([1, batch]), d.choice([1, heads]), length, total), lo=-2, hi=2)
    return call(
        d.tensor((batch, length, width), lo=-2, hi=2),
        d.tensor((width, sum(sizes)), lo=-2, hi=2),
        d.maybe(d.tensor((sum(sizes),), lo=-2, hi=2)),
        mask,
        cache if past else None,
        d.maybe(bias) if past is None else None,
        torch.tensor([past], dtype=d.dtype("M")) if buffer else None,
        outputs=2 if past or (not differs and d.boolean()) else 1,
        num_heads=heads,
        qkv_hidden_sizes=sizes if differs else d.maybe(sizes),
        past_present_share_buffer=1 if buffer else d.maybe(0),
        unidirectional=causal,
        do_rotary=d.maybe(0),
        **scoring,
    )

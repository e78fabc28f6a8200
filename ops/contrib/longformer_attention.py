"""Attention to a window and to some global tokens: LongformerAttention.

Onnxruntime's converter of Longformer models writes it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.ops.contrib.attention_scores import merge_heads, split_heads
from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call


@contrib_op("LongformerAttention", frozen=("mask",))
def longformer_attention(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    mask: Tensor,
    global_weight: Tensor,
    global_bias: Tensor,
    global_flags: Tensor,
    *,
    num_heads: int,
    window: int,
) -> Tensor:
    """Global tokens attend to all tokens, by projections of their own.

    Other tokens attend to those within the window and to the global ones. The mask, negative for
    padding, is added to the scores of a key; a token of padding becomes 0, as in onnxruntime.
    """
    _check_inputs(input, mask, global_flags, window)
    if weight.ndim != 2:
        raise ValueError(f"weight must be [hidden, 3 * hidden], got {list(weight.shape)}")
    is_global = global_flags != 0
    places = torch.arange(input.shape[1], device=input.device)
    is_near = (places.unsqueeze(1) - places).abs() <= window
    allowed = is_near | is_global[:, None, :]
    scores = mask.to(input.dtype)[:, None, None, :]
    near = _attend(input, weight, bias, num_heads, scores.where(allowed.unsqueeze(1), -math.inf))
    far = _attend(input, global_weight, global_bias, num_heads, scores)
    y = torch.where(is_global.unsqueeze(-1), far, near)
    return y.masked_fill((mask < 0).unsqueeze(-1), 0)


def _check_inputs(x: Tensor, mask: Tensor, global_flags: Tensor, window: int) -> None:
    if x.ndim != 3 or mask.shape != x.shape[:2] or global_flags.shape != x.shape[:2]:
        got = [list(t.shape) for t in (x, mask, global_flags)]
        raise ValueError(f"mask and flags must be those of each token of the input, got {got}")
    if window < 1:
        raise ValueError(f"window must be positive, got {window}")


def _attend(x: Tensor, weight: Tensor, bias: Tensor, heads: int, scores: Tensor) -> Tensor:
    """Attention by one projection to queries, keys and values."""
    width = x.shape[-1]
    if weight.shape != (width, 3 * width) or bias.shape != (3 * width,):
        got = f"{list(weight.shape)} and {list(bias.shape)}"
        expected = f"{[width, 3 * width]} and {[3 * width]}"
        raise ValueError(f"weights and biases must be {expected}, got {got}")
    q, k, v = (split_heads(part, heads) for part in (x @ weight + bias).chunk(3, -1))
    return merge_heads(functional.scaled_dot_product_attention(q, k, v, attn_mask=scores))


@sample(longformer_attention)
def _(d: Draw) -> Call:
    batch, heads, window = d.integer(1, 2), d.integer(1, 2), d.integer(1, 2)
    length, width = 2 * window * d.integer(1, 3), heads * d.integer(1, 3)
    x = d.tensor((batch, length, width), lo=-1, hi=1)
    projections = [
        d.tensor(shape, lo=-1, hi=1)
        for _ in range(2)
        for shape in [(width, 3 * width), (3 * width,)]
    ]
    padded = torch.arange(length) >= length - d.ints((batch, 1), 0, 2)
    # onnxruntime has global tokens at the start
    first = torch.arange(length) < d.ints((batch, 1), 0, window)
    return call(
        x,
        *projections[:2],
        torch.zeros(batch, length, dtype=x.dtype).masked_fill(padded, -10000.0),
        *projections[2:],
        first.int(),
        num_heads=heads,
        window=window,
    )

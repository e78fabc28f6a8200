"""Layers with a state: LinearAttention, CausalConvWithState.

History: both 27.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.ops.recurrent_cells import States, repeat
from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call


@op("LinearAttention", since=27)
def linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past_state: Tensor | None = None,
    decay: Tensor | None = None,
    beta: Tensor | None = None,
    *,
    chunk_size: int = 64,
    kv_num_heads: int,
    q_num_heads: int,
    scale: float = 0.0,
    update_rule: Literal["linear", "gated", "delta", "gated_delta"] = "gated_delta",
) -> tuple[Tensor, Tensor]:
    """Step by step in float32, as the recurrence is defined; `chunk_size` changes no value.

    Shapes inside: keys [time, batch, heads, key], values [time, batch, heads, value], queries
    [time, batch, heads, group, key] for groups of query heads; state [batch, heads, key, value].
    """
    del chunk_size
    _check_sizes(query, (key, value, decay, beta), kv_num_heads)
    wide = torch.float64 if query.dtype is torch.float64 else torch.float32
    q, k, v = (_time_first(x.to(wide), kv_num_heads) for x in (query, key, value))
    q = torch.unflatten(q, -1, (q_num_heads // kv_num_heads, -1))
    rows = [q * (scale or q.shape[-1] ** -0.5), k.unsqueeze(-1), v.unsqueeze(-2)]
    is_gated, is_delta = update_rule.startswith("gated"), update_rule.endswith("delta")
    if is_gated:
        assert decay is not None, f"decay must be given for {update_rule}"
        rows.append(_time_first(decay.to(wide), kv_num_heads).exp().unsqueeze(-1))
    if is_delta:
        assert beta is not None, f"beta must be given for {update_rule}"
        rows.append(beta.to(wide).transpose(0, 1)[..., None, None])

    zeros = k.new_zeros((*k.shape[1:], v.shape[-1]))
    if past_state is not None and past_state.shape != zeros.shape:
        raise ValueError(f"past_state must be {list(zeros.shape)}, got {list(past_state.shape)}")
    initial = zeros if past_state is None else past_state.to(wide)
    Y, (state,) = repeat(partial(_step, is_gated, is_delta), (initial,), tuple(rows))
    kept = query.dtype if past_state is None else past_state.dtype
    return Y.transpose(0, 1).flatten(2).to(query.dtype), state.to(kept)


def _check_sizes(query: Tensor, others: Sequence[Tensor | None], heads: int) -> None:
    """Check sizes that torch would broadcast: batch and time, and the heads of beta (last)."""
    for x in others:
        if x is not None and x.shape[:2] != query.shape[:2]:
            raise ValueError(f"batch and time must fit {list(query.shape)}, got {list(x.shape)}")
    beta = others[-1]
    if beta is not None and beta.shape[2] not in (1, heads):
        raise ValueError(f"beta must have 1 or {heads} heads, got {list(beta.shape)}")


def _time_first(x: Tensor, heads: int) -> Tensor:
    """[batch, time, heads * n] as [time, batch, heads, n]."""
    return torch.unflatten(x.transpose(0, 1), -1, (heads, -1))


def _step(is_gated: bool, is_delta: bool, states: States, row: States) -> tuple[States, Tensor]:
    """The next state, and its product with the queries."""
    (state,), (query, key, value, *gates) = states, row
    if is_gated:
        state = state * gates[0]
    if is_delta:  # replace the value that the state has for the key
        value = gates[-1] * (value - key.transpose(-1, -2) @ state)
    state = state + key * value
    return (state,), query @ state


@op("CausalConvWithState", since=27)
def causal_conv_with_state(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    past_state: Tensor | None = None,
    *,
    activation: Literal["silu", "swish", "none"] = "none",
) -> tuple[Tensor, Tensor]:
    """Each channel has its own filter; the state is the last k - 1 elements of the past."""
    kept = weight.shape[2] - 1
    if past_state is not None and past_state.shape != (*input.shape[:2], kept):
        raise ValueError(f"past_state must have {kept} elements, got {list(past_state.shape)}")
    x = (
        functional.pad(input, (kept, 0))
        if past_state is None
        else torch.cat((past_state, input), 2)
    )
    y = functional.conv1d(x, weight, bias, groups=weight.shape[0])
    if activation != "none":  # "silu" and "swish" are the same
        y = functional.silu(y)
    return y, x.narrow(2, input.shape[2], kept)


@sample(linear_attention)
def _(d: Draw) -> Call:
    rule = d.choice(["linear", "gated", "delta", "gated_delta"])
    batch, length, heads, groups, k, v = [d.integer(1, 3) for _ in range(6)]
    decays, betas = d.choice([heads, heads * k]), d.choice([heads, 1])
    past = d.tensor((batch, heads, k, v), "S", lo=-1, hi=1)
    decay = d.tensor((batch, length, decays), lo=-2, hi=0)
    beta = d.tensor((batch, length, betas), lo=0, hi=1)
    return call(
        d.tensor((batch, length, heads * groups * k), lo=-1, hi=1),
        d.tensor((batch, length, heads * k), lo=-1, hi=1),
        d.tensor((batch, length, heads * v), lo=-1, hi=1),
        d.maybe(past),
        decay if rule.startswith("gated") else None,
        beta if rule.endswith("delta") else None,
        chunk_size=d.maybe(16),
        kv_num_heads=heads,
        q_num_heads=heads * groups,
        scale=d.maybe(d.real(0.25, 1)),
        update_rule=rule if rule != "gated_delta" else d.maybe(rule),
        outputs=2,
    )


@sample(causal_conv_with_state)
def _(d: Draw) -> Call:
    batch, channels, length, k = [d.integer(1, 4) for _ in range(4)]
    return call(
        d.tensor((batch, channels, length), lo=-2, hi=2),
        d.tensor((channels, 1, k), lo=-2, hi=2),
        d.maybe(d.tensor((channels,))),
        d.maybe(d.tensor((batch, channels, k - 1))),
        activation=d.maybe(d.choice(["none", "silu", "swish"])),
        outputs=2,
    )

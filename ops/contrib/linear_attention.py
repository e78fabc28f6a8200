"""Layers of language models with a state in place of a cache.

LinearAttention, which ONNX has too, and GatedDeltaNet. Windows of states, which only GPUs have in
onnxruntime, and captured updates are errors.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.ops import linear_attention as layers
from onnxinterp.ops.contrib.gating import widened
from onnxinterp.ops.contrib.ragged import Ragged, draw_ends
from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag

UpdateRule = Literal["linear", "gated", "delta", "gated_delta"]


@contrib_op("LinearAttention")
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
    state_window: int = 0,
    update_rule: UpdateRule = "gated_delta",
) -> tuple[Tensor, Tensor]:
    """As ONNX's; heads of queries and of keys may also be fewer than those of values."""
    if state_window:
        raise ValueError(f"state_window must be 0, got {state_window}")
    if q_num_heads <= 0 or kv_num_heads <= 0 or max(q_num_heads, kv_num_heads) % q_num_heads:
        got = f"{q_num_heads} and {kv_num_heads}"
        raise ValueError(f"heads of queries and keys must divide each other, got {got}")
    key = _repeat_heads(key, query.shape[-1] // q_num_heads, kv_num_heads)
    if kv_num_heads > q_num_heads:
        query = _repeat_heads(query, query.shape[-1] // q_num_heads, kv_num_heads)
        q_num_heads = kv_num_heads
    return layers.linear_attention(
        query,
        key,
        value,
        past_state,
        decay,
        beta,
        chunk_size=chunk_size,
        kv_num_heads=kv_num_heads,
        q_num_heads=q_num_heads,
        scale=scale,
        update_rule=update_rule,
    )


def _repeat_heads(x: Tensor, size: int, count: int) -> Tensor:
    """Repeat heads of this size, side by side, until there are so many."""
    present = x.shape[-1] // max(size, 1)
    if present in (0, count):
        return x
    if count % present:
        raise ValueError(f"heads must divide {count}, got {present} of size {size}")
    return torch.unflatten(x, -1, (present, size)).repeat_interleave(count // present, 2).flatten(2)


@contrib_op("GatedDeltaNet")
def gated_delta_net(
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    decay: Tensor | None = None,
    beta: Tensor | None = None,
    initial_state: Tensor | None = None,
    a_log: Tensor | None = None,
    dt_bias: Tensor | None = None,
    capture_count: Tensor | None = None,
    state_update_active: Tensor | None = None,
    *,
    beta_activation: Literal["none", "sigmoid"] = "none",
    chunk_size: int = 64,
    gate_activation: Literal["none", "softplus", "qwen", "sigmoid", "kda"] = "none",
    gate_lower_bound: float = -5.0,
    qk_l2_norm: Flag = 0,
    scale: float = 0.0,
    state_update_capacity: int = 0,
    update_rule: UpdateRule = "gated_delta",
    n_outputs: int,
) -> tuple[Tensor, ...]:
    """The recurrence of LinearAttention over tokens first: [tokens, heads, size] for each input.

    States are [batch, heads, value size, key size], in float32.
    """
    if state_update_capacity or capture_count is not None or n_outputs > 2:
        raise ValueError(f"state_update_capacity must be 0, got {state_update_capacity}")
    del state_update_active
    q, k, v = _token_heads(query, key, value, initial_state)
    heads, leading = v.shape[-2], v.shape[:-2]
    rows = [widened(x) for x in (q, k, v)]
    if qk_l2_norm:
        rows[:2] = [x * (x.square().sum(-1, keepdim=True) + 1e-12).rsqrt() for x in rows[:2]]
    rows[:2] = [x.repeat_interleave(heads // x.shape[-2], -2) for x in rows[:2]]
    is_gated, is_delta = update_rule.startswith("gated"), update_rule.endswith("delta")
    if is_gated != (decay is not None) or is_delta != (beta is not None):
        raise ValueError(f"decay and beta must be given where {update_rule} has them")
    if decay is not None:
        raw = widened(decay).reshape(*leading, heads, -1)
        rows.append(_log_decay(raw, a_log, dt_bias, gate_activation, gate_lower_bound))
    if beta is not None:
        rate = widened(beta).reshape(*leading, heads, 1)
        rows.append(rate.sigmoid() if beta_activation == "sigmoid" else rate)
    ragged = None if cu_seqlens is None else Ragged.of(cu_seqlens, leading[0])
    batched = [_batched(x, ragged, initial_state).flatten(2) for x in rows]
    past = None if initial_state is None else initial_state.transpose(-1, -2)
    y, state = layers.linear_attention(
        batched[0],
        batched[1],
        batched[2],
        past,
        batched[3] if is_gated else None,
        batched[-1] if is_delta else None,
        chunk_size=chunk_size,
        kv_num_heads=heads,
        q_num_heads=heads,
        scale=scale,
        update_rule=update_rule,
    )
    y = torch.unflatten(y, -1, (heads, -1))
    y = y.reshape(v.shape) if ragged is None else ragged.pack(y)
    y = y.to(query.dtype)
    return (y,) if n_outputs == 1 else (y, state.transpose(-1, -2))


def _token_heads(
    query: Tensor, key: Tensor | None, value: Tensor | None, state: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, [tokens, heads, size] or [batch, time, heads, size]."""
    if key is None and value is None and query.ndim == 2 and state is not None and state.ndim == 4:
        heads, v_size, size = state.shape[1:]
        both, rest = divmod(query.shape[1] - heads * v_size, 2 * size)
        if rest or both < 1 or heads % both:
            raise ValueError(f"query must have keys and values of the state, got {query.shape}")
        sizes = [both * size, both * size, heads * v_size]
        parts = torch.split(query, sizes, -1)
        q, k, v = (
            torch.unflatten(x, -1, (-1, n))
            for x, n in zip(parts, (size, size, v_size), strict=True)
        )
        return q, k, v
    if key is None or value is None or query.ndim not in (3, 4) or key.shape != query.shape:
        raise ValueError(f"query and key must be [tokens, heads, size], got {list(query.shape)}")
    if value.shape[:-2] != query.shape[:-2] or value.shape[-2] % query.shape[-2]:
        got = f"{list(value.shape)} for {list(query.shape)}"
        raise ValueError(f"value must have a multiple of the heads of keys, got {got}")
    return query, key, value


def _log_decay(
    raw: Tensor,
    a_log: Tensor | None,
    dt_bias: Tensor | None,
    activation: str,
    lower: float,
) -> Tensor:
    """The decay in logarithms, [..., heads, 1 or key size]."""
    if activation == "none":
        return raw
    heads = raw.shape[-2]
    if a_log is None or dt_bias is None or a_log.shape != (heads,) or not dt_bias.numel():
        raise ValueError(f"a_log and dt_bias must be given for {activation}, [{heads}]")
    if dt_bias.numel() not in (heads, heads * raw.shape[-1]):
        raise ValueError(f"dt_bias must fit {heads} heads, got {list(dt_bias.shape)}")
    shifted, factor = raw + dt_bias.reshape(heads, -1), a_log.exp().unsqueeze(-1)
    if activation in ("softplus", "qwen"):
        return -factor * functional.softplus(shifted)
    return lower * (factor * shifted).sigmoid()


def _batched(x: Tensor, ragged: Ragged | None, state: Tensor | None) -> Tensor:
    """[batch, time, heads, size]."""
    if ragged is not None:
        return ragged.pad(x)
    if x.ndim == 4:
        return x
    if state is None or not state.shape[0] or x.shape[0] % state.shape[0]:
        raise ValueError(f"initial_state must have a batch for {x.shape[0]} tokens")
    return x.reshape(state.shape[0], -1, *x.shape[1:])


@sample(linear_attention)
def _(d: Draw) -> Call:
    rule = d.choice(["linear", "gated", "delta", "gated_delta"])
    batch, length, heads, groups, k, v = [d.integer(1, 3) for _ in range(6)]
    q_heads, kv_heads = (heads, heads * groups) if d.boolean() else (heads * groups, heads)
    decay = d.tensor((batch, length, d.choice([kv_heads, kv_heads * k])), lo=-2, hi=0)
    beta = d.tensor((batch, length, d.choice([kv_heads, 1])), lo=0, hi=1)
    key_heads = d.choice([kv_heads, heads])  # heads: fewer than those of values, as in Qwen 3.5
    return call(
        d.tensor((batch, length, q_heads * k), lo=-1, hi=1),
        d.tensor((batch, length, key_heads * k), lo=-1, hi=1),
        d.tensor((batch, length, kv_heads * v), lo=-1, hi=1),
        d.tensor((batch, kv_heads, k, v), "S", lo=-1, hi=1),
        decay if rule.startswith("gated") else None,
        beta if rule.endswith("delta") else None,
        chunk_size=d.maybe(16),
        kv_num_heads=kv_heads,
        q_num_heads=q_heads,
        scale=d.maybe(d.real(0.25, 1)),
        state_window=d.maybe(0),
        update_rule=rule if rule != "gated_delta" else d.maybe(rule),
        outputs=2,
    )


@sample(gated_delta_net)
def _(d: Draw) -> Call:
    rule = d.choice(["linear", "gated", "delta", "gated_delta"])
    is_gated, is_delta = rule.startswith("gated"), rule.endswith("delta")
    batch, tokens, ends = draw_ends(d)
    kind = d.choice(["ragged", "packed", "batched", "uniform"])
    if kind != "ragged":
        tokens = batch * d.integer(1, 3)
    heads, groups, size, v_size = [d.integer(1, 3) for _ in range(4)]
    v_heads, width = heads * groups, d.choice([1, size])
    rows = [
        d.tensor((tokens, n, m), lo=-1, hi=1)
        for n, m in ((heads, size), (heads, size), (v_heads, v_size))
    ]
    decay = d.tensor((tokens, v_heads, width), "TG", lo=-2, hi=0)
    decay = decay if width > 1 else decay.squeeze(-1)
    gates = [decay, d.tensor((tokens, v_heads), "TG", lo=0, hi=1)]
    if kind == "packed":
        rows = [torch.cat([x.flatten(1) for x in rows], 1)]
    if kind == "batched":
        rows, gates = ([x.reshape(batch, -1, *x.shape[1:]) for x in xs] for xs in (rows, gates))
    inputs: list[Tensor | None] = [*rows, *([None, None] if kind == "packed" else [])]
    state = d.tensor((batch, v_heads, v_size, size), "TS", lo=-1, hi=1)
    gate = d.choice([None, "none", "softplus", "qwen", "sigmoid", "kda"]) if is_gated else None
    gated = gate not in (None, "none")
    per_size = [(v_heads, width), (v_heads * width,)] if width > 1 else []
    bias = d.choice([(v_heads,), *per_size])
    return call(
        *inputs,
        ends if kind == "ragged" else None,
        gates[0] if is_gated else None,
        gates[1] if is_delta else None,
        state if kind != "ragged" else d.maybe(state),
        d.tensor((v_heads,), "TS", lo=-1, hi=1) if gated else None,
        d.tensor(bias, "TS", lo=-1, hi=1) if gated else None,
        beta_activation=d.choice([None, "none", "sigmoid"]),
        chunk_size=d.maybe(32),
        gate_activation=gate,
        gate_lower_bound=d.maybe(d.real(-4, -1)),
        qk_l2_norm=d.maybe(d.integer(0, 1)),
        scale=d.maybe(d.real(0.25, 1)),
        update_rule=rule if rule != "gated_delta" else d.maybe(rule),
        outputs=d.integer(1, 2),
    )

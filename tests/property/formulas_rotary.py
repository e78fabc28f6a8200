"""Formulas of a gate and of an attention over blocks."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.property.formulas import formula


@formula("SwiGLU")
def swiglu(
    gate: Any,
    up: Any = None,
    *,
    activation_alpha: float = 1.0,
    activation_beta: float = 0.0,
    limit: float = 0.0,
    round_activation: int = 0,
) -> Any:
    halves = np.split(gate, 2, -1) if up is None else (gate, up)
    g, linear = (x.astype(np.float64) for x in halves)
    if limit > 0:
        g, linear = np.minimum(g, limit), np.clip(linear, -limit, limit)
    activated = g / (1 + np.exp(-activation_alpha * g))
    if round_activation:
        activated = activated.astype(gate.dtype).astype(np.float64)
    return (activated * (linear + activation_beta)).astype(gate.dtype)


@formula("SparseAttention")
def sparse_attention(
    query: Any,
    key: Any,
    value: Any,
    past_key: Any,
    past_value: Any,
    block_rows: Any,
    block_columns: Any,
    total: Any,
    totals: Any,
    cos: Any = None,
    sin: Any = None,
    *,
    num_heads: int,
    kv_num_heads: int,
    sparse_block_size: int,
    do_rotary: int = 0,
    rotary_interleaved: int = 0,
    scale: float | None = None,
) -> Any:
    """Onnxruntime has it on CPUs too, where the past and the present are one buffer."""
    batch, length, _ = query.shape
    joined = query if key is None else np.concatenate([query, key, value], -1)
    heads = joined.astype(np.float64).reshape(batch, length, num_heads + 2 * kv_num_heads, -1)
    present_key, present_value = past_key.astype(np.float64), past_value.astype(np.float64)
    y = np.zeros((batch, length, num_heads, heads.shape[-1]))
    for b, row in np.ndindex(batch, length):
        position = max(totals[b] - length, 0) + row
        if do_rotary:
            turned = heads[b, row, : num_heads + kv_num_heads]
            turned[:] = _turned(turned, cos[position], sin[position], rotary_interleaved)
        present_key[b, :, position] = heads[b, row, num_heads : num_heads + kv_num_heads]
        present_value[b, :, position] = heads[b, row, num_heads + kv_num_heads :]
    for b, row, head in np.ndindex(batch, length, num_heads):
        position = min(max(totals[b] - length, 0) + row, totals[b] - 1)
        layout, group = head % len(block_rows), head // (num_heads // kv_num_heads)
        block = (max(totals[b] - length, 0) + row) // sparse_block_size
        chosen = block_columns[layout, block_rows[layout, block] : block_rows[layout, block + 1]]
        slots = [t for t in range(position + 1) if t // sparse_block_size in chosen]
        if not slots:
            continue
        scores = present_key[b, group, slots] @ heads[b, row, head]
        scores = scores * (scale or heads.shape[-1] ** -0.5)
        weights = np.exp(scores - scores.max())
        y[b, row, head] = weights / weights.sum() @ present_value[b, group, slots]
    results = y.reshape(batch, length, -1), present_key, present_value
    return tuple(x.astype(query.dtype) for x in results)


def _turned(x: Any, cos: Any, sin: Any, interleaved: int) -> Any:
    """Pairs of all channels, rotated."""
    half = x.shape[-1] // 2
    first, second = slice(half), slice(half, None)
    if interleaved:
        first, second = slice(0, None, 2), slice(1, None, 2)
    y = np.empty_like(x)
    y[..., first] = x[..., first] * cos - x[..., second] * sin
    y[..., second] = x[..., second] * cos + x[..., first] * sin
    return y

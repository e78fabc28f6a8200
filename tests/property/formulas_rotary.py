"""Formulas of rotations and gates that onnxruntime has on GPUs only."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.property.formulas import formula


@formula("GemmaRotaryEmbedding")
def gemma_rotary_embedding(emb: Any, q: Any, q_rot: Any, k: Any, k_rot: Any) -> Any:
    cos, sin = np.cos(emb)[:, None], np.sin(emb)[:, None]
    results = q * cos + q_rot * sin, k * cos + k_rot * sin
    return tuple(x.astype(q.dtype) for x in results)


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


@formula("GroupQueryAttention")
def group_query_attention(
    query: Any,
    key: Any,
    value: Any,
    past_key: Any,
    past_value: Any,
    seqlens_k: Any,
    total: Any,
    *rest: Any,
    num_heads: int,
    kv_num_heads: int,
    qk_norm_epsilon: float = 1e-6,
    q_norm_epsilon: float | None = None,
    k_norm_epsilon: float | None = None,
) -> Any:
    """A first step with normed queries and keys, which onnxruntime has on GPUs only."""
    assert past_key is None
    assert past_value is None
    assert total == query.shape[1]
    weights = rest[7:9]
    epsilons = q_norm_epsilon or qk_norm_epsilon, k_norm_epsilon or qk_norm_epsilon
    batch, length, _ = query.shape
    counts = num_heads, kv_num_heads, kv_num_heads
    heads = [
        x.astype(np.float64).reshape(batch, length, n, -1)
        for x, n in zip((query, key, value), counts, strict=True)
    ]
    for part, (weight, epsilon) in enumerate(zip(weights, epsilons, strict=True)):
        square = np.mean(heads[part] ** 2, -1, keepdims=True)
        heads[part] = heads[part] / np.sqrt(square + epsilon) * weight
    q, k, v = heads
    y = np.zeros_like(q)
    for b, row, head in np.ndindex(batch, length, num_heads):
        seen = min(row, seqlens_k[b]) + 1
        group = head // (num_heads // kv_num_heads)
        scores = k[b, :seen, group] @ q[b, row, head] / np.sqrt(q.shape[-1])
        weights_of_row = np.exp(scores - scores.max())
        y[b, row, head] = weights_of_row / weights_of_row.sum() @ v[b, :seen, group]
    return y.reshape(query.shape).astype(query.dtype)

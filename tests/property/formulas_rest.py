"""Formulas of fused projections, products with small floats, rotations, streams and Longformer.

A value that the documentation rounds to the type of the node is rounded here too; everything else
is computed in float64.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import ml_dtypes
import numpy as np

from tests.property.formulas import formula

Array: TypeAlias = np.ndarray[Any, Any]


def _wide(x: Array) -> Array:
    wide: Array = np.asarray(x).astype(np.float64)
    return wide


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _packed(matrix: Array, scales: Array, columns: int, bits: int) -> Array:
    """The rows of a matrix of MatMulNBits without zero points, one number at a time."""
    rows, blocks, _ = matrix.shape
    per_byte = 8 // bits
    scales = _wide(scales).reshape(rows, blocks)
    size = matrix.shape[2] * per_byte
    result = np.zeros((rows, columns))
    for row, column in np.ndindex(rows, columns):
        block, place = divmod(column, size)
        byte = int(matrix[row, block, place // per_byte])
        number = byte >> (place % per_byte * bits) & (2**bits - 1)
        result[row, column] = (number - 2 ** (bits - 1)) * scales[row, block]
    return result


def _projection(
    x: Array, matrix: Array, scales: Array, bias: Array | None, columns: int, bits: int
) -> Array:
    y = _wide(x) @ _packed(matrix, scales, columns, bits).T
    return (y if bias is None else y + _wide(bias)).astype(x.dtype)


def _normalized(
    x: Array, skip: Array | None, scale: Array | None, epsilon: float
) -> tuple[Array, Array]:
    """The normalized input, and the sum before."""
    total = _wide(x) if skip is None else _wide(x) + _wide(skip)
    if scale is None:
        return x, total.astype(x.dtype)
    root = np.sqrt((total**2).mean(-1, keepdims=True) + epsilon)
    return (total / root * _wide(scale)).astype(x.dtype), total.astype(x.dtype)


@formula("MatMulNBitsMlp")
def mat_mul_n_bits_mlp(
    x: Array, skip: Array | None, norm_scale: Array | None, *weights: Any, **given: Any
) -> tuple[Array, Array]:
    x, total = _normalized(x, skip, norm_scale, given.get("epsilon", 1e-5))
    columns, bits = given["K"], given.get("bits", 4)
    gate = _wide(_projection(x, *weights[:3], columns, bits))
    up = _wide(_projection(x, *[*weights[3:], None][:3], columns, bits))
    return (gate * _sigmoid(gate) * up).astype(x.dtype), total


@formula("MatMulNBitsQkv")
def mat_mul_n_bits_qkv(
    x: Array, skip: Array | None, norm_scale: Array, *weights: Any, **given: Any
) -> tuple[Array, ...]:
    x, total = _normalized(x, skip, norm_scale, given.get("epsilon", 1e-6))
    columns, bits = given["K"], given.get("bits", 4)
    weights = (*weights, None)  # the last bias may be left out
    parts = [_projection(x, *weights[i : i + 3], columns, bits) for i in (0, 3, 6)]
    return *parts, total


@formula("MatMulNBitsQLoRA")
def mat_mul_n_bits_qlora(
    x: Array,
    base: Array,
    scales: Array,
    down: Array,
    down_scales: Array,
    up: Array,
    up_scales: Array,
    **given: Any,
) -> Array:
    y = _projection(x, base, scales, None, given["K"], given.get("bits", 4))
    if not up.size:
        return y
    bits, rank = given.get("lora_bits", 8), len(down_scales)
    low = np.zeros((*x.shape[:-1], rank), x.dtype)
    if down.size:
        low = _projection(x, down, down_scales, None, given["K"], bits)
    return (_wide(y) + _wide(_projection(low, up, up_scales, None, rank, bits))).astype(x.dtype)


@formula("MatMulBlockQuantizedFp8Weight")
def mat_mul_block_quantized_fp8_weight(
    a: Array,
    b: Array,
    b_scale: Array,
    a_scale: Array | None = None,
    bias: Array | None = None,
    *,
    block_size: int = 128,
) -> Array:
    weights = _wide(b)
    for row, column in np.ndindex(*weights.shape):
        weights[row, column] *= b_scale[row, column // block_size]
    x = _wide(a)
    if a_scale is not None:
        scaled = np.clip(a.astype(np.float32) / a_scale, -448, 448)
        x = _wide(scaled.astype(ml_dtypes.float8_e4m3fn)) * _wide(a_scale)
    y = x @ weights.T
    return (y if bias is None else y + _wide(bias)).astype(a.dtype)


@formula("MatMulBlockQuantizedFp4Weight")
def mat_mul_block_quantized_fp4_weight(
    a: Array,
    b: Array,
    weight_scale: Array,
    weight_scale_2: Array,
    _input_scale: Array | None = None,
    bias: Array | None = None,
    *,
    block_size: int = 16,
) -> Array:
    rows, columns = b.shape[0], 2 * b.shape[1]
    scales = _wide(weight_scale.view(ml_dtypes.float8_e4m3fn))
    weights = np.zeros((rows, columns))
    for row, column in np.ndindex(rows, columns):
        code = np.uint8(b[row, column // 2] >> 4 * (column % 2) & 15)
        number = float(code.view(ml_dtypes.float4_e2m1fn))
        weights[row, column] = number * weight_scale_2.item() * scales[row, column // block_size]
    y = _wide(a) @ _wide(weights.astype(a.dtype)).T
    return (y if bias is None else y + _wide(bias)).astype(a.dtype)


@formula("GemmaRotaryEmbedding")
def gemma_rotary_embedding(
    emb: Array, q: Array, q_rot: Array, k: Array, k_rot: Array
) -> tuple[Array, Array]:
    sin, cos = (_wide(f(emb).astype(q.dtype))[:, None] for f in (np.sin, np.cos))
    parts = ((q, q_rot), (k, k_rot))
    q_embed, k_embed = (_wide(x) * cos + _wide(turned) * sin for x, turned in parts)
    return q_embed.astype(q.dtype), k_embed.astype(k.dtype)


@formula("RMSNormRotary")
def rms_norm_rotary(
    x: Array,
    scale: Array,
    positions: Array,
    cosine: Array,
    sine: Array,
    _prefill: Array | None = None,
    **given: Any,
) -> tuple[Array, Array]:
    output = np.dtype(np.float16 if given.get("output_fp16") else ml_dtypes.bfloat16)
    start, half = given.get("input_start", 0), given["rotary_embedding_dim"] // 2
    stop = start + given["input_width"] if given.get("input_width") else x.shape[-1]
    heads = _wide(x[..., start:stop])
    root = np.sqrt((heads**2).mean(-1, keepdims=True) + given.get("epsilon", 1e-6))
    normalized = heads / root * _wide(scale)
    if {x.dtype, cosine.dtype, output} == {np.dtype(ml_dtypes.bfloat16)}:
        normalized = _wide(normalized.astype(ml_dtypes.bfloat16))
    y = normalized.copy()
    for b, s in np.ndindex(*x.shape[:2]):
        position = positions[b, s] if positions.size > 1 else positions.item() + s
        cos, sin = _wide(cosine[position]), _wide(sine[position])
        first, second = normalized[b, s, :, :half], normalized[b, s, :, half : 2 * half]
        y[b, s, :, :half] = first * cos - second * sin
        y[b, s, :, half : 2 * half] = second * cos + first * sin
    batch, length = (1, -1) if given.get("flatten_batch") else x.shape[:2]
    flat = y.reshape(batch, length, y.shape[2] * y.shape[3])
    return flat.astype(output), normalized.astype(np.float32)


@formula("HyperConnectionLowRankMix")
def hyper_connection_low_rank_mix(
    streams: Array,
    norm_scale: Array,
    down_weight: Array,
    up_weight: Array,
    inject_weight: Array,
    block_output: Array | None = None,
    post_gate: Array | None = None,
    *,
    num_branches: int,
    **given: Any,
) -> tuple[Array, ...]:
    def rounded(x: Array) -> Array:
        return _wide(x.astype(streams.dtype))

    s = _wide(streams).reshape(*streams.shape[:-1], num_branches, -1)
    if block_output is not None and post_gate is not None:
        s = rounded(s + _wide(post_gate)[..., None] * _wide(block_output)[..., None, :])
    root = np.sqrt((s**2).mean(-1, keepdims=True) + given.get("epsilon", 1e-5))
    hn = rounded(s / root * _wide(norm_scale).reshape(s.shape[-2:]))
    flat = hn.reshape(streams.shape)
    z = rounded(given.get("silu_alpha", 1.0) * rounded(flat @ _wide(down_weight)))
    hidden = rounded(z * rounded(_sigmoid(z)))
    g = rounded(_sigmoid(rounded(hidden @ _wide(up_weight)))).reshape(s.shape)
    pre = given.get("reduction_scale", 1.0) * (hn * g).sum(-2)
    inject = rounded(rounded(flat @ _wide(inject_weight)) / given.get("gate_div", 1.0))
    gate = rounded(_sigmoid(inject)) * given.get("gate_mul", 1.0)
    return tuple(x.astype(streams.dtype) for x in (pre, gate, s.reshape(streams.shape)))


@formula("LongformerAttention")
def longformer_attention(
    x: Array,
    weight: Array,
    bias: Array,
    mask: Array,
    global_weight: Array,
    global_bias: Array,
    flags: Array,
    *,
    num_heads: int,
    window: int,
) -> Array:
    batch, length, width = x.shape
    head = width // num_heads
    parts = [
        (_wide(x) @ _wide(w) + _wide(b)).reshape(batch, length, 3, num_heads, head)
        for w, b in ((weight, bias), (global_weight, global_bias))
    ]
    y = np.zeros((batch, length, num_heads, head))
    for b, row, h in np.ndindex(batch, length, num_heads):
        if mask[b, row] < 0:
            continue
        qkv = parts[1 if flags[b, row] else 0][b, :, :, h]
        keys = [t for t in range(length) if flags[b, row] or flags[b, t] or abs(t - row) <= window]
        scores = qkv[keys, 1] @ qkv[row, 0] / np.sqrt(head) + _wide(mask[b, keys])
        weights = np.exp(scores - scores.max())
        y[b, row, h] = weights / weights.sum() @ qkv[keys, 2]
    return y.reshape(x.shape).astype(x.dtype)

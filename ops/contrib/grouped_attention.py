"""Attention of language models with a cache of keys and values: GroupQueryAttention.

The model builder of onnxruntime-genai writes it into every decoder.

Shapes in this file: queries [batch, heads, length, head], keys and values [batch, kv_heads,
columns, head], scores [batch, heads, length, columns]. `starts` are the positions of the first
queries of the entries of a batch, `ends` those of their last tokens.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.ops.attention import fused
from onnxinterp.ops.contrib.key_value_cache import quantizer, update
from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.ops.contrib.rotary import check_tables, look_up, rotate
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag, is_known

Quantization = Literal["NONE", "PER_TENSOR", "PER_CHANNEL"]


@contrib_op("GroupQueryAttention", frozen=("cos_cache", "sin_cache", "k_scale", "v_scale"))
def group_query_attention(
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    seqlens_k: Tensor | None = None,
    total_sequence_length: int | None = None,
    cos_cache: Tensor | None = None,
    sin_cache: Tensor | None = None,
    position_ids: Tensor | None = None,
    attention_bias: Tensor | None = None,
    head_sink: Tensor | None = None,
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
    q_norm_weight: Tensor | None = None,
    k_norm_weight: Tensor | None = None,
    query_seqlens: Tensor | None = None,
    *,
    causal: Flag = 1,
    do_rotary: Flag | None = None,
    k_norm_epsilon: float | None = None,
    k_quant_type: Quantization = "NONE",
    kv_cache_bit_width: int | None = None,
    kv_num_heads: int,
    local_window_size: int = -1,
    num_heads: int,
    q_norm_epsilon: float | None = None,
    qk_norm_epsilon: float = 9.999999974752427e-07,
    qk_output: Literal[0, 1, 2] = 0,
    rotary_interleaved: Flag | None = None,
    scale: float | None = None,
    sliding_window_cache: Flag = 0,
    smooth_softmax: int = -1,
    softcap: float | None = None,
    v_quant_type: Quantization = "NONE",
) -> tuple[Tensor, ...]:
    """`seqlens_k` is the number of tokens of an entry after the step, less 1.

    The first step has no past and may have padding after the tokens of an entry. Where the past is
    a buffer with room for the new tokens, the present has its size.
    """
    assert seqlens_k is not None, "seqlens_k must be given"
    assert total_sequence_length is not None, "total_sequence_length must be given"
    total = total_sequence_length
    heads, values = split_heads(query, key, value, num_heads, kv_num_heads)
    starts, rows, ends = _extents(seqlens_k, query_seqlens, heads)
    if q_norm_weight is not None or k_norm_weight is not None:
        epsilons = q_norm_epsilon or qk_norm_epsilon, k_norm_epsilon or qk_norm_epsilon
        heads = _normalize(heads, num_heads, (q_norm_weight, k_norm_weight), epsilons)
    if do_rotary:
        places = _positions(position_ids, rows, total, query_seqlens is not None)
        heads = rotate_heads(heads, places, rows, (cos_cache, sin_cache), bool(rotary_interleaved))
    q, k = heads.transpose(1, 2).tensor_split((num_heads,), 1)
    v = values.transpose(1, 2)
    new = (k if k.shape[1] else v), v  # without new keys, those of the cache are attended to
    keys_in = quantizer(k_scale, k_quant_type, kv_cache_bit_width)
    values_in = quantizer(v_scale, v_quant_type, kv_cache_bit_width)
    window = local_window_size if sliding_window_cache else None
    cached = update((past_key, past_value), new, (keys_in, values_in), starts, ends, total, window)
    allowed = visible(cached.positions, rows, ends, bool(causal), local_window_size)
    bias = _column_bias(attention_bias, q, total, cached.positions)
    sink = _sinks(head_sink, smooth_softmax, q)
    inputs = q, cached.keys, cached.values, allowed, bias
    y, scores = attend(*inputs, scale=scale, softcap=softcap, sink=sink, qk_output=qk_output)
    y = y.transpose(1, 2).flatten(2)
    presents = cached.present_key, cached.present_value
    return (y, *presents) if scores is None else (y, *presents, scores[..., :total])


def split_heads(
    query: Tensor, key: Tensor | None, value: Tensor | None, heads: int, kv_heads: int
) -> tuple[Tensor, Tensor]:
    """Heads of queries and then of keys, and those of values: [batch, length, heads, head].

    Keys and values of length 0 mean that this layer reads the cache of another one.
    """
    if heads <= 0 or kv_heads <= 0 or heads % kv_heads:
        raise ValueError(f"heads must be a multiple of those of keys, got {heads} and {kv_heads}")
    if (key is None) != (value is None):
        raise ValueError("key and value must be given together")
    every = heads if key is not None else heads + 2 * kv_heads
    if query.ndim != 3 or query.shape[2] % every:
        raise ValueError(f"query must be [batch, length, {every} * head], got {list(query.shape)}")
    if key is None or value is None:
        packed = torch.unflatten(query, -1, (every, -1))
        joint, values = torch.split(packed, [heads + kv_heads, kv_heads], 2)
        return joint, values
    batch, length, width = query.shape
    is_shared = is_known(key.shape[1]) and key.shape[1] == 0
    expected = (batch, 0 if is_shared else length, width // heads * kv_heads)
    if key.shape != expected or value.shape != expected:
        got = f"{list(key.shape)} and {list(value.shape)}"
        raise ValueError(f"key and value must be {list(expected)}, got {got}")
    values = torch.unflatten(value, -1, (kv_heads, -1))
    joint = query if is_shared else torch.cat((query, key), -1)
    return torch.unflatten(joint, -1, (-1, width // heads)), values


def _extents(
    seqlens_k: Tensor, query_seqlens: Tensor | None, heads: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Positions: of the first query of each entry, of all of them, and of the last token.

    They are [batch, 1], [batch, length] and [batch, 1].
    """
    batch, length = heads.shape[:2]
    for counts in (seqlens_k, query_seqlens):
        if counts is not None and counts.numel() != batch:
            raise ValueError(f"lengths of entries must be [{batch}], got {list(counts.shape)}")
    ends = seqlens_k.reshape(-1, 1)
    if query_seqlens is None and is_known(length) and length == 1:
        return ends, ends, ends
    new = length if query_seqlens is None else query_seqlens.reshape(-1, 1)
    starts = (ends + 1 - new).clamp_min(0)
    return starts, starts + torch.arange(length, device=ends.device), ends


def _normalize(
    heads: Tensor,
    count: int,
    weights: tuple[Tensor | None, Tensor | None],
    epsilons: tuple[float, float],
) -> Tensor:
    """The RMS norm of each head of queries and of keys."""
    parts = heads.tensor_split((count,), 2)
    if weights[0] is None or weights[1] is None:
        raise ValueError("q_norm_weight and k_norm_weight must be given together")
    width = heads.shape[3:]
    normalized = [
        functional.rms_norm(x, width, w, e)
        for x, w, e in zip(parts, weights, epsilons, strict=True)
    ]
    return torch.cat(normalized, 2)


def _positions(
    position_ids: Tensor | None, rows: Tensor, total: int, is_chunk: bool
) -> Tensor | None:
    """Positions for the rotation; onnxruntime reads only the first one of a first step.

    None for those of the rows of a chunk, where those of padding may be beyond the tables.
    """
    if position_ids is None:
        return None if is_chunk else rows
    if position_ids.shape != rows.shape:
        got = list(position_ids.shape)
        raise ValueError(f"position_ids must be {list(rows.shape)}, got {got}")
    if is_chunk:
        return position_ids
    length = rows.shape[1]
    ahead = position_ids[:1, :1] + torch.arange(length, device=rows.device)
    if is_known(length) and is_known(total):
        return ahead.expand(rows.shape) if length == total else position_ids
    is_first = torch.scalar_tensor(total - length, device=rows.device) == 0
    return torch.where(is_first, ahead, position_ids)


def visible(positions: Tensor, rows: Tensor, ends: Tensor, causal: bool, window: int) -> Tensor:
    """Which columns a row attends to, by their positions: [batch, 1, length, columns].

    A row of padding has the window of the last token; onnxruntime has two answers for it. Nothing
    is visible in a window of 0, and a negative number is none.
    """
    last = torch.minimum(rows, ends) if causal and rows is not ends else ends
    last = last[:, None, :, None]
    columns = positions if positions.ndim == 1 else positions[:, None, None]
    allowed = columns <= last
    return allowed & (columns > last - window) if window >= 0 else allowed


def rotate_heads(
    heads: Tensor,
    positions: Tensor | None,
    rows: Tensor,
    tables: tuple[Tensor | None, Tensor | None],
    interleaved: bool,
) -> Tensor:
    """Rotate queries and keys."""
    cos_cache, sin_cache = tables
    if cos_cache is None or sin_cache is None:
        raise ValueError("do_rotary must have cosines and sines")
    check_tables(cos_cache, sin_cache)
    if positions is None:
        positions = rows.clamp_max(cos_cache.shape[0] - 1)
    cos, sin = look_up(positions.unsqueeze(-1), cos_cache, sin_cache)
    return rotate(heads, cos, sin, interleaved)


def _column_bias(bias: Tensor | None, q: Tensor, total: int, positions: Tensor) -> Tensor | None:
    """The bias of each column, which it has by position. Columns beyond it are not allowed."""
    if bias is None:
        return None
    heads = q.shape[1]
    expected = [f"1 or {q.shape[0]}", f"1 or {heads}", str(q.shape[2]), str(total)]
    sizes = (1, q.shape[0]), (1, heads), (q.shape[2],), (total,)
    if bias.ndim != 4 or any(n not in s for n, s in zip(bias.shape, sizes, strict=True)):
        raise ValueError(f"attention_bias must be {expected}, got {list(bias.shape)}")
    if positions.ndim == 1:
        return functional.pad(bias, (0, positions.shape[0] - bias.shape[3]))
    index = positions.clamp_max(bias.shape[3] - 1)[:, None, None, :]
    spread = bias.expand(q.shape[0], -1, -1, -1)
    return spread.gather(3, index.expand(*spread.shape[:3], -1))


def _sinks(head_sink: Tensor | None, smooth: int, q: Tensor) -> Tensor | None:
    """The score of each head that only the denominator of the softmax has."""
    if head_sink is None:
        return q.new_zeros(1, 1, 1, 1) if smooth == 1 else None
    if head_sink.shape != q.shape[1:2]:
        raise ValueError(f"head_sink must be [{q.shape[1]}], got {list(head_sink.shape)}")
    return head_sink.reshape(1, -1, 1, 1)


def attend(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    allowed: Tensor,
    bias: Tensor | None,
    *,
    scale: float | None,
    softcap: float | None,
    sink: Tensor | None,
    qk_output: int,
) -> tuple[Tensor, Tensor | None]:
    """The output, and the scores or, with `qk_output` 2, the weights; 0 where not allowed.

    It is 0 for a query without any key. A `softcap` that is not positive is none.
    """
    softcap = None if softcap is None or softcap <= 0 else softcap
    if not (qk_output or softcap) and sink is None:
        mask = allowed if bias is None else bias.where(allowed, -math.inf)
        if mask.shape[1] == 1 and is_known(q.shape[2]) and q.shape[2] == 1:
            # the queries of a group see the same keys, so they may be rows of one head
            grouped = q.reshape(q.shape[0], keys.shape[1], -1, q.shape[3])
            return fused(grouped, keys, values, mask, scale or None, False).reshape(q.shape), None
        return fused(q, keys, values, mask, scale or None, False), None
    groups = q.shape[1] // keys.shape[1]
    if groups > 1:
        keys, values = (x.repeat_interleave(groups, 1) for x in (keys, values))
    scores = (q @ keys.transpose(-1, -2)) * (scale or q.shape[-1] ** -0.5)
    if softcap:
        scores = softcap * (scores / softcap).tanh()
    if bias is not None:
        scores = scores + bias
    logits = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    if sink is not None:
        logits = torch.cat((logits, sink.expand(*logits.shape[:3], 1)), -1)
    weights = logits.softmax(-1)[..., : keys.shape[2]].masked_fill(~allowed, 0)
    if not qk_output:
        return weights @ values, None
    return weights @ values, weights if qk_output == 2 else scores.masked_fill(~allowed, 0)


class _Step(NamedTuple):
    """Sizes of a step: slots of the past, the total, of entries the total less 1, and the kind."""

    batch: int
    length: int
    past: int | None
    total: int
    lengths: Tensor
    kind: str
    window: int | None


def _draw_step(d: Draw, whole: bool) -> _Step:
    kinds = ["first", "first in a buffer", "token", "token in a buffer", "several", "chunk"]
    kind = d.choice([*kinds, "shared", "window"] if whole else kinds[:1])
    batch = 1 if kind in ("several", "window") else d.integer(1, 3)
    window = d.choice([None, -1, 0, 1, 2])
    if kind == "window":  # the slots are full: onnxruntime leaves free ones as they are
        width = d.integer(1, 3)
        total = 3 + d.integer(0, 1) * (4 - width)
        length = d.integer(1, total)
        return _Step(1, length, 3, total, torch.tensor([total - 1]).int(), kind, width)
    if kind.startswith("first"):
        length = total = d.integer(1, 4)
        past = d.choice([None, 0] if whole else [None])
        past = past if kind == "first" else total + d.integer(0, 2)
        # of padding in a window onnxruntime has two answers
        least = total - 1 if window in (0, 1, 2) else 0
        lengths = d.ints((batch,), least, total - 1, torch.int32)
        return _Step(batch, length, past, total, lengths, kind, window)
    length = d.integer(1, 3) if kind in ("several", "chunk") else 1
    total = length + d.integer(1, 3)
    past = total if kind == "shared" else total - length
    past = total + d.integer(0, 2) if kind == "token in a buffer" else past
    lengths = d.ints((batch,), length - 1, total - 1, torch.int32)
    return _Step(batch, length, past, total, lengths, kind, window)


def _draw_cache(d: Draw, shape: tuple[int, ...]) -> tuple[list[Tensor], dict[str, Any]]:
    """Keys and values, and with what attributes they are quantized."""
    if d.dtype("T_CACHE").is_floating_point:
        return [d.tensor(shape, "T_CACHE", lo=-1, hi=1) for _ in range(2)], {}
    bits = 8 if d.dtype("T_CACHE") is torch.int8 else 4
    shape = (*shape[:3], shape[3] * bits // 8)
    kind = d.choice(["PER_TENSOR", "PER_CHANNEL"])
    quantized = {"k_quant_type": kind, "v_quant_type": kind, "kv_cache_bit_width": bits}
    return [d.tensor(shape, "T_CACHE", lo=-128, hi=255) for _ in range(2)], quantized


@sample(group_query_attention)
def _(d: Draw) -> Call:
    own, cached = d.dtype("T"), d.dtype("T_CACHE")
    fits = own is cached or (cached.itemsize == 1 and own is torch.float32)
    step = _draw_step(d, fits)
    batch, length, past, total, lengths, kind, window = step
    kv_heads, groups, causal = d.integer(1, 2), d.integer(1, 2), d.choice([None, 1, 0])
    causal = 1 if kind in ("chunk", "window") else causal
    heads, rotary = kv_heads * groups, d.boolean()
    head = d.choice([16, 32]) if rotary else d.choice([8, 16])
    head = 32 if kind == "window" and cached is torch.uint8 else head
    new = 0 if kind == "shared" else length
    parts = [(batch, length, heads * head), *[(batch, new, kv_heads * head)] * 2]
    inputs: list[Tensor | None] = [d.tensor(shape, lo=-1, hi=1) for shape in parts]
    if kind != "shared" and d.boolean():
        inputs = [torch.cat([x for x in inputs if x is not None], -1), None, None]
    caches, quantized = _draw_cache(d, (batch, kv_heads, past or 0, head))
    scales: list[Tensor | None] = [None, None]
    if past is None:
        quantized = {}
    elif quantized:
        size = (1,) if quantized["k_quant_type"] == "PER_TENSOR" else (1, kv_heads, 1, head)
        scales = [d.floats(size, lo=0.01, hi=0.1) for _ in range(2)]
    inputs += [None, None] if past is None else caches
    table = (8, d.choice([8, head // 2]))
    rotation: list[Tensor | None] = [d.tensor(table, lo=-1, hi=1) for _ in range(2)]
    rotation.append(d.maybe(d.ints((batch, length), 0, 4)))
    scores = (d.choice([1, batch]), d.choice([1, heads]), length, total)
    bias = d.maybe(d.tensor(scores, lo=-2, hi=2))
    # the types of outputs that no input has are those of a float32 model
    typed = (fits and past is not None) or own is torch.float32
    qk_output = d.choice([None, 0, 1, 2] if typed and kind != "window" else [None, 0])
    # with a past and without presents, onnxruntime reads keys that it has not written
    outputs = 4 if qk_output else d.choice([3] if past is not None else [1, 3] if typed else [1])
    return call(
        *inputs,
        lengths,
        torch.tensor(total, dtype=torch.int32),
        *(rotation if rotary else (None, None, None)),
        bias,
        d.maybe(d.tensor((heads,), lo=-2, hi=2)),
        *scales,
        None,
        None,
        torch.full((batch,), length, dtype=torch.int32) if kind == "chunk" else None,
        outputs=outputs,
        causal=causal,
        do_rotary=1 if rotary else d.maybe(0),
        kv_num_heads=kv_heads,
        local_window_size=None if causal == 0 else window,
        num_heads=heads,
        qk_output=qk_output,
        rotary_interleaved=d.maybe(d.integer(0, 1)),
        scale=d.maybe(d.real(0.25, 1)),
        sliding_window_cache=1 if kind == "window" else d.maybe(0),
        smooth_softmax=d.choice([None, -1, 0, 1]),
        softcap=d.choice([None, 0.0, 2.0, -2.0]),
        **quantized,
    )

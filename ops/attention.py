"""Scaled dot product attention: Attention.

History: 23, 24 (`nonpad_kv_seqlen`: number of valid keys, for an external cache), 25 (windows).

Shapes in this file: queries [batch, q_heads, q_length, head], keys and values [batch, kv_heads,
length, head], scores [batch, q_heads, q_length, length]. The output is 0 for a query without any
key.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional

from onnxinterp.ops.arithmetic import add, div, mul
from onnxinterp.ops.comparison import where
from onnxinterp.ops.matmul import mat_mul
from onnxinterp.ops.softmax import softmax, softmax_1
from onnxinterp.ops.unary import is_nan
from onnxinterp.registry import Pattern, fuse, op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag, is_known
from onnxinterp.versions import older

HALF = (torch.float16, torch.bfloat16)


@op("Attention", since=25)
def attention(
    Q: Tensor,
    K: Tensor,
    V: Tensor,
    attn_mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    nonpad_kv_seqlen: Tensor | None = None,
    *,
    is_causal: Flag = 0,
    kv_num_heads: int | None = None,
    left_window_size: int = -1,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: torch.dtype | None = None,
    n_outputs: int,
) -> tuple[Tensor, ...]:
    """One fused call if only Y is needed, step by step otherwise."""
    _check_inputs(Q, K, V, scale)
    q, k, v = _heads(Q, q_num_heads), _heads(K, kv_num_heads), _heads(V, kv_num_heads)
    _check_past(q, past_key, past_value, nonpad_kv_seqlen)
    if past_key is not None and past_value is not None:
        k, v = torch.cat((past_key, k), 2), torch.cat((past_value, v), 2)
    check_heads(q, k, v)
    windows = is_causal, left_window_size, right_window_size
    plain = n_outputs < 4 and not softcap and is_fused(q.dtype, softmax_precision)
    if plain and attn_mask is past_key is nonpad_kv_seqlen is None and windows[1:] == (-1, -1):
        y, qk = fused(q, k, v, None, scale, bool(is_causal)), None
    else:
        past = None if past_key is None else past_key.shape[2]
        bias = _bias(attn_mask, _allowed(q, k, past, nonpad_kv_seqlen, *windows), q, k.shape[2])
        if plain:
            y, qk = fused(q, k, v, bias, scale, False), None
        else:
            modes = softcap, softmax_precision, qk_matmul_output_mode
            y, qk = _stepwise(q, k, v, bias, scale, *modes)
    y = y.transpose(1, 2).flatten(2) if Q.ndim == 3 else y
    return (y, k, v) if qk is None else (y, k, v, qk)


def _check_inputs(Q: Tensor, K: Tensor, V: Tensor, scale: float | None) -> None:
    if not Q.ndim == K.ndim == V.ndim:
        raise ValueError(f"Q, K and V must have one rank, got {Q.ndim}, {K.ndim} and {V.ndim}")
    if scale is not None and scale < 0:  # its square root is used
        raise ValueError(f"scale must not be negative, got {scale}")


def _heads(x: Tensor, count: int | None) -> Tensor:
    """[batch, length, heads * head] as [batch, heads, length, head]."""
    if x.ndim == 4 and count in (None, 0, x.shape[1]):
        return x
    if x.ndim != 3 or not count:
        raise ValueError(f"the number of heads must fit the input {list(x.shape)}, got {count}")
    return torch.unflatten(x, -1, (count, -1)).transpose(1, 2)


def _check_past(
    q: Tensor, past_key: Tensor | None, past_value: Tensor | None, key_counts: Tensor | None
) -> None:
    """Check the sizes of past keys and values and of the number of valid keys."""
    pasts = [x.shape[:3] for x in (past_key, past_value) if x is not None]
    if len(pasts) == 1 or pasts[:1] != pasts[1:]:
        raise ValueError(f"past keys and values must fit, got {[list(s) for s in pasts]}")
    if key_counts is not None and (pasts or key_counts.shape != q.shape[:1]):
        expected = f"[{q.shape[0]}] without past keys"
        raise ValueError(f"nonpad_kv_seqlen must be {expected}, got {list(key_counts.shape)}")


def check_heads(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Check sizes of keys and values that torch would broadcast, or cut, to fit the queries."""
    heads = q.shape[1] % k.shape[1] == 0
    if not heads or k.shape[0] != q.shape[0] or k.shape[:3] != v.shape[:3]:
        shapes = [list(x.shape) for x in (q, k, v)]
        raise ValueError(f"sizes of queries, keys and values must fit each other, got {shapes}")


def is_fused(dtype: torch.dtype, softmax_precision: torch.dtype | None) -> bool:
    """Whether torch's fused kernels compute the softmax in this precision; float32 for halves."""
    if softmax_precision is None or softmax_precision is dtype:
        return True
    return softmax_precision is torch.float32 and dtype in HALF


def fused(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float | None, is_causal: bool
) -> Tensor:
    attend = functional.scaled_dot_product_attention
    if q.shape[1] != k.shape[1]:  # only here, because a symbolic number of heads adds a guard
        attend = partial(attend, enable_gqa=True)
    return attend(q, k, v.to(q.dtype), attn_mask=bias, is_causal=is_causal, scale=scale)


def _attention_in_parts(scores: Pattern) -> list[Pattern]:
    """With or without a mask; exporters may replace weights that are NaN by zero."""
    masked = (add, scores, "mask")
    kernels = softmax, softmax_1
    weights = [(kernel, s) for s in (masked, scores) for kernel in kernels]
    return [(mat_mul, w, "V") for p in weights for w in (p, (where, (is_nan, p), "zero", p))]


QK = (mat_mul, "Q", "K")


@fuse(
    *_attention_in_parts((mat_mul, (mul, "Q", "root"), (mul, "K", "root"))),
    *_attention_in_parts((mul, QK, "scale")),
    *_attention_in_parts((mat_mul, (mul, "Q", "scale"), "K")),
    *_attention_in_parts((div, QK, "divisor")),
    *_attention_in_parts((mat_mul, (div, "Q", "divisor"), "K")),
    *_attention_in_parts(QK),
)
def attention_in_parts(
    Q: Tensor,
    K: Tensor,
    V: Tensor,
    mask: Tensor | None,
    *,
    axis: int,
    scale: float = 1.0,
    divisor: float = 1.0,
    root: float = 1.0,
    zero: float | None = None,
) -> Any:
    """The keys are columns. The softmax of the scores is NaN for a query without any key.

    Where scores are NaN or overflow, torch's kernels may return 0 and not NaN. They do the same in
    the module that a graph was exported from.
    """
    if zero:
        return NotImplemented
    if forward_ad._current_level >= 0:
        return NotImplemented  # torch's fused kernels have no forward derivative
    if is_known(K.shape[-1]) and K.shape[-1] == 0:
        return NotImplemented  # without keys it is 0: a sum of nothing
    plain = Q.ndim == K.ndim == V.ndim == 4 and axis in (-1, 3) and divisor
    if not plain or not Q.shape[:2] == K.shape[:2] == V.shape[:2] or Q.shape[3] != V.shape[3]:
        return NotImplemented
    factor = scale / divisor * root * root
    if mask is None:
        return fused(Q, K.transpose(2, 3), V, None, factor, False)
    scores = (*Q.shape[:3], K.shape[3])
    fits = all(n in (1, size) for n, size in zip(mask.shape[::-1], scores[::-1], strict=False))
    if not fits or not 2 <= mask.ndim <= 4 or mask.dtype != Q.dtype:
        return NotImplemented  # torch's kernels do not support such a mask
    y = fused(Q, K.transpose(2, 3), V, mask, factor, False)
    if zero is not None:
        return y
    return y.masked_fill((mask == -math.inf).all(-1, keepdim=True), math.nan)


def _allowed(
    q: Tensor,
    k: Tensor,
    past: int | None,
    key_counts: Tensor | None,
    is_causal: Flag,
    left: int,
    right: int,
) -> Tensor | None:
    """True where position and padding allow a query to attend a key; None if they always do.

    The queries are at the end of the valid keys: the position of query i is i + past, or
    i + key_counts - q_length.
    """
    device, length = q.device, q.shape[2]
    keys = torch.arange(k.shape[2], device=device)
    allowed = None
    if key_counts is not None:
        key_counts = key_counts.reshape(-1, 1, 1, 1)
        allowed = keys < key_counts
    if not is_causal and left < 0 and right < 0:
        return allowed
    queries = torch.arange(length, device=device).unsqueeze(-1)
    if past is not None:
        queries = queries + past
    elif key_counts is not None:
        queries = queries + (key_counts - length)
    ahead = keys - queries
    limits = ([ahead <= 0] if is_causal else []) + ([ahead <= right] if right >= 0 else [])
    limits += [ahead >= -left] if left >= 0 else []
    for limit in limits:
        allowed = limit if allowed is None else allowed & limit
    return allowed


def _bias(mask: Tensor | None, allowed: Tensor | None, q: Tensor, length: int) -> Tensor | None:
    """The bias that is added to the scores; a bool bias means 0 for True and -inf for False.

    A mask may be shorter than the keys: the remaining keys are masked.
    """
    if mask is None:
        return allowed
    boolean = mask.dtype is torch.bool
    if mask.shape[-1] != length:
        rest = (0, length - mask.shape[-1])
        if rest[1] < 0:
            raise ValueError(f"attn_mask must have at most {length} keys, got {list(mask.shape)}")
        mask = functional.pad(mask, rest, value=False if boolean else -math.inf)
    scores = [*q.shape[:3], length]
    fits = zip(mask.shape[::-1], scores[::-1], strict=False)
    if mask.ndim > 4 or any(n not in (size, 1) for n, size in fits):
        raise ValueError(f"attn_mask must broadcast to {scores}, got {list(mask.shape)}")
    mask = mask.unsqueeze(0) if mask.ndim == 1 else mask
    if boolean:
        return mask if allowed is None else mask & allowed
    mask = mask.to(q.dtype)
    return mask if allowed is None else mask.where(allowed, -math.inf)


def _stepwise(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    scale: float | None,
    softcap: float,
    precision: torch.dtype | None,
    mode: int,
) -> tuple[Tensor, Tensor]:
    """The output and the scores after the step that `mode` names."""
    if mode not in range(4):
        raise ValueError(f"qk_matmul_output_mode must be 0 to 3, got {mode}")
    if q.shape[1] != k.shape[1]:
        repeats = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    root = q.new_full((), q.shape[-1] ** -0.25 if scale is None else math.sqrt(scale))
    product = (q * root) @ (k * root).transpose(-1, -2)
    capped = softcap * (product / softcap).tanh() if softcap else product
    if bias is None:
        biased, weights = capped, capped.softmax(-1, dtype=precision).to(q.dtype)
    else:
        if bias.dtype is torch.bool:
            bias = torch.zeros_like(bias, dtype=q.dtype).masked_fill(~bias, -math.inf)
        biased, alone = capped + bias, (bias == -math.inf).all(-1, keepdim=True)
        attended = biased.masked_fill(alone, 0)  # otherwise the softmax and its gradient are NaN
        weights = attended.softmax(-1, dtype=precision).to(q.dtype).masked_fill(alone, 0)
    return weights @ v.to(q.dtype), (product, capped, biased, weights)[mode]


attention_24 = older(attention, since=24, without=["left_window_size", "right_window_size"])
attention_23 = older(attention_24, since=23, without=["nonpad_kv_seqlen"])


def _draw_mask(
    d: Draw, batch: int, heads: int, queries: int, keys: int, causal: int | None
) -> Tensor | None:
    """None, numbers or bool.

    A mask of one row for all queries is drawn without is_causal only: otherwise the reference
    evaluator also reduces the causal mask to one row.
    """
    shapes: list[tuple[int, ...]] = [(queries, keys), (heads, queries, keys)]
    shapes += [(batch, 1, queries, keys), (1, heads, queries if causal else 1, keys)]
    mask: Tensor = d.tensor(d.choice(shapes), "U", lo=-2, hi=2)
    if mask.dtype is torch.bool:
        mask[..., 0] = True  # without keys, onnxruntime's result depends on the dtype
    return d.maybe(mask)


def _draw_modes(d: Draw, has_infinite: bool) -> dict[str, float | torch.dtype | None]:
    """Attributes of the scores and the softmax for which the oracles agree."""
    softcap = d.choice([None, 0.0, 2.0])
    modes = [None, 0, 1, 2, 3]
    if softcap:
        modes = [1, 2, 3]  # the reference evaluator confuses modes 0 and 1
    if has_infinite:
        modes.remove(2)  # onnxruntime may return the lowest number in place of -inf
    precisions = [torch.float64, torch.float32]
    if d.dtype("T1") is torch.float64:
        precisions.pop()
    return {
        "softcap": softcap,
        "qk_matmul_output_mode": d.choice(modes),
        "softmax_precision": d.maybe(d.choice(precisions)),
    }


@sample(attention)
def _(d: Draw) -> Call:
    batch, kv_heads, head, v_head = [d.integer(1, 2) for _ in range(4)]
    q_heads, queries, new = kv_heads * d.integer(1, 2), d.integer(1, 3), d.integer(1, 4)
    past = d.choice([None, 1, 2])
    total = new + (past or 0)
    counted = d.opset >= 24 and past is None and d.boolean()
    inputs: list[Tensor | None] = [
        d.tensor((batch, q_heads, queries, head), "T1", lo=-2, hi=2),
        d.tensor((batch, kv_heads, new, head), "T1", lo=-2, hi=2),
        d.tensor((batch, kv_heads, new, v_head), "T2", lo=-2, hi=2),
    ]
    heads = {}
    if d.boolean():
        inputs = [x.transpose(1, 2).flatten(2) for x in inputs if x is not None]
        heads = {"q_num_heads": q_heads, "kv_num_heads": kv_heads}
    # onnxruntime lets a single query see all new keys, whatever is_causal says
    causal = d.maybe(d.integer(0, 1)) if queries > 1 or new == 1 else None
    mask = _draw_mask(d, batch, q_heads, queries, total, causal)
    cached = (batch, kv_heads, past or 1)
    caches = d.tensor((*cached, head), "T1"), d.tensor((*cached, v_head), "T2")
    inputs += [mask, *(caches if past else (None, None))]
    if d.opset >= 24:
        inputs.append(d.ints((batch,), 1, total) if counted else None)
    attributes: dict[str, int | None] = {"is_causal": causal}
    if d.opset >= 25:
        attributes["left_window_size"] = d.maybe(d.integer(-1, 2))
        attributes["right_window_size"] = d.maybe(d.integer(-1, 2))
    is_bool = mask is not None and mask.dtype is torch.bool
    modes = _draw_modes(d, is_bool or any(v is not None for v in attributes.values()))
    outputs, scale = 1 if counted else d.choice([1, 4]), d.maybe(d.real(0.25, 1))
    return call(*inputs, outputs=outputs, scale=scale, **heads, **attributes, **modes)

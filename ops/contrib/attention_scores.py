"""What the attention operators of onnxruntime share: heads, caches, masks and the products.

Shapes in this family: queries [batch, heads, q_length, head], keys and values [batch, heads,
length, head], scores [batch, heads, q_length, length].

A mask adds a number to the scores, -10000 by default: a query with masked keys only attends to all
of them. Causality hides keys instead: their score is the lowest number.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

FILTER_VALUE = -10000.0  # the default of `mask_filter_value`
LOWEST = torch.finfo(torch.float32).min
INF = float("inf")


class Keys(NamedTuple):
    """Keys and values, those of the past first.

    Attributes:
        k: keys.
        v: values.
        past: how many are of the past; in a buffer a tensor.
        filled: how many slots of a buffer are filled; None where all are.
    """

    k: Tensor
    v: Tensor
    past: int | Tensor = 0
    filled: Tensor | None = None


class Scoring(NamedTuple):
    """The attributes that say how scores are computed."""

    scale: float | None = None
    mask_filter_value: float | None = None
    is_causal: bool = False


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[batch, length, heads * head] as [batch, heads, length, head]."""
    if x.ndim != 3 or heads < 1 or x.shape[-1] < heads or x.shape[-1] % heads:
        raise ValueError(f"the input must be [batch, length, {heads} * head], got {list(x.shape)}")
    return torch.unflatten(x, -1, (heads, x.shape[-1] // heads)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """The inverse of `split_heads`."""
    return x.transpose(1, 2).flatten(2)


def project(
    x: Tensor, weights: Tensor, bias: Tensor | None, heads: int, sizes: list[int] | None = None
) -> tuple[Tensor, ...]:
    """Queries, keys and values of one product with merged weights.

    Args:
        x: [batch, length, input].
        weights: [input, hidden + hidden + v_hidden].
        bias: [hidden + hidden + v_hidden].
        heads: number of heads.
        sizes: hidden sizes of queries, keys and values; equal by default.
    """
    if x.ndim != 3 or weights.ndim != 2 or weights.shape[0] != x.shape[2]:
        got = f"{list(x.shape)} and {list(weights.shape)}"
        raise ValueError(f"input and weights must be [batch, length, n] and [n, hidden], got {got}")
    width = weights.shape[1]
    if bias is not None and bias.shape != (width,):
        raise ValueError(f"bias must be [{width}], got {list(bias.shape)}")
    return split_projection(functional.linear(x, weights.t(), bias), heads, sizes)


def split_projection(
    projected: Tensor, heads: int, sizes: list[int] | None = None
) -> tuple[Tensor, ...]:
    """Queries, keys and values side by side, in heads."""
    width = projected.shape[-1]
    if sizes is None:
        sizes = [width // 3] * 3
    if len(sizes) != 3 or sizes[0] != sizes[1] or min(sizes) < 1 or sum(sizes) != width:
        raise ValueError(f"sizes of queries, keys and values must add up to {width}, got {sizes}")
    return tuple(split_heads(x, heads) for x in torch.split(projected, sizes, -1))


def unpack(packed: Tensor, heads: int, count: int) -> tuple[Tensor, ...]:
    """The parts of [..., heads, count, head]."""
    if packed.shape[-3:-1] != (heads, count):
        expected = f"[..., {heads}, {count}, head]"
        raise ValueError(f"a packed input must be {expected}, got {list(packed.shape)}")
    return packed.unbind(-2)


def split_bias(bias: Tensor, width: int, v_width: int) -> tuple[Tensor, ...]:
    """The biases of queries, keys and values."""
    if bias.shape != (2 * width + v_width,):
        raise ValueError(f"bias must be [{2 * width + v_width}], got {list(bias.shape)}")
    return torch.split(bias, [width, width, v_width])


def append(
    k: Tensor, v: Tensor, past: tuple[Tensor, Tensor] | None, position: Tensor | None = None
) -> Keys:
    """New keys and values after those of the past.

    Args:
        k: new keys.
        v: new values.
        past: keys and values of the past, or buffers of which a part is filled.
        position: number of filled slots, if they are buffers.
    """
    if past is None:
        return Keys(k, v)
    for new, old in zip((k, v), past, strict=True):
        if old.ndim != 4 or old.shape[:2] != new.shape[:2] or old.shape[3] != new.shape[3]:
            expected = f"[{new.shape[0]}, {new.shape[1]}, length, {new.shape[3]}]"
            raise ValueError(f"past keys and values must be {expected}, got {list(old.shape)}")
    if position is None:
        return Keys(torch.cat((past[0], k), 2), torch.cat((past[1], v), 2), past[0].shape[2])
    if position.numel() != 1:
        raise ValueError(f"past_sequence_length must be one number, got {list(position.shape)}")
    position = position.reshape(())
    slots = position + torch.arange(k.shape[2], device=k.device)
    buffers = past[0].index_copy(2, slots, k), past[1].index_copy(2, slots, v)
    return Keys(*buffers, position, position + k.shape[2])


def filled_slots(position: Tensor | None, *, is_shared: bool) -> Tensor | None:
    """How many slots of a buffer are filled; None where past keys are no buffer."""
    if is_shared and position is None:
        raise ValueError("a shared buffer needs past_sequence_length")
    return position if is_shared else None


def follow_beams(keys: Keys, sources: Tensor | None) -> Keys:
    """The past of each beam, whose keys are in the rows of other beams.

    Args:
        keys: of all beams of the batch.
        sources: [batch, beams, slots]: the beam that has the key of a slot.
    """
    if sources is None:
        return keys
    rows, heads, slots, _ = keys.k.shape
    if sources.ndim != 3 or sources.shape[0] * sources.shape[1] != rows or sources.shape[2] < slots:
        expected = f"[batch, beams, {slots}] with {rows} beams in all"
        raise ValueError(f"cache_indirection must be {expected}, got {list(sources.shape)}")
    beams = sources.shape[1]
    own = torch.arange(beams, device=sources.device).unsqueeze(-1)
    is_past = torch.arange(slots, device=sources.device) < keys.past
    index = sources[:, :, :slots].where(is_past, own).to(torch.int64)

    def gather(x: Tensor) -> Tensor:
        rows_of = index[:, :, None, :, None].expand(-1, -1, heads, -1, x.shape[-1])
        return torch.unflatten(x, 0, (-1, beams)).gather(1, rows_of).flatten(0, 1)

    return keys._replace(k=gather(keys.k), v=gather(keys.v))


def seen_keys(mask: Tensor, q: Tensor, length: int, past: int | Tensor) -> Tensor:
    """True where a mask lets a query see a key, [batch, 1, 1 or q_length, length].

    1-D: the ends of the keys [batch], ends and starts [2 * batch], or ends and cumulated lengths
    [3 * batch + 2]. Positive in 2-D [batch, length], 3-D [batch, q_length, length] and 4-D
    [batch, 1, most, most], of which the rows of the queries are used.
    """
    batch, queries = q.shape[0], q.shape[2]
    if mask.ndim == 1:
        keys = torch.arange(length, device=mask.device)
        ends, starts = mask[:batch, None], mask[batch : 2 * batch, None]
        if mask.shape[0] == batch or mask.shape[0] == 3 * batch + 2:
            return (keys < ends)[:, None, None]
        if mask.shape[0] == 2 * batch:
            return ((keys < ends) & (keys >= starts))[:, None, None]
    elif mask.shape == (batch, length):
        return (mask > 0)[:, None, None]
    elif mask.shape == (batch, queries, length):
        return (mask > 0)[:, None]
    elif mask.ndim == 4 and not isinstance(past, Tensor):
        most = mask.shape[3]
        if mask.shape[:3] == (batch, 1, most) and most >= length:
            return mask[:, :, past : past + queries, :length] > 0
    expected = f"fit {batch} entries of {queries} queries and {length} keys"
    raise ValueError(f"the mask must {expected}, got {list(mask.shape)}")


def score_bias(
    q: Tensor, keys: Keys, mask: Tensor | None, attention_bias: Tensor | None, scoring: Scoring
) -> Tensor | None:
    """The numbers that are added to the scores; None for zeros."""
    length = keys.k.shape[2]
    bias = attention_bias
    if bias is not None:
        sizes = (*q.shape[:3], length)
        fits = bias.ndim == 4 and bias.shape[2:] == sizes[2:]
        if not fits or bias.shape[0] not in (1, sizes[0]) or bias.shape[1] not in (1, sizes[1]):
            raise ValueError(f"attention_bias must be {list(sizes)}, got {list(bias.shape)}")
        bias = bias.to(q.dtype)
    if mask is not None:
        seen = seen_keys(mask, q, length, keys.past)
        filled = _masked(~seen, _within(scoring.mask_filter_value, q.dtype), q.dtype)
        bias = filled if bias is None else bias + filled
    if scoring.is_causal:
        hidden, lowest = _hidden(q, keys), _within(LOWEST, q.dtype)
        bias = (
            _masked(hidden, lowest, q.dtype) if bias is None else bias.masked_fill(hidden, lowest)
        )
    if keys.filled is not None:
        free = torch.arange(length, device=q.device) >= keys.filled
        bias = _masked(free, -INF, q.dtype)[None] if bias is None else bias.masked_fill(free, -INF)
    return bias


def _hidden(q: Tensor, keys: Keys) -> Tensor:
    """True for keys after a query, [q_length, length]; the last query sees all keys."""
    queries = q.shape[2]
    rows = torch.arange(queries, device=q.device).unsqueeze(-1)
    columns = torch.arange(keys.k.shape[2], device=q.device)
    return (columns > rows + keys.past) & (rows < queries - 1)


def _within(value: float | None, dtype: torch.dtype) -> float:
    """The nearest finite number of a type."""
    most = torch.finfo(dtype).max
    return min(max(FILTER_VALUE if value is None else value, -most), most)


def _masked(where: Tensor, value: float, dtype: torch.dtype) -> Tensor:
    return torch.zeros_like(where, dtype=dtype).masked_fill(where, value)


def attend(
    q: Tensor,
    keys: Keys,
    mask: Tensor | None = None,
    attention_bias: Tensor | None = None,
    *,
    scoring: Scoring,
    is_square: bool = False,
) -> Tensor:
    """[batch, q_length, heads * head] by one call of torch's fused attention.

    Args:
        q: queries.
        keys: keys and values, those of the past first.
        mask: see `seen_keys`.
        attention_bias: [batch or 1, heads or 1, q_length, length], added to the scores.
        scoring: the attributes.
        is_square: the keys are those of the tokens of the queries, without a past.
    """
    keys = _filled(q, keys, mask, attention_bias)
    scale = scoring.scale or None
    attention = functional.scaled_dot_product_attention
    is_triangle = scoring.is_causal and is_square and mask is attention_bias is None
    if is_triangle and not (scale and scale < 0):  # torch would scale -inf to inf
        y = attention(q, keys.k, keys.v, is_causal=True, scale=scale)
    else:
        bias = score_bias(q, keys, mask, attention_bias, scoring)
        y = attention(q, keys.k, keys.v, attn_mask=bias, scale=scale)
    return merge_heads(y)


def attend_by_scores(
    q: Tensor,
    keys: Keys,
    mask: Tensor | None,
    attention_bias: Tensor | None,
    *,
    scoring: Scoring,
) -> tuple[Tensor, Tensor]:
    """The output as that of `attend`, and the scores as they go into the softmax."""
    if keys.filled is not None and mask is attention_bias is None:
        raise ValueError(
            "the scores of keys in a buffer need a mask, which says how many there are"
        )
    keys = _filled(q, keys, mask, attention_bias)
    scores = q @ keys.k.transpose(-1, -2) * (scoring.scale or q.shape[-1] ** -0.5)
    bias = score_bias(q, keys, mask, attention_bias, scoring)
    scores = scores if bias is None else scores + bias
    if scoring.is_causal:  # the lowest number replaces a score, which has no slope then
        scores = scores.masked_fill(_hidden(q, keys), _within(LOWEST, q.dtype))
    return merge_heads(scores.softmax(-1) @ keys.v), scores


def _filled(q: Tensor, keys: Keys, mask: Tensor | None, attention_bias: Tensor | None) -> Keys:
    """Check that keys fit the queries; of a buffer, the slots that a mask or a bias says."""
    k, v, _, filled = keys
    if k.shape[:2] != q.shape[:2] or k.shape[3] != q.shape[3] or k.shape[:3] != v.shape[:3]:
        shapes = [list(x.shape) for x in (q, k, v)]
        raise ValueError(f"sizes of queries, keys and values must fit each other, got {shapes}")
    told = attention_bias if mask is None or mask.ndim == 1 else mask
    if filled is None or told is None or (told.ndim == 4 and told is mask):
        return keys
    length = told.shape[-1]
    if not 0 < length <= k.shape[2]:
        raise ValueError(f"a mask must be of at most {k.shape[2]} keys, got {list(told.shape)}")
    return keys._replace(k=k[:, :, :length], v=v[:, :, :length])

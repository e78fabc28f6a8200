"""Rotary position embedding: RotaryEmbedding.

History: 23.
"""

from __future__ import annotations

import torch
from torch import Tensor

from onnxinterp.ops.gathering import within
from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag


@op("RotaryEmbedding", since=23, frozen=("cos_cache", "sin_cache"))
def rotary_embedding(
    X: Tensor,
    cos_cache: Tensor,
    sin_cache: Tensor,
    position_ids: Tensor | None = None,
    *,
    interleaved: Flag = 0,
    num_heads: int | None = None,
    rotary_embedding_dim: int = 0,
) -> Tensor:
    """Rotate pairs of the first `rotary_embedding_dim` channels of each head; 0 means all channels.

    A pair is two neighbours if `interleaved`, else element i of each half. The caches are [batch,
    length, pairs], or [positions, pairs] with `position_ids` as indices.
    """
    if X.ndim not in (3, 4) or cos_cache.shape != sin_cache.shape:
        got = f"{list(X.shape)}, {list(cos_cache.shape)} and {list(sin_cache.shape)}"
        raise ValueError(f"X must be 3-D or 4-D, and caches of one shape, got {got}")
    if X.ndim == 4:
        x = X.transpose(1, 2)  # [batch, length, heads, head]
    else:
        assert num_heads, "num_heads must be given for a 3-D X"
        x = torch.unflatten(X, -1, (num_heads, -1))
    if position_ids is not None:
        places = within(position_ids.flatten(), len(cos_cache) - 1).reshape(position_ids.shape)
        cos_cache, sin_cache = cos_cache[places], sin_cache[places]
    rotated = x[..., :rotary_embedding_dim] if rotary_embedding_dim else x
    channels = rotated.shape[-1]
    if rotary_embedding_dim not in (0, channels) or channels % 2:
        width = rotary_embedding_dim or channels
        raise ValueError(f"rotated channels must be an even part of {x.shape[-1]}, got {width}")
    expected = [*x.shape[:2], channels // 2]
    if cos_cache.shape != tuple(expected):
        raise ValueError(f"caches must be {expected}, got {list(cos_cache.shape)}")
    cos, sin = cos_cache.unsqueeze(2), sin_cache.unsqueeze(2)
    if interleaved:
        first, second = rotated[..., 0::2], rotated[..., 1::2]
    else:
        first, second = rotated.chunk(2, -1)
    pairs = [cos * first - sin * second, sin * first + cos * second]
    y = torch.stack(pairs, -1).flatten(-2) if interleaved else torch.cat(pairs, -1)
    if rotary_embedding_dim:
        y = torch.cat((y, x[..., rotary_embedding_dim:]), -1)
    return y.transpose(1, 2) if X.ndim == 4 else y.flatten(2)


@sample(rotary_embedding)
def _(d: Draw) -> Call:
    batch, length, heads, pairs = [d.integer(1, 3) for _ in range(4)]
    rotated = 2 * pairs
    rest = d.choice([0, 2])
    head = rotated + rest
    packed = d.boolean()
    shape = (batch, length, heads * head) if packed else (batch, heads, length, head)
    looked_up = d.boolean()
    cached = (length + 2, pairs) if looked_up else (batch, length, pairs)
    return call(
        d.tensor(shape),
        d.tensor(cached, lo=-1, hi=1),
        d.tensor(cached, lo=-1, hi=1),
        d.ints((batch, length), 0, length + 1) if looked_up else None,
        interleaved=d.maybe(d.integer(0, 1)),
        num_heads=heads if packed else None,
        rotary_embedding_dim=rotated if rest else d.maybe(rotated),
    )

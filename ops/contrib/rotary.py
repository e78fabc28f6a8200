"""Rotary position embedding with tables of cosines and sines.

Exporters of language models write RotaryEmbedding, and onnxruntime's optimizer where it finds its
parts. MRotaryEmbedding is that of models that see images. GemmaRotaryEmbedding has angles in place
of tables; RMSNormRotary normalizes heads before it rotates them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag


@contrib_op("RotaryEmbedding", frozen=("cos_cache", "sin_cache"))
def rotary_embedding(
    input: Tensor,
    position_ids: Tensor,
    cos_cache: Tensor,
    sin_cache: Tensor,
    *,
    interleaved: Flag | None = None,
    is_packed_batching: Flag | None = None,
    num_heads: int | None = None,
    rotary_embedding_dim: int | None = None,
    scale: float | None = None,
) -> Tensor:
    """A single position is that of the first token. onnxruntime ignores `scale` and packing."""
    del is_packed_batching, scale
    check_tables(cos_cache, sin_cache)
    x = token_heads(input, num_heads, rotary_embedding_dim, 2 * cos_cache.shape[1])
    if rotary_embedding_dim and rotary_embedding_dim != 2 * cos_cache.shape[1]:
        got = f"{list(cos_cache.shape)} for {rotary_embedding_dim} channels"
        raise ValueError(f"the tables must have a column for two rotated channels, got {got}")
    if position_ids.shape == (1,):
        position_ids = position_ids + torch.arange(x.shape[1], device=x.device)
        position_ids = position_ids.expand(x.shape[:2])
    elif position_ids.shape != x.shape[:2]:
        expected = f"[1] or {list(x.shape[:2])}"
        raise ValueError(f"position_ids must be {expected}, got {list(position_ids.shape)}")
    cos, sin = look_up(position_ids.unsqueeze(-1), cos_cache, sin_cache)
    y = rotate(x, cos, sin, bool(interleaved))
    return y.transpose(1, 2) if input.ndim == 4 else y.flatten(2)


@contrib_op("MRotaryEmbedding", frozen=("cos_cache", "sin_cache"))
def m_rotary_embedding(
    input: Tensor,
    position_ids: Tensor,
    cos_cache: Tensor,
    sin_cache: Tensor,
    *,
    interleaved: Flag | None = None,
    is_packed_batching: Flag | None = None,
    mrope_layout: Flag | None = None,
    mrope_section: list[int],
    num_heads: int | None = None,
    rotary_embedding_dim: int | None = None,
    scale: float | None = None,
) -> Tensor:
    """Each pair has one of three positions: time, height or width.

    The sections say how many pairs have each of them, one after another; in layout 1 they alternate
    and the pairs after them have the time. `scale` is that of the rotated channels.
    """
    del is_packed_batching
    check_tables(cos_cache, sin_cache)
    pairs = cos_cache.shape[1]
    x = token_heads(input, num_heads, rotary_embedding_dim, 2 * pairs)
    if rotary_embedding_dim not in (None, 0, 2 * pairs):
        raise ValueError(f"rotary_embedding_dim must be {2 * pairs}, got {rotary_embedding_dim}")
    if len(mrope_section) != 3 or min(mrope_section) < 0 or sum(mrope_section) != pairs:
        raise ValueError(f"mrope_section must be 3 parts of {pairs}, got {mrope_section}")
    if position_ids.shape != (3, *x.shape[:2]):
        expected = [3, *x.shape[:2]]
        raise ValueError(f"position_ids must be {expected}, got {list(position_ids.shape)}")
    streams = look_up(position_ids, cos_cache, sin_cache)  # [3, batch, length, pairs] each
    kinds = _interleaved(mrope_section) if mrope_layout else _chunked(mrope_section)
    index = torch.tensor(kinds, device=x.device).expand(1, *x.shape[:2], -1)
    cos, sin = (s.gather(0, index).squeeze(0).unsqueeze(2) for s in streams)
    if scale is not None:
        cos, sin = cos * scale, sin * scale
    y = rotate(x, cos, sin, bool(interleaved))
    return y.transpose(1, 2) if input.ndim == 4 else y.flatten(2)


@contrib_op("GemmaRotaryEmbedding")
def gemma_rotary_embedding(
    emb: Tensor, q: Tensor, q_rot: Tensor, k: Tensor, k_rot: Tensor
) -> tuple[Tensor, Tensor]:
    """Angles, [batch, length, head], and heads beside their halves in exchange."""
    for x, turned in ((q, q_rot), (k, k_rot)):
        fits = x.ndim == 4 and emb.shape == (x.shape[0], *x.shape[2:])
        if not fits or turned.shape != x.shape:
            got = [list(t.shape) for t in (emb, x, turned)]
            raise ValueError(f"angles must be those of [batch, heads, length, head], got {got}")
    cos, sin = (angle.to(q.dtype).unsqueeze(1) for angle in (emb.cos(), emb.sin()))
    return q * cos + q_rot * sin, k * cos + k_rot * sin


@contrib_op(
    "RMSNormRotary",
    frozen=("cosine", "sine"),
    infer_output_type=lambda attributes, _types: 10 if attributes.get("output_fp16") else 16,
)
def rms_norm_rotary(
    X: Tensor,
    scale: Tensor,
    position_ids: Tensor,
    cosine: Tensor,
    sine: Tensor,
    prefill_numerics: Tensor | None = None,
    *,
    epsilon: float = 9.999999974752427e-07,
    flatten_batch: Flag = 0,
    input_start: int = 0,
    input_width: int = 0,
    output_fp16: Flag = 0,
    rotary_embedding_dim: int,
    use_fp32_arithmetic: Flag = 1,
    output_type: torch.dtype,
    n_outputs: int,
) -> Tensor | tuple[Tensor, Tensor]:
    """Heads [batch, length, heads, width], or a slice of the last axis.

    Where all is bfloat16, what is rotated is rounded to it. The modes of less exact steps change
    nothing: sums and products are those of float32.
    """
    del use_fp32_arithmetic
    check_tables(cosine, sine)
    width = input_width or (X.shape[-1] - input_start if X.ndim else 0)
    if X.ndim != 4 or input_start < 0 or not 0 < width <= X.shape[-1] - input_start:
        raise ValueError(f"X must be 4-D with {width} channels, got {list(X.shape)}")
    if scale.shape != (width,) or (prefill_numerics is not None and prefill_numerics.numel() != 1):
        raise ValueError(f"scale must be [{width}] and a mode one number, got {list(scale.shape)}")
    if rotary_embedding_dim < 2 or rotary_embedding_dim != 2 * cosine.shape[1]:
        raise ValueError(
            f"the tables must rotate {rotary_embedding_dim} channels, got {cosine.shape}"
        )
    x = X[..., input_start : input_start + width].to(scale.dtype)
    normalized = functional.rms_norm(x, scale.shape, scale, epsilon)
    if not output_fp16 and X.dtype is cosine.dtype is torch.bfloat16:
        normalized = normalized.to(X.dtype).to(scale.dtype)
    positions = _of_tokens(position_ids, X, bool(flatten_batch)).unsqueeze(-1)
    cos, sin = (t.to(scale.dtype) for t in look_up(positions, cosine, sine))
    y = rotate(normalized, cos, sin, interleaved=False).flatten(2).to(output_type)
    y = y.flatten(0, 1).unsqueeze(0) if flatten_batch else y
    return y if n_outputs == 1 else (y, normalized)


def _of_tokens(positions: Tensor, x: Tensor, is_flat: bool) -> Tensor:
    """The position of each token; a single one says too little of a batch as one sequence."""
    batch, length = x.shape[:2]
    if positions.numel() == 1 and (batch == 1 or not is_flat):
        return positions.reshape(()) + torch.arange(length, device=x.device).expand(batch, -1)
    if positions.shape != (batch, length):
        raise ValueError(f"positions must be {[batch, length]}, got {list(positions.shape)}")
    return positions


def _chunked(section: list[int]) -> list[int]:
    """The kind of position of each pair, one kind after another."""
    return [kind for kind, count in enumerate(section) for _ in range(count)]


def _interleaved(section: list[int]) -> list[int]:
    """The kind of position of each pair, in turns."""
    pairs = range(sum(section))
    return [i % 3 if i % 3 and i < 3 * section[i % 3] else 0 for i in pairs]


def check_tables(cos_cache: Tensor, sin_cache: Tensor) -> None:
    """Check that both tables are [positions, pairs]."""
    if cos_cache.ndim != 2 or cos_cache.shape != sin_cache.shape:
        got = f"{list(cos_cache.shape)} and {list(sin_cache.shape)}"
        raise ValueError(f"the tables must be [positions, pairs], got {got}")


def token_heads(x: Tensor, heads: int | None, rotated: int | None, head_size: int) -> Tensor:
    """The input as [batch, length, heads, head].

    Without a number of heads, the heads of a 3-D input are as wide as the tables.
    """
    if x.ndim not in (3, 4) or (rotated and not heads):
        got = f"{list(x.shape)} and {heads} heads"
        raise ValueError(f"input must be 3-D or 4-D, with heads for a partial rotation, got {got}")
    if x.ndim == 4:
        return x.transpose(1, 2)
    shape = (heads, -1) if heads else (-1, head_size)
    return torch.unflatten(x, -1, shape)


def look_up(positions: Tensor, cos_cache: Tensor, sin_cache: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines at positions, [*positions, pairs]; a position beyond the tables raises."""
    return functional.embedding(positions, cos_cache), functional.embedding(positions, sin_cache)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """Rotate pairs of the first channels of x; the remaining ones are copied.

    A pair is two neighbours if `interleaved`, else element i of each half. `cos` and `sin`
    broadcast to [..., pairs].
    """
    width = 2 * cos.shape[-1]
    if width > x.shape[-1]:
        raise ValueError(f"at most {x.shape[-1]} channels can be rotated, got {width}")
    rest = x.shape[-1] - width
    if not (rest or interleaved):  # a program makes the factors once for all layers
        cosines, sines = torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
        return torch.addcmul(x * cosines, x.roll(width // 2, -1), sines)
    rotated = x[..., :width] if rest else x
    if interleaved:
        first, second = rotated[..., 0::2], rotated[..., 1::2]
    else:
        first, second = rotated.chunk(2, -1)
    real = torch.addcmul(first * cos, second, sin, value=-1)
    imaginary = torch.addcmul(second * cos, first, sin)
    if not interleaved:
        return torch.cat((real, imaginary, x[..., width:]) if rest else (real, imaginary), -1)
    y = torch.stack((real, imaginary), -1).flatten(-2)
    return torch.cat((y, x[..., width:]), -1) if rest else y


@sample(rotary_embedding)
def _(d: Draw) -> Call:
    batch, length, heads, pairs = [d.integer(1, 3) for _ in range(4)]
    head = 2 * pairs + d.choice([0, 2])
    partial = head > 2 * pairs
    x = d.tensor((batch, length, heads * head))
    counted = partial or d.boolean()
    if counted and d.boolean():
        x = x.reshape(batch, length, heads, head).transpose(1, 2)
    rows = length + 2
    single = d.boolean()
    return call(
        x,
        d.ints((1,) if single else (batch, length), 0, 2 if single else rows - 1),
        d.tensor((rows, pairs), lo=-1, hi=1),
        d.tensor((rows, pairs), lo=-1, hi=1),
        interleaved=d.maybe(d.integer(0, 1)),
        is_packed_batching=d.maybe(d.integer(0, 1)),
        num_heads=heads if counted else None,
        rotary_embedding_dim=2 * pairs if partial else d.maybe(0),
        scale=d.maybe(d.real(0.5, 2)),
    )


@sample(m_rotary_embedding)
def _(d: Draw) -> Call:
    batch, length, heads = [d.integer(1, 3) for _ in range(3)]
    section = [d.integer(0, 2), d.integer(0, 2), d.integer(1, 2)]
    pairs = sum(section)
    head = 2 * pairs + d.choice([0, 2])
    partial = head > 2 * pairs
    x = d.tensor((batch, length, heads * head))
    if d.boolean():
        x = x.reshape(batch, length, heads, head).transpose(1, 2)
    return call(
        x,
        d.ints((3, batch, length), 0, 4),
        d.tensor((5, pairs), lo=-1, hi=1),
        d.tensor((5, pairs), lo=-1, hi=1),
        interleaved=d.maybe(d.integer(0, 1)),
        is_packed_batching=d.maybe(0),
        mrope_layout=d.maybe(d.integer(0, 1)),
        mrope_section=section,
        num_heads=heads,
        rotary_embedding_dim=2 * pairs if partial else d.maybe(0),
        scale=d.maybe(d.real(0.5, 2)),
    )


@sample(gemma_rotary_embedding)
def _(d: Draw) -> Call:
    batch, heads, length, head = [d.integer(1, 3) for _ in range(4)]
    whole = (batch, heads, length, head)
    return call(
        d.tensor((batch, length, head), "U", lo=-3, hi=3),
        *[d.tensor(whole, lo=-2, hi=2) for _ in range(4)],
        outputs=d.integer(1, 2),
    )


@sample(rms_norm_rotary)
def _(d: Draw) -> Call:
    batch, length, heads, pairs = [d.integer(1, 3) for _ in range(4)]
    width, start, rest = 2 * pairs + d.choice([0, 1, 2]), d.choice([0, 0, 2]), d.choice([0, 3])
    is_single = d.boolean()
    flat = d.choice([None, 0] if is_single and batch > 1 else [None, 0, 1])
    x = d.tensor((batch, length, heads, start + width + rest), lo=-1, hi=1)
    x[..., start : start + 1] += 4  # so that no root mean square is near 0
    table = (length + 2, pairs)
    return call(
        x,
        d.tensor((width,), "F", lo=0.5, hi=1),
        d.ints((1,) if is_single else (batch, length), 0, 2),
        d.tensor(table, "TCos", lo=-1, hi=1),
        d.tensor(table, "TCos", lo=-1, hi=1),
        d.maybe(d.ints((), 0, 1, torch.int32)),
        epsilon=d.maybe(d.real(0.25, 1)),
        flatten_batch=flat,
        input_start=start or d.maybe(0),
        input_width=width if rest else d.choice([None, 0, width]),
        output_fp16=1 if d.elem_type("TOut") == 10 else d.maybe(0),
        rotary_embedding_dim=2 * pairs,
        use_fp32_arithmetic=d.maybe(d.integer(0, 1)),
        outputs=d.integer(1, 2),
    )

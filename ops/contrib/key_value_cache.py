"""The keys and values that an attention of a language model keeps from step to step.

A cache is [batch, heads, slots, head], in the type of the keys, or quantized: int8, or two numbers
of 4 bits in a byte. A whole cache has the tokens of an entry in the first slots. The slots after
them are 0, whatever a buffer held there. The cache of a sliding window has the latest tokens only.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from onnxinterp.values import is_known


class Quantizer(NamedTuple):
    """Integers for the numbers of a cache.

    Attributes:
        scale: one, or one for each channel of each head.
        bits: 8 or 4.
    """

    scale: Tensor
    bits: int

    def quantize(self, x: Tensor) -> Tensor:
        """Rounded half to even; two numbers of 4 bits share a byte, the first in its low bits."""
        most = 2 ** (self.bits - 1) - 1
        q = (x / self._scale_for(x)).round().clamp(-most - 1, most)
        if self.bits == 8:
            return q.to(torch.int8)
        first, second = torch.unflatten(q.to(torch.uint8) + 8, -1, (-1, 2)).unbind(-1)
        return first & 15 | second << 4

    def dequantize(self, q: Tensor, dtype: torch.dtype) -> Tensor:
        """The numbers that integers stand for."""
        if self.bits == 4:
            q = torch.stack((q & 15, q >> 4), -1).flatten(-2).to(torch.int8) - 8
        return (q * self._scale_for(q)).to(dtype)

    def _scale_for(self, x: Tensor) -> Tensor:
        if self.scale.numel() == 1:
            return self.scale.reshape(1)
        if self.scale.numel() != x.shape[1] * x.shape[3]:
            expected = f"1 or {x.shape[1]} * {x.shape[3]} numbers"
            raise ValueError(f"a scale of the cache must have {expected}, got {self.scale.numel()}")
        return self.scale.reshape(x.shape[1], 1, x.shape[3])


def quantizer(scale: Tensor | None, kind: str, bits: int | None) -> Quantizer | None:
    """The quantizer of keys or of values; None where they are not quantized."""
    if kind == "NONE":
        if bits:
            raise ValueError(f"kv_cache_bit_width must be 0 without quantization, got {bits}")
        return None
    if scale is None or bits not in (4, 8):
        raise ValueError(f"a quantized cache must have scales and 4 or 8 bits, got {bits} bits")
    if (kind == "PER_TENSOR") != (scale.numel() == 1) and kind == "PER_TENSOR":
        raise ValueError(f"PER_TENSOR needs one scale, got {list(scale.shape)}")
    return Quantizer(scale, bits)


def check_cache(past_key: Tensor | None, past_value: Tensor | None, new: Tensor) -> None:
    """Check that past keys and values fit new ones, [batch, heads, length, head]."""
    pasts = [p for p in (past_key, past_value) if p is not None]
    sizes = (*new.shape[:2], new.shape[3])
    fits = [p.ndim == 4 and (*p.shape[:2], p.shape[3]) == sizes for p in pasts]
    if len(pasts) == 1 or not all(fits) or any(p.shape != pasts[0].shape for p in pasts):
        expected = f"[{sizes[0]}, {sizes[1]}, slots, {sizes[2]}]"
        got = [list(p.shape) for p in pasts]
        raise ValueError(f"past keys and values must be {expected}, got {got}")
    if any(p.dtype is not new.dtype for p in pasts):
        dtypes = [str(p.dtype) for p in pasts]
        raise TypeError(f"past keys and values must be {new.dtype}, got {dtypes}")


def count_slots(past: int, new: int, total: int) -> int:
    """The slots of the present: those of a buffer that has room, else those of past and new."""
    if not (is_known(past) and is_known(new) and is_known(total)):
        either: int = torch.sym_max(past, total)  # type: ignore[assignment]  # a symbol
        return either
    if total < 1 or (total > past and total != past + new):
        expected = f"{past + new}, or at most the {past} slots of the past"
        raise ValueError(f"total_sequence_length must be {expected}, got {total}")
    return max(past, total)


class Cached(NamedTuple):
    """Keys and values after a step.

    Attributes:
        keys: the columns to attend to, [batch, heads, columns, head], not quantized.
        values: theirs.
        present_key: the cache.
        present_value: the cache.
        positions: of the columns, [columns] or [batch, columns]; BEYOND where there is no token.
    """

    keys: Tensor
    values: Tensor
    present_key: Tensor
    present_value: Tensor
    positions: Tensor


def update(
    pasts: tuple[Tensor | None, Tensor | None],
    new: tuple[Tensor, Tensor],
    quantizers: tuple[Quantizer | None, Quantizer | None],
    starts: Tensor,
    ends: Tensor,
    total: int,
    window: int | None,
) -> Cached:
    """Put new keys and values behind those of the past.

    Args:
        pasts: keys and values, [batch, heads, slots, head].
        new: keys and values, [batch, heads, length, head].
        quantizers: of keys and of values.
        starts: the position of the first new token of each entry, [batch, 1].
        ends: the position of its last token.
        total: the largest number of tokens of an entry.
        window: the window of a cache that has only the latest tokens.
    """
    dtype = new[0].dtype
    stored = [x if q is None else q.quantize(x) for x, q in zip(new, quantizers, strict=True)]
    check_cache(*pasts, stored[0])
    move = _whole if window is None else partial(_windowed, window=window)
    columns, presents, positions = move(pasts, stored, starts, ends, total)
    keys, values = (
        x if q is None else q.dequantize(x, dtype) for x, q in zip(columns, quantizers, strict=True)
    )
    return Cached(keys, values, presents[0], presents[1], positions)


Moved: TypeAlias = "tuple[list[Tensor], list[Tensor], Tensor]"  # columns, presents, positions


def _whole(
    pasts: Sequence[Tensor | None], new: Sequence[Tensor], starts: Tensor, ends: Tensor, total: int
) -> Moved:
    """A cache that has all tokens."""
    first, length = pasts[0], new[0].shape[2]
    past = 0 if first is None else first.shape[2]
    slots = torch.arange(count_slots(past, length, total), device=starts.device)
    if first is None:
        return list(new), list(new), slots
    if is_known(length) and length == 0:  # the cache of another layer, which has the new tokens
        starts = ends + 1
    ahead = slots - starts
    rows = torch.where(ahead < 0, slots, ahead.clamp_max(length) + past)
    zero = new[0].new_zeros((*new[0].shape[:2], 1, new[0].shape[3]))
    joined = (torch.cat((p, x, zero), 2) for p, x in zip(pasts, new, strict=True) if p is not None)
    presents = [_pick(x, rows) for x in joined]
    if is_known(total) and is_known(past) and total < past:
        return [x[:, :, :total] for x in presents], presents, slots[:total]
    return presents, presents, slots


def _pick(x: Tensor, rows: Tensor) -> Tensor:
    """Rows of [batch, heads, length, head], other ones for each entry: [batch, rows]."""
    if is_known(rows.shape[0]) and rows.shape[0] == 1:
        return x.index_select(2, rows.reshape(-1))
    index = rows[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3])
    return x.gather(2, index)


def _windowed(
    pasts: Sequence[Tensor | None],
    new: Sequence[Tensor],
    starts: Tensor,
    ends: Tensor,
    total: int,
    *,
    window: int,
) -> Moved:
    """A cache that has the latest tokens, in its first slots.

    The columns are the slots of the past and then the new rows.
    """
    del total
    joined = [torch.cat((p, x), 2) for p, x in zip(pasts, new, strict=True) if p is not None]
    added = new[0].shape[2]
    slots = joined[0].shape[2] - added if joined else 0
    if slots < window or window < 1:
        raise ValueError(f"the past must have slots for a window of {window}, got {slots}")
    slot = torch.arange(slots, device=starts.device)
    before, after = (_resident(count, slots, window) for count in (starts, ends + 1))
    old = (starts - before + slot).where(slot < before, BEYOND)
    rows = starts + torch.arange(added, device=starts.device)
    positions = torch.cat((old, rows.where(rows <= ends, BEYOND)), 1)
    wanted = ends + 1 - after + slot
    kept = torch.where(wanted < starts, wanted - starts + before, wanted - starts + slots)
    resident = slot < after
    kept = kept.where(resident, 0)
    presents = [_pick(x, kept).where(resident[:, None, :, None], 0) for x in joined]
    return joined, presents, positions


BEYOND = 2**40  # the position of a row without a token: after all others


def _resident(counts: Tensor, slots: int, window: int) -> Tensor:
    """How many of the latest tokens stay: whole groups are evicted when the slots are full."""
    group = slots - window + 1
    evictions = (counts - slots + group - 1).div(group, rounding_mode="floor").clamp_min(0)
    return counts - group * evictions

"""The keys and values that an attention of a language model keeps from step to step.

A cache is [batch, heads, slots, head], in the type of the keys, or quantized: int8, or two numbers
of 4 bits in a byte. A whole cache has the tokens of an entry in the first slots. The slots after
them are 0, whatever a buffer held there. The cache of a sliding window has the latest tokens only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

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
        got = [str(p.dtype) for p in pasts]
        raise TypeError(f"past keys and values must be {new.dtype}, got {got}")


def count_slots(past: int, new: int, total: int) -> int:
    """The slots of the present: those of a buffer that has room, else those of past and new."""
    if not (is_known(past) and is_known(new) and is_known(total)):
        return torch.sym_max(past, total)
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
        positions: of the columns, [batch or 1, columns]; BEYOND for one without a token.
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
    totals: Tensor,
    total: int,
    window: int | None,
) -> Cached:
    """Put new keys and values behind those of the past.

    Args:
        pasts: keys and values, [batch, heads, slots, head].
        new: keys and values, [batch, heads, length, head].
        quantizers: of keys and of values.
        starts: the number of tokens that each entry had, [batch, 1].
        totals: the number that it has now.
        total: the largest one.
        window: the window of a cache that has only the latest tokens.
    """
    dtype = new[0].dtype
    stored = [x if q is None else q.quantize(x) for x, q in zip(new, quantizers, strict=True)]
    check_cache(*pasts, stored[0])
    if window is None:
        presents, positions = _whole(pasts, stored, starts, totals, total)
        columns = presents
        if is_known(total) and is_known(positions.shape[0]) and total < positions.shape[0]:
            positions, columns = positions[:total], [x[:, :, :total] for x in presents]
        positions = positions.unsqueeze(0)
    else:
        columns = [
            torch.cat((p, x), 2) for p, x in zip(pasts, stored, strict=True) if p is not None
        ]
        if not columns:
            raise ValueError("a sliding window must have a buffer as past")
        slots = columns[0].shape[2] - stored[0].shape[2]
        kept = Window.of(slots, window, stored[0].shape[2], starts, totals)
        presents, positions = kept.present(columns), kept.positions
    keys, values = (
        x if q is None else q.dequantize(x, dtype) for x, q in zip(columns, quantizers, strict=True)
    )
    return Cached(keys, values, presents[0], presents[1], positions)


def _whole(
    pasts: Sequence[Tensor | None],
    new: Sequence[Tensor],
    starts: Tensor,
    totals: Tensor,
    total: int,
) -> tuple[list[Tensor], Tensor]:
    """The presents, and the numbers of their slots."""
    first, length = pasts[0], new[0].shape[2]
    past = 0 if first is None else first.shape[2]
    slots = torch.arange(count_slots(past, length, total), device=starts.device)
    if is_known(length) and length == 0:  # the cache of another layer, which has the new tokens
        starts = totals
    return [append(p, x, starts, slots) for p, x in zip(pasts, new, strict=True)], slots


def append(past: Tensor | None, new: Tensor, starts: Tensor, slots: Tensor) -> Tensor:
    """A whole cache with new rows in it.

    Args:
        past: [batch, heads, old slots, head]; None where there is none.
        new: [batch, heads, length, head].
        starts: the slot of the first new row of each entry, [batch, 1].
        slots: the numbers of the slots of the result.
    """
    if past is None:
        return new
    grown = functional.pad(past, (0, 0, 0, slots.shape[0] - past.shape[2]))
    kept = grown.where((slots < starts)[:, None, :, None], 0)
    rows = starts + torch.arange(new.shape[2], device=new.device)
    return kept.scatter(2, rows[:, None, :, None].expand_as(new), new)


class Window(NamedTuple):
    """The cache of a sliding window: past and new rows side by side, and what stays of them.

    Attributes:
        positions: of the rows of past and new, [batch, slots + length]; far beyond all tokens for
            rows without one.
        kept: the rows that the present has, [batch, slots].
        resident: which of its slots have a token, [batch, slots].
    """

    positions: Tensor
    kept: Tensor
    resident: Tensor

    @classmethod
    def of(cls, slots: int, window: int, new: int, starts: Tensor, totals: Tensor) -> Window:
        """The window of entries that had `starts` tokens and have `totals`, both [batch, 1]."""
        if slots < window or window < 1:
            raise ValueError(f"a cache of {slots} slots must hold the window, got {window}")
        slot = torch.arange(slots, device=starts.device)
        before, after = (_resident(count, slots, window) for count in (starts, totals))
        old = (starts - before + slot).where(slot < before, BEYOND)
        added = starts + torch.arange(new, device=starts.device)
        added = added.where(added < totals, BEYOND)
        wanted = totals - after + slot
        from_old, from_new = wanted - (starts - before), wanted - starts + slots
        kept = torch.where(wanted < starts, from_old, from_new)
        resident = slot < after
        return cls(torch.cat((old, added), 1), kept.where(resident, 0), resident)

    def present(self, rows: Sequence[Tensor]) -> list[Tensor]:
        """What stays of rows, [batch, heads, slots + length, head]; free slots are 0."""
        index = self.kept[:, None, :, None]
        chosen = (x.gather(2, index.expand(-1, x.shape[1], -1, x.shape[3])) for x in rows)
        return [x.where(self.resident[:, None, :, None], 0) for x in chosen]


BEYOND = 2**40  # the position of a row without a token: after all others


def _resident(counts: Tensor, slots: int, window: int) -> Tensor:
    """How many of the latest tokens stay: whole groups are evicted when the slots are full."""
    group = slots - window + 1
    evictions = (counts - slots + group - 1).div(group, rounding_mode="floor").clamp_min(0)
    return counts - group * evictions

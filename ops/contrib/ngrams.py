"""Hashes of the last tokens, for tables of n-grams: NGramHashMapping and VarlenNGramHashMapping.

The hash of an n-gram is the exclusive or of its ids times multipliers, modulo the size of a head's
table. Integers wrap around in their type.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.ops.contrib.ragged import Ragged, draw_ends
from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call


class _Hash(NamedTuple):
    """What hashes are made with.

    Attributes:
        multipliers: of the shifts, the current id first.
        vocab_sizes: of the heads of all orders of n-grams.
        head_offsets: added to their hashes.
        orders: n - 1 of the longest n-gram: the ids before a token that count.
        heads: for each order.
        missing: the id where there is none.
        eos: the id that ends a text, after which nothing before it counts.
    """

    multipliers: Tensor
    vocab_sizes: Tensor
    head_offsets: Tensor | None
    orders: int
    heads: int
    missing: Tensor
    eos: Tensor | None

    @classmethod
    def of(
        cls,
        tables: tuple[Tensor, Tensor, Tensor | None],
        sizes: tuple[int, int],
        ids: Tensor,
        pad_id: int,
        eos: Tensor | None,
        reset: int,
    ) -> _Hash:
        """Check the sizes: of the longest n-gram, and of the heads for each order."""
        longest, heads = sizes
        if longest < 2 or heads < 1 or (eos is not None and eos.ndim):
            raise ValueError(f"n-grams must have 2 ids and a head at least, got {sizes}")
        multipliers, vocab_sizes, offsets = tables
        count = ((longest - 1) * heads,)
        if multipliers.ndim != 1 or multipliers.shape[0] < longest or vocab_sizes.shape != count:
            got = f"{list(multipliers.shape)} and {list(vocab_sizes.shape)}"
            raise ValueError(f"multipliers and tables must fit {sizes}, got {got}")
        if offsets is not None and offsets.shape != count:
            raise ValueError(f"head_offsets must be {list(count)}, got {list(offsets.shape)}")
        missing = ids.new_full((), pad_id) if eos is None else eos
        return cls(
            multipliers, vocab_sizes, offsets, longest - 1, heads, missing, eos if reset else None
        )

    def past(self, past_ids: Tensor | None, batch: int) -> Tensor:
        """The ids before the first ones, [batch, orders]."""
        if past_ids is None:
            return self.missing.expand(batch, self.orders)
        return check_past(past_ids, batch, self.orders)

    def __call__(self, ids: Tensor, segments: Tensor | None) -> Tensor:
        """Hashes of the ids after the first `orders`, [batch, length, orders * heads]."""
        first, places = self.orders, torch.arange(ids.shape[1], device=ids.device)
        low = torch.zeros_like(ids)
        if self.eos is not None:
            ends = places.where(ids == self.eos, -1).cummax(1).values + 1
            low = functional.pad(ends[:, :-1], (1, 0))
        if segments is not None:
            begins = functional.pad(segments[:, 1:] != segments[:, :-1], (1, 0))
            low = torch.maximum(low, places.where(begins, 0).cummax(1).values)
        mixed, hashes = ids[:, first:] * self.multipliers[0], []
        for shift in range(1, first + 1):
            seen = places[first:] - shift >= low[:, first:]
            shifted = ids[:, first - shift : ids.shape[1] - shift].where(seen, self.missing)
            mixed = mixed ^ (shifted * self.multipliers[shift])
            sizes = self.vocab_sizes[(shift - 1) * self.heads : shift * self.heads]
            hashes.append(mixed.unsqueeze(-1) % sizes)
        joined = torch.cat(hashes, -1)
        return joined if self.head_offsets is None else joined + self.head_offsets


def check_past(past: Tensor, batch: int, orders: int) -> Tensor:
    """Check the sizes of ids or segments before the first ones."""
    if past.shape != (batch, orders):
        raise ValueError(f"the past must be {[batch, orders]}, got {list(past.shape)}")
    return past


@contrib_op("NGramHashMapping")
def ngram_hash_mapping(
    input_ids: Tensor,
    multipliers: Tensor,
    vocab_sizes: Tensor,
    past_ids: Tensor | None = None,
    head_offsets: Tensor | None = None,
    eos_token_id: Tensor | None = None,
    segment_ids: Tensor | None = None,
    *,
    max_ngram_size: int,
    n_head_per_ngram: int,
    pad_id: int,
    reset_on_eos: int = 0,
) -> tuple[Tensor, Tensor]:
    """Before the first id are those of `past_ids`, else the end token, else `pad_id`."""
    if input_ids.ndim != 2 or (segment_ids is not None and segment_ids.shape != input_ids.shape):
        got = f"{list(input_ids.shape)} and its segments"
        raise ValueError(f"input_ids must be [batch, length], with segments alike, got {got}")
    tables, sizes = (multipliers, vocab_sizes, head_offsets), (max_ngram_size, n_head_per_ngram)
    hashed = _Hash.of(tables, sizes, input_ids, pad_id, eos_token_id, reset_on_eos)
    ids = torch.cat((hashed.past(past_ids, input_ids.shape[0]), input_ids), 1)
    segments = None
    if segment_ids is not None:  # the past is in the first segment
        segments = torch.cat((segment_ids[:, :1].expand(-1, hashed.orders), segment_ids), 1)
    return hashed(ids, segments), ids[:, input_ids.shape[1] :]


@contrib_op("VarlenNGramHashMapping")
def varlen_ngram_hash_mapping(
    input_ids: Tensor,
    multipliers: Tensor,
    vocab_sizes: Tensor,
    cumulative_sequence_length: Tensor,
    past_ids: Tensor | None = None,
    head_offsets: Tensor | None = None,
    eos_token_id: Tensor | None = None,
    segment_ids: Tensor | None = None,
    past_segment_ids: Tensor | None = None,
    capture_count: Tensor | None = None,
    *,
    max_ngram_size: int,
    n_head_per_ngram: int,
    pad_id: int,
    reset_on_eos: int = 0,
    state_update_capacity: int = 0,
    n_outputs: int,
) -> tuple[Tensor | None, ...]:
    """Those of sequences that stand one after another.

    The fourth output has the last ids after each of the first `capture_count` tokens.
    """
    if input_ids.ndim != 1 or (segment_ids is not None and segment_ids.shape != input_ids.shape):
        raise ValueError(f"input_ids must be [tokens], as segments, got {list(input_ids.shape)}")
    if segment_ids is None and past_segment_ids is not None:
        raise ValueError("past_segment_ids needs segment_ids")
    if (capture_count is None) != (state_update_capacity == 0):
        raise ValueError(f"capture_count must fit the capacity {state_update_capacity}")
    tables, sizes = (multipliers, vocab_sizes, head_offsets), (max_ngram_size, n_head_per_ngram)
    hashed = _Hash.of(tables, sizes, input_ids, pad_id, eos_token_id, reset_on_eos)
    ragged = Ragged.of(cumulative_sequence_length, input_ids.shape[0])
    batch, orders = ragged.lengths.shape[0], hashed.orders
    ids = torch.cat((hashed.past(past_ids, batch), ragged.pad(input_ids)), 1)
    segments = None
    if segment_ids is not None:
        padded = ragged.pad(segment_ids)
        past = padded[:, :1].expand(-1, orders)
        past = past if past_segment_ids is None else check_past(past_segment_ids, batch, orders)
        segments = torch.cat((past, padded), 1)
    rows = ragged.lengths.unsqueeze(1) + torch.arange(orders, device=ids.device)
    results: list[Tensor | None] = [ragged.pack(hashed(ids, segments)), ids.gather(1, rows)]
    results.append(None if segments is None else segments.gather(1, rows))
    if capture_count is not None:
        slots = torch.arange(state_update_capacity, device=ids.device)
        windows = functional.pad(ids, (0, max(state_update_capacity, 1))).unfold(1, orders, 1)
        kept = torch.minimum(capture_count, ragged.lengths).unsqueeze(1) > slots
        states = windows[:, 1 : state_update_capacity + 1]
        results.append(states.where(kept.unsqueeze(-1), pad_id))
    return tuple(results[:n_outputs])


def _draw_tables(d: Draw, longest: int, heads: int) -> dict[str, Any]:
    count = (longest - 1) * heads
    kinds: dict[str, Any] = {"multipliers": (longest + d.integer(0, 1), -1000, 1000)}
    kinds |= {"vocab": (count, 1, 50), "offsets": (count, 0, 9)}
    return {k: d.tensor((n,), "M", lo=lo, hi=hi) for k, (n, lo, hi) in kinds.items()}


@sample(ngram_hash_mapping)
def _(d: Draw) -> Call:
    batch, length = d.shape(2, 2)
    longest, heads = d.integer(2, 4), d.integer(1, 2)
    tables = _draw_tables(d, longest, heads)
    return call(
        d.tensor((batch, length), "M", lo=0, hi=4),
        tables["multipliers"],
        tables["vocab"],
        d.maybe(d.tensor((batch, longest - 1), "M", lo=0, hi=4)),
        d.maybe(tables["offsets"]),
        d.maybe(d.tensor((), "M", lo=0, hi=4)),
        d.maybe(d.ints((batch, length), 0, 1, torch.int32)),
        max_ngram_size=longest,
        n_head_per_ngram=heads,
        pad_id=d.integer(0, 9),
        reset_on_eos=d.maybe(d.integer(0, 1)),
        outputs=2,
    )


@sample(varlen_ngram_hash_mapping)
def _(d: Draw) -> Call:
    batch, tokens, ends = draw_ends(d)
    longest, heads, capacity = d.integer(2, 3), d.integer(1, 2), d.choice([0, 1, 4])
    tables, segmented = _draw_tables(d, longest, heads), d.boolean()
    past_segments = d.ints((batch, longest - 1), 0, 1, torch.int32)
    return call(
        d.tensor((tokens,), "M", lo=0, hi=4),
        tables["multipliers"],
        tables["vocab"],
        ends,
        d.maybe(d.tensor((batch, longest - 1), "M", lo=0, hi=4)),
        d.maybe(tables["offsets"]),
        d.maybe(d.tensor((), "M", lo=0, hi=4)),
        d.ints((tokens,), 0, 1, torch.int32) if segmented else None,
        d.maybe(past_segments) if segmented else None,
        d.ints((batch,), 0, 3, torch.int32) if capacity else None,
        max_ngram_size=longest,
        n_head_per_ngram=heads,
        pad_id=d.integer(0, 9),
        reset_on_eos=d.maybe(d.integer(0, 1)),
        state_update_capacity=capacity or d.maybe(0),
        outputs=(4 if capacity else 3) if segmented else 2,
    )

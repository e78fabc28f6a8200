"""A batch of sequences in a decoder: its prompt, its steps, and the cache between them.

    Decoder     the rows of a batch; those that cannot be padded together are several groups
    Cached      a group in a file with a cache: a step runs one token
    Buffered    likewise, where the cache may be longer than what it holds
    Whole       a group in a file without: a step runs the whole sequence

A prompt is the list of its tokens, without those that the caller's mask hides. Each group pads its
rows anew, on the side that the file needs (`Layout.padding`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from onnxinterp.errors import InputError
from onnxinterp.generation.cache import EmptyCache
from onnxinterp.generation.layout import Padding
from onnxinterp.generation.model import Model

SLOTS = 128  # of the cache that are added at once
FILLER = 0  # a token that every vocabulary has, where no token is


class Decoder:
    """The rows of a batch.

    Args:
        model: the decoder.
        prompts: the tokens of each row, int64 [length].
        new_tokens: how many tokens may follow.
        padding: the side of it; by default as the file needs it.
    """

    def __init__(
        self,
        model: Model,
        prompts: Sequence[Tensor],
        new_tokens: int,
        padding: Padding | None = None,
    ) -> None:
        lengths = [len(prompt) for prompt in prompts]
        together = (padding or model.layout.padding) != "none"
        chosen = [range(len(prompts))] if together else _of_same_length(lengths)
        device = prompts[0].device
        self._rows = [torch.tensor(list(rows), device=device) for rows in chosen]
        own = [[prompts[row] for row in rows] for rows in chosen]
        self._groups: Sequence[Cached | Whole]
        if model.layout.cache:
            empty = EmptyCache(model)
            kind = Buffered if model.layout.shares_buffers else Cached
            self._groups = [kind(model, rows, new_tokens, empty) for rows in own]
        else:
            self._groups = [Whole(model, rows, new_tokens) for rows in own]

    def start(self) -> Tensor:
        """Run the prompts; the logits of their last tokens, [rows, vocabulary]."""
        return self._joined([group.start() for group in self._groups])

    def step(self, tokens: Tensor) -> Tensor:
        """Append a token to each row, int64 [rows]; the logits that follow."""
        pairs = zip(self._groups, self._rows, strict=True)
        return self._joined([group.step(tokens[rows]) for group, rows in pairs])

    def _joined(self, logits: Sequence[Tensor]) -> Tensor:
        """The logits of all rows, in their order."""
        if len(logits) == 1:
            return logits[0]
        return torch.cat(list(logits))[torch.cat(self._rows).argsort()]


def _of_same_length(lengths: Sequence[int]) -> list[list[int]]:
    """The rows of each length."""
    groups: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        groups.setdefault(length, []).append(row)
    return list(groups.values())


class Whole:
    """Rows in a file without a cache.

    Args:
        model: the decoder.
        prompts: the tokens of each row.
        new_tokens: how many tokens may follow.
    """

    def __init__(self, model: Model, prompts: Sequence[Tensor], new_tokens: int) -> None:
        self._model = model
        self._lengths = _lengths(prompts)
        self._is_even = len(set(map(len, prompts))) == 1
        self._width = max(map(len, prompts))
        self._tokens = pad_sequence([*prompts], batch_first=True, padding_value=FILLER)
        self._tokens = pad(self._tokens, (0, new_tokens), value=FILLER)
        shape = model.layout.inputs["input_ids"].shape
        self._fixed = shape[1] if shape is not None and isinstance(shape[1], int) else None
        if self._fixed is not None:
            missing = max(0, self._fixed - self._tokens.shape[1])
            self._tokens = pad(self._tokens, (0, missing), value=FILLER)

    def start(self) -> Tensor:
        """The logits of the last tokens."""
        width = self._fixed or self._width
        if self._width > width:
            raise InputError(f"a sequence must have at most {width} tokens, got {self._width}")
        ids = self._tokens[:, :width]
        places = torch.arange(width, device=ids.device)
        mask = places < self._lengths[:, None]
        inputs = self._model.inputs(ids, mask, places.expand(ids.shape), logits=width, first=True)
        logits = self._model(inputs)[self._model.layout.logits]
        return _last(logits, self._lengths - 1, filled=self._is_even and self._width == width)

    def step(self, tokens: Tensor) -> Tensor:
        """Run the rows with a token more."""
        self._tokens.scatter_(1, self._lengths[:, None], tokens[:, None])
        self._lengths, self._width = self._lengths + 1, self._width + 1
        return self.start()


class Cached:
    """Rows in a file with a cache.

    Args:
        model: the decoder.
        prompts: the tokens of each row.
        new_tokens: how many tokens may follow.
        empty: makes the cache.
    """

    side: Literal["left", "right"] = "left"

    def __init__(
        self, model: Model, prompts: Sequence[Tensor], new_tokens: int, empty: EmptyCache
    ) -> None:
        self._model = model
        self._lengths = _lengths(prompts)
        self._is_even = len(set(map(len, prompts))) == 1
        self._width = max(map(len, prompts))
        self._most = self._width + new_tokens
        how: Any = {"batch_first": True, "padding_side": self.side}
        self._ids = pad_sequence([*prompts], padding_value=FILLER, **how)
        ones = [torch.ones_like(prompt, dtype=torch.bool) for prompt in prompts]
        self._mask = pad_sequence(ones, padding_value=False, **how)
        self._cache = empty(len(prompts), self._slots())

    def _slots(self) -> int:
        """The length of the cache before the next call."""
        return 0

    def start(self) -> Tensor:
        """Run the prompts; the logits of their last tokens."""
        positions = self._mask.long().cumsum(1).sub(1).clamp(min=0)
        last = torch.full_like(self._lengths, self._width - 1)
        return self._run(self._ids, positions, last, logits=1, first=True)

    def step(self, tokens: Tensor) -> Tensor:
        """Run one token of each row."""
        self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], 1)
        return self._append(tokens)

    def _append(self, tokens: Tensor) -> Tensor:
        """Run one token of each row, whose mask there is already."""
        positions, last = self._lengths[:, None], torch.zeros_like(self._lengths)
        self._lengths, self._width = self._lengths + 1, self._width + 1
        return self._run(tokens[:, None], positions, last, logits=1, first=False)

    def _run(
        self, ids: Tensor, positions: Tensor, last: Tensor, *, logits: int, first: bool
    ) -> Tensor:
        """Call the graph, and let its outputs be the cache of the next call."""
        inputs = self._model.inputs(ids, self._mask, positions, logits=logits, first=first)
        layout = self._model.layout
        pasts = zip(layout.cache, self._cache, strict=True)
        inputs |= {past.info.name: value for past, value in pasts}
        outputs = self._model(inputs)
        self._cache = [outputs[past.present] for past in layout.cache]
        filled = self._is_even or not first or self.side == "left"
        return _last(outputs[layout.logits], last, filled=filled)


class Buffered(Cached):
    """Rows in a file whose cache may be longer than the past.

    Its length changes only after `SLOTS` tokens, and so does that of the mask: calls with sizes
    that come again are faster. One buffer for the longest possible sequence would be slower, since
    attention goes over all of it.
    """

    side = "right"

    def _slots(self) -> int:
        return min(-(-(self._width + 1) // SLOTS) * SLOTS, self._most)

    def start(self) -> Tensor:
        """Run the prompts; the operator reads the first position alone, and counts from it."""
        positions = torch.arange(self._width, device=self._ids.device).expand(self._ids.shape)
        kept = 1 if self._is_even else self._width
        return self._run(self._ids, positions, self._lengths - 1, logits=kept, first=True)

    def step(self, tokens: Tensor) -> Tensor:
        """Run one token of each row; the mask has the tokens of a row first, as the cache has."""
        slots = self._slots()
        pasts = zip(self._model.layout.cache, self._cache, strict=True)
        self._cache = [past if info.window else _lengthened(past, slots) for info, past in pasts]
        width = self._width + 1 if self._model.layout.branches else slots
        places = torch.arange(width, device=tokens.device)
        self._mask = places <= self._lengths[:, None]
        return self._append(tokens)


def _lengthened(past: Tensor, slots: int) -> Tensor:
    """A buffer [rows, heads, slots, head] with so many slots."""
    return past if past.shape[2] == slots else pad(past, (0, 0, 0, slots - past.shape[2]))


def _lengths(prompts: Sequence[Tensor]) -> Tensor:
    return torch.tensor([len(prompt) for prompt in prompts], device=prompts[0].device)


def _last(logits: Tensor, places: Tensor, *, filled: bool) -> Tensor:
    """The logits at a position of each row, [rows, vocabulary].

    Args:
        logits: of all positions, or of the last one alone, with or without a dimension for it.
        places: the position in each row.
        filled: whether all positions are the last one of the graph.

    Raises:
        InputError: the graph returns others.
    """
    if logits.ndim == 3 and logits.shape[1] > 1:
        return logits[torch.arange(len(places), device=places.device), places]
    if not filled:
        raise InputError(
            "prompts must be of one length, and as long as the file declares: the model returns "
            f"logits of the last position alone, {list(logits.shape)}"
        )
    return logits if logits.ndim == 2 else logits[:, 0]

"""A batch of sequences in a decoder: its prompt, its steps, and the cache between them.

    Decoder     the rows of a batch; those that cannot be padded together are several groups
    Cached      a group in a file with a cache: a step runs one token
    Whole       a group in a file without: a step runs the whole sequence

A prompt is the list of its tokens, without those that the caller's mask hides. Each group pads its
rows anew, on the side that the file needs (`Layout.padding`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from onnxinterp.errors import InputError
from onnxinterp.generation.cache import EmptyCache
from onnxinterp.generation.layout import Padding
from onnxinterp.generation.model import Model

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
            self._groups = [Cached(model, rows, new_tokens, empty) for rows in own]
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
        self._tokens = torch.nn.functional.pad(self._tokens, (0, new_tokens), value=FILLER)
        shape = model.layout.inputs["input_ids"].shape
        self._fixed = shape[1] if shape is not None and isinstance(shape[1], int) else None
        if self._fixed is not None:
            missing = max(0, self._fixed - self._tokens.shape[1])
            self._tokens = torch.nn.functional.pad(self._tokens, (0, missing), value=FILLER)

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

    def __init__(
        self, model: Model, prompts: Sequence[Tensor], new_tokens: int, empty: EmptyCache
    ) -> None:
        self._model = model
        self._padding = model.layout.padding
        self._cache = empty(len(prompts), max(map(len, prompts)) + new_tokens - 1)
        self._lengths = _lengths(prompts)
        self._is_even = len(set(map(len, prompts))) == 1
        side = "left" if self._padding == "left" else "right"
        pad: Any = {"batch_first": True, "padding_side": side}
        self._ids = pad_sequence([*prompts], padding_value=FILLER, **pad)
        ones = [torch.ones_like(prompt, dtype=torch.bool) for prompt in prompts]
        self._mask = pad_sequence(ones, padding_value=False, **pad)

    def start(self) -> Tensor:
        """Run the prompts; the logits of their last tokens."""
        width = self._ids.shape[1]
        padded = self._padding == "right"
        positions = self._mask.long().cumsum(1).sub(1).clamp(min=0)
        if padded:  # the operator reads the first position only, and counts from it
            positions = torch.arange(width, device=positions.device).expand(positions.shape)
        last = self._lengths - 1 if padded else torch.full_like(self._lengths, width - 1)
        return self._run(self._ids, positions, last, is_first=True)

    def step(self, tokens: Tensor) -> Tensor:
        """Run one token of each row."""
        self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], 1)
        positions = self._lengths[:, None]
        self._lengths = self._lengths + 1
        last = torch.zeros_like(self._lengths)
        return self._run(tokens[:, None], positions, last, is_first=False)

    def _run(self, ids: Tensor, positions: Tensor, last: Tensor, *, is_first: bool) -> Tensor:
        """Call the graph, and let its outputs be the cache of the next call."""
        kept = ids.shape[1] if self._padding == "right" else 1
        inputs = self._model.inputs(ids, self._mask, positions, logits=kept, first=is_first)
        layout = self._model.layout
        pasts = zip(layout.cache, self._cache, strict=True)
        inputs |= {past.info.name: value for past, value in pasts}
        outputs = self._model(inputs)
        self._cache = [outputs[past.present] for past in layout.cache]
        filled = self._is_even or not is_first or self._padding == "left"
        return _last(outputs[layout.logits], last, filled=filled)


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

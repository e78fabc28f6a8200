"""Which rows of a batch have ended: by an end token, or by a string in their text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from onnxinterp.errors import InputError
from onnxinterp.generation.text import Detokenizer, Tokenizer


class StopStrings:
    """Looks for strings in the new text of each row; the prompt does not count.

    Args:
        strings: each ends a row whose text has it.
        tokenizer: decodes tokens.
        rows: the number of rows.

    Raises:
        InputError: a string is empty.
    """

    def __init__(self, strings: Sequence[str], tokenizer: Tokenizer, rows: int) -> None:
        if not all(strings):
            raise InputError("stop_strings must not be empty")
        self._strings = strings
        self._longest = max(map(len, strings))
        self._texts = [Detokenizer(tokenizer, special=True) for _ in range(rows)]
        self._tails = [""] * rows

    def add(self, tokens: Sequence[int]) -> list[bool]:
        """Whether each row has one of the strings with its next token."""
        return [self._add(row, token) for row, token in enumerate(tokens)]

    def _add(self, row: int, token: int) -> bool:
        text = self._tails[row] + self._texts[row].add(token)
        self._tails[row] = text[-self._longest :]
        return any(string in text for string in self._strings)


class Stopping:
    """Which rows have ended.

    Args:
        rows: the number of rows.
        ends: the end tokens, int64 [count].
        pad: the token of rows that have ended; None: one row alone is never padded.
        strings: the strings that end a row, or None.

    Attributes:
        ended: bool [rows].
        ends: the end tokens.
    """

    def __init__(
        self, rows: int, ends: Tensor, pad: int | None, strings: StopStrings | None
    ) -> None:
        self.ended = torch.zeros(rows, dtype=torch.bool, device=ends.device)
        self.ends = ends
        self._pad = pad
        self._strings = strings

    def add(self, tokens: Tensor) -> Tensor:
        """The next tokens with padding for the rows that had ended, int64 [rows]."""
        if self._pad is not None:
            tokens = tokens.masked_fill(self.ended, self._pad)
        self.ended = self.ended | torch.isin(tokens, self.ends)
        if self._strings is not None:
            found = torch.tensor(self._strings.add(tokens.tolist()), device=tokens.device)
            self.ended = self.ended | found
        return tokens

    def all_ended(self) -> bool:
        """Whether no row goes on; waits for the device."""
        can_end = self._strings is not None or self.ends.numel() > 0
        return can_end and bool(self.ended.all())

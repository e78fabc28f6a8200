"""Tokens that become text one by one.

The text of a token depends on its neighbours: a character may be made of several tokens, and many
tokenizers put a space before a word only where one precedes it. So the text of a token is what it
adds to the text of those before it, and a character that is not complete waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # what tokenizers return for a part of a character


class Tokenizer(Protocol):
    """What is needed of a tokenizer: those of `tokenizers` and of `transformers` have it."""

    def decode(self, ids: Sequence[int], /, *, skip_special_tokens: bool = ...) -> Any:
        """The text of tokens."""


class Detokenizer:
    """The text of one row.

    Args:
        tokenizer: decodes tokens.
        special: whether special tokens, such as the end, are part of the text.
    """

    def __init__(self, tokenizer: Tokenizer, special: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skip = not special
        self._ids: list[int] = []
        self._start = 0  # of the tokens that the next one is decoded with
        self._done = 0  # the tokens whose text was returned

    def add(self, token: int) -> str:
        """The text that a token adds; "" as long as a character is not complete."""
        self._ids.append(token)
        text = self._rest()
        if text.endswith(INCOMPLETE) or not text:
            return ""
        self._start, self._done = self._done, len(self._ids)
        return text

    def finish(self) -> str:
        """The text that is left: of a character that was never completed."""
        text = self._rest()
        self._start = self._done = len(self._ids)
        return text

    def _rest(self) -> str:
        """The text of the tokens whose text was not returned yet."""
        before = self._decode(self._ids[self._start : self._done])
        return self._decode(self._ids[self._start :])[len(before) :]

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=self._skip))

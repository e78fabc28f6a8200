"""What changes the scores of all tokens before one is chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxinterp.ops.contrib.sampling import banned_tokens

LOWEST = torch.finfo(torch.float32).min  # the score of a token that must not be chosen

Rule = Callable[[Tensor, Tensor], Tensor]  # scores and sequences -> scores


@dataclass(frozen=True)
class Rules:
    """The rules of one search, in the order of the fields.

    Attributes:
        repetition_penalty: divides positive scores of tokens in the sequence, multiplies others.
        ngram_size: no n-gram of this size occurs twice; 0 for no rule.
        vocab_mask: [vocab], 0 for tokens that are never chosen.
        prefix_vocab_mask: [batch, vocab], the same for the first step.
        min_length: the sequence does not end before.
        eos: the token that ends a sequence.
        temperature: divides the scores.
        presence_mask: [batch, vocab], multiplied by `presence_penalty` and subtracted.
        more: another rule, the last one.
    """

    repetition_penalty: float = 1.0
    ngram_size: int = 0
    vocab_mask: Tensor | None = None
    prefix_vocab_mask: Tensor | None = None
    min_length: int = 0
    eos: int = -1
    temperature: float = 1.0
    presence_mask: Tensor | None = None
    presence_penalty: float = 0.0
    more: Rule | None = None

    def apply(self, scores: Tensor, sequences: Tensor, is_first: bool) -> Tensor:
        """The scores after all rules.

        Args:
            scores: [sequences, vocab].
            sequences: [sequences, length], the tokens so far.
            is_first: whether this is the first step.
        """
        vocab = scores.shape[1]
        if self.repetition_penalty != 1:
            seen = torch.zeros_like(scores, dtype=torch.bool).scatter(1, sequences.long(), True)
            factor = self.repetition_penalty
            penalized = torch.where(scores < 0, scores * factor, scores / factor)
            scores = torch.where(seen, penalized, scores)
        if self.ngram_size > 0:
            banned = banned_tokens(sequences, self.ngram_size, vocab)
            scores = scores.masked_fill(banned, LOWEST)
        if self.vocab_mask is not None:
            scores = scores.masked_fill(self.vocab_mask == 0, LOWEST)
        if self.prefix_vocab_mask is not None and is_first:
            mask = for_each_row(self.prefix_vocab_mask, scores)
            scores = scores.masked_fill(mask == 0, LOWEST)
        if sequences.shape[1] < self.min_length:
            is_eos = torch.arange(vocab, device=scores.device) == self.eos
            scores = scores.masked_fill(is_eos, LOWEST)
        if self.temperature not in (0, 1):
            scores = scores / self.temperature
        if self.presence_mask is not None:
            scores = scores - for_each_row(self.presence_mask, scores) * self.presence_penalty
        return scores if self.more is None else self.more(scores, sequences)

    def check(self, batch: int, vocab: int) -> None:
        """Check the sizes of the masks, and the numbers."""
        expected = [
            ("vocab_mask", self.vocab_mask, (vocab,)),
            ("prefix_vocab_mask", self.prefix_vocab_mask, (batch, vocab)),
            ("presence_mask", self.presence_mask, (batch, vocab)),
        ]
        for name, mask, sizes in expected:
            if mask is not None and tuple(mask.shape) != sizes:
                raise ValueError(f"{name} must be {list(sizes)}, got {list(mask.shape)}")
        if not self.repetition_penalty > 0:
            raise ValueError(f"repetition_penalty must be above 0, got {self.repetition_penalty}")
        if self.min_length > 0 and not 0 <= self.eos < vocab:
            raise ValueError(f"eos_token_id must be one of {vocab} tokens, got {self.eos}")


def for_each_row(mask: Tensor, scores: Tensor) -> Tensor:
    """A row of the mask for each beam of the batch."""
    return mask.repeat_interleave(scores.shape[0] // max(mask.shape[0], 1), 0)


def next_scores(logits: Tensor, rows: int, vocab_size: int) -> Tensor:
    """The logits of the last position, [rows, vocab], at least in float32.

    Args:
        logits: [rows or a divisor of it, positions, vocab].
        rows: the number of sequences.
        vocab_size: how many tokens there are; the logits of others are padding. -1 or 0 for all.
    """
    if logits.ndim != 3 or not logits.shape[0] or rows % logits.shape[0] or not logits.shape[1]:
        raise ValueError(f"the logits must be [{rows}, positions, vocab], got {list(logits.shape)}")
    if vocab_size > logits.shape[2]:
        raise ValueError(f"vocab_size must be at most {logits.shape[2]}, got {vocab_size}")
    last = logits[:, -1, : vocab_size if vocab_size > 0 else None]
    wide = last if last.dtype is torch.float64 else last.float()
    return wide.repeat_interleave(rows // logits.shape[0], 0)

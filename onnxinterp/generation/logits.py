"""From logits to tokens: the processors of Hugging Face transformers, in its order.

    repetition penalty   a token that the row has: logit / penalty if positive, * penalty if not
    min_new_tokens       no end token before that many
    temperature          logits / temperature
    top-k                logits below the k-th largest are removed; equal ones stay
    top-p                the most probable tokens that together have at least p; one always stays

Removed means -inf. All of them compute in float32, whatever the type of the model, and the last
three only when tokens are drawn. Padding of a prompt is not part of the row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxinterp.errors import InputError


def penalize(scores: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make tokens less likely that a row has already; both [batch, vocabulary]."""
    penalized = torch.where(scores < 0, scores * penalty, scores / penalty)
    return torch.where(seen, penalized, scores)


def keep_top_k(scores: Tensor, k: int) -> Tensor:
    """Remove all but the k largest, and those equal to the k-th."""
    smallest = scores.topk(min(k, scores.shape[-1])).values[..., -1:]
    return scores.masked_fill(scores < smallest, -math.inf)


def keep_top_p(scores: Tensor, p: float) -> Tensor:
    """Remove the least probable tokens, as long as those that stay have a probability of p."""
    ascending, order = scores.sort()
    removed = ascending.softmax(-1).cumsum(-1) <= 1 - p
    removed[..., -1] = False
    return scores.masked_fill(removed.scatter(-1, order, removed), -math.inf)


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        do_sample: whether it is drawn; if not, it is the most probable one.
        temperature: what logits are divided by.
        top_k: how many tokens stay; None: all.
        top_p: the probability that stays; None: all.
        repetition_penalty: 1 for none.
        min_new_tokens: how many tokens are not the end.
        generator: draws; None: torch's own.
    """

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    min_new_tokens: int = 0
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InputError: one is out of its range.
        """
        positive = {"temperature": self.temperature, "repetition_penalty": self.repetition_penalty}
        for name, value in positive.items():
            if not 0 < value < math.inf:
                raise InputError(f"{name} must be a positive number, got {value}")
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k must be at least 1, got {self.top_k}")
        if self.top_p is not None and not 0 <= self.top_p <= 1:
            raise InputError(f"top_p must be from 0 to 1, got {self.top_p}")
        if self.min_new_tokens < 0:
            raise InputError(f"min_new_tokens must be at least 0, got {self.min_new_tokens}")

    def process(self, logits: Tensor, seen: Tensor | None, ends: Tensor | None) -> Tensor:
        """The scores of the next token, float32 [batch, vocabulary].

        Args:
            logits: of the last position, [batch, vocabulary].
            seen: which tokens a row has, [batch, vocabulary]; None without a penalty.
            ends: the tokens that are not allowed yet, int64 [count].
        """
        scores = logits.float()
        if seen is not None and self.repetition_penalty != 1:
            scores = penalize(scores, seen, self.repetition_penalty)
        if ends is not None:
            scores = scores.index_fill(-1, ends[ends < scores.shape[-1]], -math.inf)
        if not self.do_sample:
            return scores
        if self.temperature != 1:
            scores = scores / self.temperature
        if self.top_k is not None:
            scores = keep_top_k(scores, self.top_k)
        if self.top_p is not None and self.top_p < 1:
            scores = keep_top_p(scores, self.top_p)
        return scores

    def choose(self, scores: Tensor) -> Tensor:
        """The next tokens, int64 [batch]; draws on the device of the generator."""
        if not self.do_sample:
            return scores.argmax(-1)
        device = scores.device if self.generator is None else self.generator.device
        drawn = torch.multinomial(scores.softmax(-1).to(device), 1, generator=self.generator)
        return drawn.squeeze(-1).to(scores.device)

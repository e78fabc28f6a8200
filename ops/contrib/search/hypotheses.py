"""The finished sequences of a beam search, and which beams go on."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.values import array_of


@dataclass
class Hypotheses:
    """The best finished sequences of one element of the batch, best first.

    Attributes:
        capacity: how many are kept.
        length_penalty: a score is divided by the length to this power.
        scores: as numbers.
        entries: the scores as tensors, and the sequences.
        done: whether no beam can become better than the worst of them.
    """

    capacity: int
    length_penalty: float
    scores: list[Any] = field(default_factory=list)
    entries: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    done: bool = False

    def add(self, sequence: Tensor, total: Tensor, number: Any) -> None:
        """Add a sequence if it is good enough; before it, those that are as good.

        Args:
            sequence: [length], without the token that ends it.
            total: the sum of the logarithms of its probabilities.
            number: the same as a number.
        """
        score = self._normalized(number, len(sequence))
        if len(self.scores) == self.capacity:
            if not score > self.scores[-1]:
                return
            del self.scores[-1], self.entries[-1]
        place = bisect.bisect_right([-s for s in self.scores], -score)
        self.scores.insert(place, score)
        self.entries.insert(place, (total / len(sequence) ** self.length_penalty, sequence))

    def can_improve(self, best: Any, length: int) -> bool:
        """Whether a beam of this length could be better than the worst that is kept."""
        return bool(self.scores[-1] < self._normalized(best, length))

    def _normalized(self, total: Any, length: int) -> Any:
        with np.errstate(all="ignore"):
            return total / np.float32(length) ** np.float32(self.length_penalty)


class BeamScorer:
    """Chooses the beams of the next step.

    Args:
        batch: number of elements.
        beams: for each of them.
        length_penalty: see `Hypotheses`.
        early_stopping: whether an element is done as soon as it has `beams` sequences.
        eos: the token that ends a sequence.
        pad: the token that follows in elements that are done.
    """

    def __init__(
        self,
        batch: int,
        beams: int,
        length_penalty: float,
        early_stopping: bool,
        eos: int,
        pad: int,
    ) -> None:
        self.beams, self.early_stopping, self.eos, self.pad = beams, early_stopping, eos, pad
        self.hypotheses = [Hypotheses(beams, length_penalty) for _ in range(batch)]

    @property
    def is_done(self) -> bool:
        """Whether all elements of the batch are."""
        return all(h.done for h in self.hypotheses)

    def choose(self, sequences: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The next beams: their scores, their last tokens, and the beams they continue.

        Args:
            sequences: [batch * beams, length].
            candidates: [batch, beams, vocab], the scores of all continuations.
        """
        vocab = candidates.shape[2]
        flat = candidates.flatten(1)
        order = flat.sort(dim=1, descending=True, stable=True).indices[:, : 2 * self.beams]
        best = flat.gather(1, order)
        tokens, rows = order % vocab, order // vocab
        numbers, ids, beams = array_of(best), array_of(tokens), array_of(rows)
        picks = np.zeros((len(numbers), self.beams), np.int64)
        was_done = [h.done for h in self.hypotheses]
        for b, hypotheses in enumerate(self.hypotheses):
            if hypotheses.done:
                continue
            goes_on = ids[b] != self.eos
            picks[b] = np.flatnonzero(goes_on)[: self.beams]
            for j in np.flatnonzero(~goes_on[: picks[b, -1]]):
                if j < self.beams:
                    row = int(b * self.beams + beams[b, j])
                    hypotheses.add(sequences[row], best[b, j], numbers[b, j])
            # as in onnxruntime, which steps by beams where each element has 2 * beams: the best
            # candidate of an element depends on those before it
            window = numbers.reshape(-1)[b * self.beams :][: 2 * self.beams]
            self._finish(hypotheses, window.max(), sequences.shape[1])
        return self._picked(picks, was_done, best, tokens, rows, sequences)

    def _finish(self, hypotheses: Hypotheses, best: Any, length: int) -> None:
        if len(hypotheses.scores) == self.beams:
            going = not self.early_stopping and hypotheses.can_improve(best, length)
            hypotheses.done = not going

    def _picked(
        self,
        picks: np.ndarray[Any, Any],
        was_done: list[bool],
        best: Tensor,
        tokens: Tensor,
        rows: Tensor,
        sequences: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        at = torch.from_numpy(picks).to(best.device)
        done = torch.tensor(was_done, device=best.device)[:, None]
        offsets = torch.arange(len(was_done), device=best.device)[:, None] * self.beams
        scores = torch.where(done, 0, best.gather(1, at)).flatten()
        chosen = torch.where(done, self.pad, tokens.gather(1, at)).flatten()
        sources = torch.where(done, 0, rows.gather(1, at) + offsets).flatten()
        return scores, chosen.to(sequences.dtype), sources

    def results(
        self, sequences: Tensor, totals: Tensor, count: int, max_length: int
    ) -> tuple[Tensor, Tensor]:
        """The best sequences [batch, count, max_length] and their scores [batch, count].

        Args:
            sequences: [batch * beams, length], those that have not ended.
            totals: [batch * beams], their scores.
            count: of sequences for each element of the batch.
            max_length: of a sequence with its padding.
        """
        numbers = array_of(totals)
        found, scores = [], []
        for b, hypotheses in enumerate(self.hypotheses):
            if not hypotheses.done:
                for row in range(b * self.beams, (b + 1) * self.beams):
                    hypotheses.add(sequences[row], totals[row], numbers[row])
            for score, sequence in hypotheses.entries[:count]:
                behind = [0, max_length - len(sequence)]
                found.append(functional.pad(sequence, behind, value=self.pad))
                scores.append(score)
        shape = (len(self.hypotheses), count)
        return torch.stack(found).reshape(*shape, max_length), torch.stack(scores).reshape(shape)

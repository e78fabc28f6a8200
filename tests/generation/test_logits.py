"""The processors compute what Hugging Face's do: their formulas, in numpy, one row at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch

import onnxinterp
from onnxinterp import OnnxModule
from onnxinterp.generation.logits import Sampling, keep_top_k, keep_top_p, penalize
from tests.models import parse

TIES = [[1.0, 3.0, 3.0, 3.0, -2.0, 0.5], [-1.0, -1.0, -1.0, -1.0, -1.0, -1.0]]


@pytest.fixture
def scores() -> torch.Tensor:
    random = torch.randn(5, 6, generator=torch.Generator().manual_seed(1)) * 3
    return torch.cat([random, torch.tensor(TIES)])


def softmax(row: np.ndarray) -> np.ndarray:
    powers = np.exp(row.astype(np.float64) - row.max())
    return powers / powers.sum()


@pytest.mark.parametrize("penalty", [0.5, 1.7])
def test_repetition_penalty(penalty: float, scores: torch.Tensor) -> None:
    seen = torch.rand(scores.shape, generator=torch.Generator().manual_seed(2)) < 0.5
    wanted = [
        [
            (s / penalty if s > 0 else s * penalty) if there else s
            for s, there in zip(*row, strict=True)
        ]
        for row in zip(scores.tolist(), seen.tolist(), strict=True)
    ]
    np.testing.assert_allclose(penalize(scores, seen, penalty), wanted, rtol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 5, 100])
def test_top_k(k: int, scores: torch.Tensor) -> None:
    """Those equal to the k-th largest stay."""
    for row, found in zip(scores.tolist(), keep_top_k(scores, k).tolist(), strict=True):
        smallest = sorted(row)[-min(k, len(row))]
        assert found == [s if s >= smallest else -math.inf for s in row]


@pytest.mark.parametrize("p", [0.0, 0.3, 0.7, 0.95])
def test_top_p(p: float, scores: torch.Tensor) -> None:
    """From the most probable token on, tokens stay until they have p; at least one does."""
    for row, found in zip(scores[:5].numpy(), keep_top_p(scores, p)[:5].numpy(), strict=True):
        probabilities, kept, sum_ = softmax(row), [], 0.0
        for token in np.argsort(-row):
            if kept and sum_ >= p:
                break
            kept.append(token)
            sum_ += probabilities[token]
        assert np.isfinite(found).nonzero()[0].tolist() == sorted(kept)
        np.testing.assert_array_equal(found[kept], row[kept])


def test_the_order_is_penalty_ends_temperature_top_k_top_p() -> None:
    logits = torch.tensor([[4.0, 3.9, 3.0, 1.0, -1.0]])
    seen = torch.tensor([[True, False, False, False, True]])
    sampling = Sampling(True, 2.0, 3, 0.8, 2.0)
    found = sampling.process(logits, seen, torch.tensor([2, 77]))
    # penalty: 2, 3.9, 3, 1, -2; the end goes: 2, 3.9, -, 1, -2; temperature: 1, 1.95, -, 0.5, -1
    # top-k: 1, 1.95, -, 0.5, -; their probabilities: .24, .62, -, .14, -; top-p: 1, 1.95, -, -, -
    np.testing.assert_allclose(found, [[1.0, 1.95, -math.inf, -math.inf, -math.inf]], rtol=1e-6)
    greedy = Sampling(False, 2.0, 3, 0.8, 2.0).process(logits, seen, None)
    np.testing.assert_allclose(greedy, [[2.0, 3.9, 3.0, 1.0, -2.0]], rtol=1e-6)
    assert Sampling().process(logits.half(), None, None).dtype == torch.float32


def chain() -> OnnxModule:
    """A model whose logits depend on the last token alone."""
    text = """g (int64[b, s] input_ids) => (float[b, s, 4] logits)
        <float[4, 4] w = {0, 1, 2, 3, 1, 1, 0, 0, 2, 0, 0, 1, 0, 0, 0, 4}> {
        logits = Gather(w, input_ids)
    }"""
    return OnnxModule(parse(text))


def counted(tokens: Iterable[int]) -> list[float]:
    counts = np.bincount(list(tokens), minlength=4)
    return (counts / counts.sum()).tolist()


@pytest.mark.parametrize("options", [{}, {"temperature": 0.5}, {"top_k": 2}, {"top_p": 0.7}])
def test_tokens_are_drawn_by_their_probability(options: dict[str, Any]) -> None:
    ids = torch.zeros(1, 1, dtype=torch.int64)
    drawn = onnxinterp.generate(
        chain(), ids, max_new_tokens=1, num_return_sequences=4000, seed=3, **options
    )
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    processed = Sampling(True, **options).process(logits, None, None)
    np.testing.assert_allclose(counted(drawn[:, 1].tolist()), processed.softmax(-1)[0], atol=0.03)
    impossible = (processed[0] == -math.inf).nonzero().flatten()
    assert not torch.isin(drawn[:, 1], impossible).any()


def test_a_seed_repeats_and_torch_is_seeded_too() -> None:
    module, ids = chain(), torch.zeros(2, 1, dtype=torch.int64)
    options: dict[str, Any] = {"max_new_tokens": 20, "temperature": 3.0}
    first, second, third = (
        onnxinterp.generate(module, ids, seed=seed, **options) for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    generator = torch.Generator().manual_seed(1)
    assert torch.equal(onnxinterp.generate(module, ids, generator=generator, **options), first)
    torch.manual_seed(1)
    assert torch.equal(onnxinterp.generate(module, ids, do_sample=True, **options), first)


def test_padding_is_not_repeated() -> None:
    """The penalty for token 0 holds only where it is part of the prompt."""
    ids, mask = torch.tensor([[0, 1], [0, 1]]), torch.tensor([[0, 1], [1, 1]])
    found = onnxinterp.generate(
        chain(), ids, attention_mask=mask, max_new_tokens=1, repetition_penalty=5.0
    )
    logits = torch.tensor([1.0, 1.0, 0.0, 0.0])
    wanted = [int((logits / torch.tensor(p)).argmax()) for p in ([1, 5.0, 1, 1], [5.0, 5.0, 1, 1])]
    assert found[:, 2].tolist() == wanted

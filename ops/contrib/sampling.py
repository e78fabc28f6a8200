"""What a decoding loop does between two steps: NGramRepeatBlock, BifurcationDetector.

And SampleOp, the example in onnxruntime's documentation of how to add an operator.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call, one_tensor
from onnxinterp.values import number


@contrib_op("NGramRepeatBlock")
def ngram_repeat_block(input_ids: Tensor, scores: Tensor, *, ngram_size: int) -> Tensor:
    """Minus infinity for each token that would complete an n-gram a second time."""
    if input_ids.ndim != 2 or scores.ndim != 2 or input_ids.shape[0] != scores.shape[0]:
        shapes = f"{list(input_ids.shape)} and {list(scores.shape)}"
        raise ValueError(f"input_ids and scores must be 2-D of one batch size, got {shapes}")
    banned = banned_tokens(input_ids, ngram_size, scores.shape[1])
    return scores.masked_fill(banned, -math.inf)


def banned_tokens(input_ids: Tensor, ngram_size: int, vocab_size: int) -> Tensor:
    """[batch, vocab]: the tokens that would complete an n-gram which is in the sequence."""
    if ngram_size < 1:
        raise ValueError(f"ngram_size must be positive, got {ngram_size}")
    counts = input_ids.new_zeros((input_ids.shape[0], vocab_size), dtype=torch.int64)
    if input_ids.shape[1] < ngram_size:
        return counts > 0
    windows = input_ids.unfold(1, ngram_size, 1)
    tail = input_ids[:, input_ids.shape[1] - ngram_size + 1 :]
    repeats = (windows[..., :-1] == tail[:, None]).all(-1)
    return counts.scatter_add(1, windows[..., -1].long(), repeats.long()) > 0


@contrib_op("BifurcationDetector", data_shaped=True)
def bifurcation_detector(
    src_tokens: Tensor,
    cur_tokens: Tensor,
    prev_suffix_match_idx: Tensor,
    pred_tokens: Tensor | None = None,
    *,
    max_ngram_size: int = 3,
    min_ngram_size: int = 1,
) -> tuple[Tensor, Tensor]:
    """Accept the predictions up to the first that is not the source's, and that one too."""
    if not 0 < min_ngram_size <= max_ngram_size:
        sizes = f"{min_ngram_size} and {max_ngram_size}"
        raise ValueError(f"min_ngram_size must be from 1 to max_ngram_size, got {sizes}")
    if src_tokens.ndim != 1 or cur_tokens.ndim != 1 or prev_suffix_match_idx.numel() != 1:
        raise ValueError("tokens must be 1-D, and prev_suffix_match_idx one number")
    accepted = cur_tokens[:0]
    if pred_tokens is not None:
        start = number(prev_suffix_match_idx)
        left = src_tokens.shape[0] - start
        if start < 0 or left < 0 or pred_tokens.shape != (left + 1,):
            wanted = f"[{left + 1}] behind the index {start}"
            raise ValueError(f"pred_tokens must be {wanted}, got {list(pred_tokens.shape)}")
        is_same = pred_tokens[:-1] == src_tokens[start:]
        accepted = torch.cat([pred_tokens[:1], pred_tokens[1:][is_same.cumprod(0).bool()]])
    else:
        accepted = cur_tokens[cur_tokens != cur_tokens]  # none: a shape that depends on data, too
    tokens = torch.cat([cur_tokens, accepted])
    index = _suffix_index(src_tokens, tokens, range(min_ngram_size, max_ngram_size + 1))
    return tokens, index.reshape(prev_suffix_match_idx.shape)


def _suffix_index(source: Tensor, tokens: Tensor, sizes: range) -> Tensor:
    """Where the source goes on after the last n-gram of the tokens, if it is there once; else -1.

    Longer n-grams are tried until one is not in the source, or ends it: then the index before
    holds.
    """
    index = torch.full_like(source[:0].sum(), -1)
    searching = torch.ones_like(index, dtype=torch.bool)
    for n in sizes:
        if n > min(tokens.shape[0], source.shape[0]):
            break
        matches = (source.unfold(0, n, 1) == tokens[-n:]).all(-1)
        count, end = matches.sum(), matches.long().argmax() + n
        found = torch.where(count > 1, -1, end)
        index = torch.where(searching & (count > 0), found, index)
        searching = searching & (count > 0) & (end < source.shape[0])
    return index


@contrib_op("SampleOp", any_type=True)
def sample_op(X: Tensor) -> Tensor:
    return X


sample(sample_op)(one_tensor())


@sample(ngram_repeat_block)
def _(d: Draw) -> Call:
    batch, length, vocab = d.integer(1, 3), d.integer(1, 8), d.integer(2, 4)
    ids, scores = d.ints((batch, length), 0, vocab - 1), d.tensor((batch, vocab))
    return call(ids, scores, ngram_size=d.integer(1, 4))


@sample(bifurcation_detector)
def _(d: Draw) -> Call:
    n, most = d.integer(1, 8), d.integer(0, 3)
    source, current = d.ints((n,), 0, most), d.ints((d.integer(0, 6),), 0, most)
    start, smallest = d.integer(0, n), d.integer(1, 3)
    predicted = torch.cat([source[start:], d.ints((1,), 0, most)])
    predicted = torch.where(d.ints(predicted.shape, 0, 3) > 0, predicted, most)
    return call(
        source,
        current,
        torch.tensor([start]),
        d.maybe(predicted),
        min_ngram_size=smallest if smallest > 1 else d.maybe(1),
        max_ngram_size=d.maybe(d.integer(smallest, 4)),
        outputs=2,
    )

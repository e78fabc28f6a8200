"""GreedySearch and Sampling: one sequence for each element of the batch, of a GPT-2 decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.ops.contrib.search.decoders import GptDecoder, Layout, layout_of
from onnxinterp.ops.contrib.search.graphs import (
    Vocabulary,
    draw_ending,
    draw_mask,
    draw_tokens,
    draw_vocabulary,
    gpt_decoder,
)
from onnxinterp.ops.contrib.search.logits import LOWEST, Rules, next_scores
from onnxinterp.ops.randomness import generator_of
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag, Scalar, Subgraph, number

MAX_LENGTH = 4096  # tokens of a sequence, as in onnxruntime

Choose = Callable[[Tensor], Tensor]  # [batch, vocab] scores -> [batch] tokens


@contrib_op("GreedySearch", data_shaped=True, prepare=layout_of, extra_body_outputs=None)
def greedy_search(
    input_ids: Tensor,
    max_length: Scalar,
    min_length: Scalar | None = None,
    repetition_penalty: Scalar | None = None,
    vocab_mask: Tensor | None = None,
    prefix_vocab_mask: Tensor | None = None,
    attention_mask: Tensor | None = None,
    *,
    decoder: Subgraph,
    decoder_start_token_id: int = -1,  # noqa: ARG001  # of encoder-decoder models
    encoder: Subgraph | None = None,  # noqa: ARG001
    eos_token_id: int,
    init_decoder: Subgraph | None = None,
    model_type: int = 0,
    no_repeat_ngram_size: int = 0,
    pad_token_id: int,
    vocab_size: int = -1,
    prepared: Layout,
) -> Tensor:
    """The token of the highest score at each step.

    Padding follows the end of a sequence. onnxruntime leaves undefined what is behind the step in
    which the last sequence ended.
    """
    check_search(input_ids, max_length, model_type)
    model = GptDecoder(
        *(decoder, init_decoder, prepared, input_ids, attention_mask, pad_token_id, 1)
    )
    rules = Rules(
        repetition_penalty=1 if repetition_penalty is None else float(repetition_penalty),
        ngram_size=no_repeat_ngram_size,
        vocab_mask=vocab_mask,
        prefix_vocab_mask=prefix_vocab_mask,
        min_length=int(min_length or 0),
        eos=eos_token_id,
    )

    def choose(scores: Tensor) -> Tensor:
        return scores.argmax(1)

    return _search(model, rules, choose, int(max_length), vocab_size, pad_token_id)


def check_search(input_ids: Tensor, max_length: Scalar, model_type: int) -> None:
    """Check what a search over a GPT-2 decoder needs."""
    if model_type != 0:
        raise ValueError(f"model_type must be 0 (GPT-2), got {model_type}")
    check_length(input_ids, max_length)


def check_length(input_ids: Tensor, max_length: Scalar) -> None:
    """Check that there is a prompt, and room for a token behind it."""
    if input_ids.ndim != 2 or not input_ids.numel():
        raise ValueError(f"input_ids must be [batch, length], got {list(input_ids.shape)}")
    if not input_ids.shape[1] < max_length <= MAX_LENGTH:
        length = input_ids.shape[1]
        raise ValueError(f"max_length must be from {length + 1} to {MAX_LENGTH}, got {max_length}")


def _search(
    model: GptDecoder, rules: Rules, choose: Choose, max_length: int, vocab_size: int, pad: int
) -> Tensor:
    sequences, length = model.sequences, model.sequences.shape[1]
    done = torch.zeros_like(sequences[:, 0], dtype=torch.bool)
    scores = next_scores(model.logits, sequences.shape[0], vocab_size)
    rules.check(*scores.shape)
    while True:
        scores = rules.apply(scores, sequences, sequences.shape[1] == length)
        tokens = choose(scores).to(sequences.dtype)
        done = done | (tokens == rules.eos)
        tokens = torch.where(done, pad, tokens)
        sequences = torch.cat([sequences, tokens.unsqueeze(1)], 1)
        if number(done.all()) or sequences.shape[1] >= max_length:
            break
        scores = next_scores(model.step(tokens, None), sequences.shape[0], vocab_size)
    return functional.pad(sequences, [0, max_length - sequences.shape[1]], value=pad)


@contrib_op("Sampling", random=True, data_shaped=True, prepare=layout_of, extra_body_outputs=None)
def sampling(
    input_ids: Tensor,
    max_length: Scalar,
    min_length: Scalar | None = None,
    repetition_penalty: Scalar | None = None,
    vocab_mask: Tensor | None = None,
    prefix_vocab_mask: Tensor | None = None,
    attention_mask: Tensor | None = None,
    presence_mask: Tensor | None = None,
    seed: Scalar | None = None,
    *,
    custom: Flag = 0,
    decoder: Subgraph,
    decoder_start_token_id: int = -1,  # noqa: ARG001  # of encoder-decoder models
    encoder: Subgraph | None = None,  # noqa: ARG001
    eos_token_id: int,
    filter_value: float = -1e20,
    init_decoder: Subgraph | None = None,
    min_tokens_to_keep: int = 0,
    model_type: int = 0,
    no_repeat_ngram_size: int = 0,
    pad_token_id: int,
    presence_penalty: float = 0.0,
    temperature: float = 1.0,
    top_p: float = 0.0,
    vocab_size: int = -1,
    prepared: Layout,
) -> tuple[Tensor, Tensor]:
    """A random token of the most probable ones, whose probabilities add up to top_p.

    There is always one, although top_p is 0 by default. The second output are the scores of the
    last step, which onnxruntime returns in debug builds only.
    """
    check_search(input_ids, max_length, model_type)
    model = GptDecoder(
        *(decoder, init_decoder, prepared, input_ids, attention_mask, pad_token_id, 1)
    )
    rules = Rules(
        repetition_penalty=1 if repetition_penalty is None else float(repetition_penalty),
        ngram_size=no_repeat_ngram_size,
        vocab_mask=vocab_mask,
        prefix_vocab_mask=prefix_vocab_mask,
        min_length=int(min_length or 0),
        eos=eos_token_id,
        temperature=temperature,
        presence_mask=presence_mask,
        presence_penalty=presence_penalty,
    )
    generator = generator_of(None if seed is None else float(seed), input_ids.device)
    least = 1 if custom else max(min_tokens_to_keep, 1)
    filtered = torch.empty(0)

    def choose(scores: Tensor) -> Tensor:
        nonlocal filtered
        scores = scores.clamp(min=LOWEST)  # if all are forbidden
        filtered = scores.masked_fill(_improbable(scores, top_p, least), filter_value)
        probabilities = filtered.softmax(1)
        return torch.multinomial(probabilities, 1, generator=generator).squeeze(1)

    sequences = _search(model, rules, choose, int(max_length), vocab_size, pad_token_id)
    return sequences, filtered


def _improbable(scores: Tensor, top_p: float, least: int) -> Tensor:
    """The tokens behind those whose probabilities, largest first, reach top_p."""
    order = scores.sort(dim=1, descending=True, stable=True).indices
    probabilities = scores.gather(1, order).softmax(1)
    before = probabilities.cumsum(1) - probabilities
    rank = torch.arange(scores.shape[1], device=scores.device)
    behind = (before >= top_p) & (rank >= least)
    return torch.zeros_like(behind).scatter(1, order, behind)


def _draw_common(d: Draw) -> tuple[Vocabulary, list[Any], dict[str, Any]]:
    """The inputs and attributes that the two operators share; the first input is the prompt."""
    own, batch, length = draw_vocabulary(d), d.integer(1, 3), d.integer(1, 4)
    most, ending = length + d.integer(1, 5), draw_ending(d, own)
    inputs = [
        draw_tokens(d, own, batch, length),
        most,
        d.maybe(d.integer(0, most - 1)) if ending.eos < own.vocab else None,
        d.maybe(d.real(0.5, 2)),
        ending.vocab_mask,
        draw_mask(d, batch, own.vocab),
        d.maybe(d.ints((batch, length), 0, 1, torch.int32)),
    ]
    attributes = {
        "decoder": gpt_decoder(own),
        "init_decoder": d.maybe(gpt_decoder(replace(own, seed=own.seed + 1))),
        "eos_token_id": ending.eos,
        "pad_token_id": ending.pad,
        "no_repeat_ngram_size": d.maybe(d.integer(0, 3)),
        "vocab_size": d.maybe(own.vocab),
        "model_type": d.maybe(0),
        "decoder_start_token_id": d.maybe(0),
    }
    return own, inputs, attributes


@sample(greedy_search)
def _(d: Draw) -> Call:
    _, inputs, attributes = _draw_common(d)
    return call(*inputs, **attributes)


@sample(sampling)
def _(d: Draw) -> Call:
    own, inputs, attributes = _draw_common(d)
    batch = inputs[0].shape[0]
    return call(
        *inputs,
        d.maybe(d.ints((batch, own.vocab), 0, 1, torch.int32)),
        d.maybe(d.integer(0, 1000)),
        **attributes,
        custom=d.maybe(d.integer(0, 1)),
        filter_value=d.maybe(d.real(-1000, -100)),
        min_tokens_to_keep=d.maybe(d.integer(0, 2)),
        presence_penalty=d.maybe(d.real(0, 1)),
        temperature=d.maybe(d.real(0.5, 2)),
        top_p=d.maybe(d.real(0, 1)),
    )

"""BeamSearch: the most probable of several sequences, of GPT-2, T5 or Whisper."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from onnx import TensorProto
from torch import Tensor

from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.ops.contrib.search.decoders import (
    EncoderDecoder,
    GptDecoder,
    Layout,
    layout_of,
    t5_model,
    whisper_model,
)
from onnxinterp.ops.contrib.search.graphs import (
    Vocabulary,
    draw_ending,
    draw_mask,
    draw_tokens,
    draw_vocabulary,
    gpt_decoder,
    t5_graphs,
    whisper_graphs,
)
from onnxinterp.ops.contrib.search.greedy import check_length
from onnxinterp.ops.contrib.search.hypotheses import BeamScorer
from onnxinterp.ops.contrib.search.logits import Rules, next_scores
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Host, Scalar, Subgraph

MAX_BEAMS = 128  # as in onnxruntime
FORBIDDEN = -1e30  # what is added to the score of a forbidden token is lost
UNLIKELY = -1e9  # the score of all beams but the first at the start, which would be equal


@dataclass(frozen=True)
class Search:
    """The settings of a beam search.

    Attributes:
        beams: sequences that go on for each element of the batch.
        count: sequences that are returned for each of them.
        max_length: tokens of a sequence.
        vocab_size: number of tokens; -1 or 0 for as many as there are logits.
        length_penalty: see `Hypotheses`.
        early_stopping: see `BeamScorer`.
        pad: the token of padding.
        dtype: of the scores that are returned; None for that of the logits.
    """

    beams: int
    count: int
    max_length: int
    vocab_size: int
    length_penalty: float
    early_stopping: bool
    pad: int
    dtype: torch.dtype | None

    def check(self) -> None:
        """Check the numbers of beams."""
        if not 1 <= self.count <= self.beams <= MAX_BEAMS:
            wanted = f"1 <= num_return_sequences <= num_beams <= {MAX_BEAMS}"
            raise ValueError(f"there must be {wanted}, got {self.count} and {self.beams}")

    def run(
        self, model: GptDecoder | EncoderDecoder, rules: Rules
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sequences, their scores, and the scores of all candidates at each step."""
        sequences, length = model.sequences, model.sequences.shape[1]
        check_length(sequences, self.max_length)
        rows = sequences.shape[0]
        batch = rows // self.beams
        scorer = BeamScorer(
            *(batch, self.beams, self.length_penalty, self.early_stopping, rules.eos, self.pad)
        )
        logits = next_scores(model.logits, rows, self.vocab_size)
        rules.check(batch, logits.shape[1])
        totals = torch.full((batch, self.beams), UNLIKELY, dtype=logits.dtype, device=logits.device)
        totals[:, 0] = 0
        totals, history = totals.flatten(), []
        while True:
            is_first = sequences.shape[1] == length
            scores = rules.apply(logits.log_softmax(1), sequences, is_first)
            counts = (scores > FORBIDDEN) | (totals[:, None] < FORBIDDEN)
            scores = scores + torch.where(counts, totals[:, None], 0)
            candidates = scores.reshape(batch, self.beams, -1)
            history.append(candidates)
            totals, tokens, sources = scorer.choose(sequences, candidates)
            sequences = torch.cat([sequences.index_select(0, sources), tokens[:, None]], 1)
            if scorer.is_done or sequences.shape[1] >= self.max_length:
                break
            step = model.step(tokens, sources if self.beams > 1 else None)
            logits = next_scores(step, rows, self.vocab_size)
        found, best = scorer.results(sequences, totals, self.count, self.max_length)
        missing = self.max_length - length - len(history)
        steps = torch.stack([*history, *[torch.zeros_like(candidates)] * missing])
        return found, best.to(self.dtype or best.dtype), steps.to(self.dtype or best.dtype)


@contrib_op("BeamSearch", data_shaped=True, prepare=layout_of, extra_body_outputs=None)
def beam_search(
    input_ids: Tensor,
    max_length: Scalar,
    min_length: Scalar | None = None,
    num_beams: Scalar = 1,
    num_return_sequences: Scalar = 1,
    length_penalty: Host | None = None,
    repetition_penalty: Host | None = None,
    vocab_mask: Tensor | None = None,
    prefix_vocab_mask: Tensor | None = None,
    attention_mask: Tensor | None = None,
    decoder_input_ids: Tensor | None = None,
    logits_processor: Scalar | None = None,
    *,
    decoder: Subgraph,
    decoder_start_token_id: int = -1,
    early_stopping: int = 0,
    encoder: Subgraph | None = None,
    eos_token_id: int,
    init_decoder: Subgraph | None = None,
    model_type: int = 0,
    no_repeat_ngram_size: int = 0,
    pad_token_id: int,
    vocab_size: int = -1,
    prepared: Layout,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sequences that have ended compete by their scores: sums of log p / length**length_penalty.

    The length includes the prompt, and not the token that ends the sequence. The third output is
    undefined in onnxruntime, and 0 here, for steps after all sequences have ended.
    """
    beams = int(num_beams)
    search = Search(
        beams=beams,
        count=int(num_return_sequences),
        max_length=int(max_length),
        vocab_size=vocab_size,
        length_penalty=number_of(length_penalty),
        early_stopping=early_stopping == 1,
        pad=pad_token_id,
        dtype=scores_dtype(length_penalty, repetition_penalty),
    )
    search.check()
    rules = Rules(
        repetition_penalty=number_of(repetition_penalty),
        ngram_size=no_repeat_ngram_size,
        vocab_mask=vocab_mask,
        prefix_vocab_mask=prefix_vocab_mask,
        min_length=int(min_length or 0),
        eos=eos_token_id,
    )
    model: GptDecoder | EncoderDecoder
    match model_type:
        case 0:
            model = GptDecoder(
                *(decoder, init_decoder, prepared, input_ids, attention_mask, pad_token_id, beams)
            )
        case 1:
            own = (input_ids, attention_mask, decoder_start_token_id, pad_token_id, beams)
            model = t5_model(encoder, decoder, prepared, *own)
        case 2 if logits_processor != 1:
            tokens = (decoder_input_ids, decoder_start_token_id)
            model = whisper_model(encoder, decoder, prepared, input_ids, *tokens, beams)
        case 2:
            raise ValueError("timestamps need the attributes of WhisperBeamSearch")
        case _:
            raise ValueError(f"model_type must be 0 (GPT-2), 1 (T5) or 2, got {model_type}")
    return search.run(model, rules)


def scores_dtype(*penalties: Host | None) -> torch.dtype | None:
    """The dtype of scores: float16 if the penalties have it, else that of the logits (None)."""
    halves = (p is not None and p.dtype is torch.float16 for p in penalties)
    return torch.float16 if any(halves) else None


def number_of(value: Host | None) -> float:
    return 1.0 if value is None else float(value.numbers[0])


def draw_search(d: Draw, length: int, batch: int) -> tuple[Vocabulary, list[Any], dict[str, Any]]:
    """The vocabulary of a search, its inputs behind the first, and its common attributes."""
    own, beams = draw_vocabulary(d), d.integer(1, 3)
    most, ending = length + d.integer(1, 5), draw_ending(d, own)
    # beams of UNLIKELY scores have no exact slope
    has_steps = ending.eos >= own.vocab and d.dtype("T") is not torch.float64
    outputs = d.integer(1, 3 if has_steps else 2)
    inputs = [
        most,
        d.integer(0, most - 1) if ending.eos < own.vocab else 0,  # obligatory in onnxruntime
        beams,
        d.integer(1, beams),
        d.real(0.5, 2),  # likewise
        d.maybe(d.real(0.5, 2)),
        ending.vocab_mask,
        draw_mask(d, batch, own.vocab),
    ]
    attributes = {
        "eos_token_id": ending.eos,
        "pad_token_id": ending.pad,
        "no_repeat_ngram_size": d.maybe(d.integer(0, 3)),
        "early_stopping": d.maybe(d.integer(0, 1)),
        "vocab_size": d.maybe(own.vocab),
        "outputs": outputs,
    }
    return own, inputs, attributes


@sample(beam_search)
def _(d: Draw) -> Call:
    batch, length = d.integer(1, 3), d.integer(1, 4)
    if d.elem_type("F") != TensorProto.INT32:
        _, features, inputs, attributes = draw_whisper(d, batch, length)
        return call(features, *inputs, d.maybe(0), model_type=2, **attributes)
    is_t5 = d.boolean()
    own, inputs, attributes = draw_search(d, 1 if is_t5 else length, batch)
    if is_t5:
        is_new = d.boolean()
        if not is_new and inputs[0] == 2:
            inputs[0] = 3  # onnxruntime does not run the decoder for one token
        attributes.update(t5_graphs(own, is_new, d.boolean()), model_type=1)
        attributes.update(decoder_start_token_id=d.integer(0, own.vocab - 1))
    else:
        other = replace(own, seed=own.seed + 1)
        attributes.update(decoder=gpt_decoder(own), model_type=d.maybe(0))
        attributes.update(init_decoder=d.maybe(gpt_decoder(other)))
    return call(
        draw_tokens(d, own, batch, length),
        *inputs,
        d.maybe(d.ints((batch, length), 0, 1, torch.int32)),
        **attributes,
    )


def draw_whisper(
    d: Draw, batch: int, length: int
) -> tuple[Vocabulary, Tensor, list[Any], dict[str, Any]]:
    """The vocabulary, features, the other inputs up to the first tokens, and attributes."""
    given = d.boolean()
    first = length if given else 1
    own, inputs, attributes = draw_search(d, first, batch)
    inputs[0] = max(inputs[0], first + 2)  # onnxruntime does not run the decoder for one token
    tokens = draw_tokens(d, own, batch, length) if given else None
    generator = torch.Generator().manual_seed(own.seed)
    features = torch.randn((batch, own.size, d.integer(1, 3)), generator=generator)
    attributes.update(whisper_graphs(own, d.boolean()))
    attributes.update(decoder_start_token_id=d.integer(0, own.vocab - 1))
    return own, features.to(d.dtype("F")), [*inputs, None, tokens], attributes

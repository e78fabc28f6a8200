"""WhisperBeamSearch: BeamSearch of Whisper, with the rules of its timestamps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.ops.contrib.search.beam import (
    Search,
    draw_whisper,
    number_of,
    scores_dtype,
)
from onnxinterp.ops.contrib.search.decoders import Layout, layout_of, whisper_model
from onnxinterp.ops.contrib.search.logits import LOWEST, Rules, next_scores
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Host, Scalar, Subgraph

FIRST_TIMESTAMPS = 50  # how far from the beginning the first timestamp may be


@dataclass(frozen=True)
class Timestamps:
    """The rules of a transcription with timestamps, in pairs that do not go back in time.

    Attributes:
        beginning: the token of time 0; those behind it are later times.
        eos: the token that ends a sequence; those before it are words.
        never: tokens that are not chosen; None for none.
        not_inside: tokens that are not chosen behind the first timestamp, likewise.
    """

    beginning: int
    eos: int
    never: tuple[int | None, ...]
    not_inside: tuple[int | None, ...]

    def __call__(self, scores: Tensor, sequences: Tensor) -> Tensor:
        """The scores [rows, vocab] for sequences [rows, length]."""
        length, vocab = sequences.shape[1], scores.shape[1]
        if not 0 < self.beginning < vocab:
            tokens = f"one of {vocab} tokens"
            raise ValueError(f"beginning_timestamp_token_id must be {tokens}, got {self.beginning}")
        token = torch.arange(vocab, device=scores.device)
        is_time, found = token >= self.beginning, sequences >= self.beginning
        has_time = found.any(1, keepdim=True)
        begin = torch.where(has_time, found.long().argmax(1, keepdim=True) + 1, length)
        is_first, last = begin == length, found[:, -1:]
        was_pair = is_first | (found[:, -2:-1] if length > 1 else False)
        latest = self._latest(sequences, found) + (~last | was_pair)
        bad = _any_of(token, self.never) | (~is_first & _any_of(token, self.not_inside))
        bad = bad | (last & was_pair & is_time)  # a pair is complete
        bad = bad | (last & ~was_pair & (token < self.eos))  # half of a pair
        bad = bad | (has_time & is_time & (token < latest))
        bad = bad | (is_first & (token > self.beginning + FIRST_TIMESTAMPS))
        scores = scores.masked_fill(bad, LOWEST)
        times = scores[:, self.beginning :]
        total = torch.where(times > LOWEST, times, -torch.inf).logsumexp(1, keepdim=True)
        words = scores[:, : self.beginning].amax(1, keepdim=True)
        return scores.masked_fill(~is_time & (total > words), LOWEST)

    def _latest(self, sequences: Tensor, found: Tensor) -> Tensor:
        """The last timestamp of each sequence, [rows, 1]; 0 where there is none."""
        length = sequences.shape[1]
        place = torch.where(found, torch.arange(length, device=found.device), 0).amax(1, True)
        return torch.where(found.any(1, keepdim=True), sequences.gather(1, place), 0)


def _any_of(token: Tensor, ids: tuple[int | None, ...]) -> Tensor:
    known = [n for n in ids if n is not None]
    return torch.isin(token, torch.tensor(known, dtype=token.dtype, device=token.device))


@contrib_op("WhisperBeamSearch", data_shaped=True, prepare=layout_of, extra_body_outputs=None)
def whisper_beam_search(
    input_ids: Tensor,
    max_length: Scalar,
    min_length: Scalar | None = None,
    num_beams: Scalar = 1,
    num_return_sequences: Scalar = 1,
    length_penalty: Host | None = None,
    repetition_penalty: Host | None = None,
    vocab_mask: Tensor | None = None,
    prefix_vocab_mask: Tensor | None = None,
    attention_mask: Tensor | None = None,  # noqa: ARG001  # of the layouts of other models
    decoder_input_ids: Tensor | None = None,
    logits_processor: Scalar | None = None,
    cross_qk_layer_head: Tensor | None = None,  # noqa: ARG001  # of cross_qk
    extra_decoding_ids: Tensor | None = None,  # noqa: ARG001
    temperature: Host | None = None,
    *,
    beginning_timestamp_token_id: int | None = None,
    decoder: Subgraph,
    decoder_output_cross_qk: int | None = None,
    decoder_start_token_id: int = -1,
    early_stopping: int = 0,
    encoder: Subgraph | None = None,
    eos_token_id: int,
    init_decoder: Subgraph | None = None,  # noqa: ARG001  # of GPT-2
    model_type: int = 2,
    no_repeat_ngram_size: int = 0,
    no_speech_token_id: int | None = None,
    no_timestamps_token_id: int | None = None,
    pad_token_id: int,
    start_of_lm_token_id: int | None = None,
    transcribe_token_id: int | None = None,
    translate_token_id: int | None = None,
    vocab_size: int = -1,
    n_outputs: int,
    prepared: Layout,
) -> tuple[Any, ...]:
    """The outputs are those of BeamSearch, none (cross_qk), and the probabilities of silence.

    onnxruntime leaves the last ones 0 on a CPU; here they are the documented ones.
    """
    if decoder_output_cross_qk:
        raise ValueError("the output cross_qk is not supported")
    if model_type != 2:
        raise ValueError(f"model_type must be 2 (Whisper), got {model_type}")
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
    times = Timestamps(
        beginning=-1 if beginning_timestamp_token_id is None else beginning_timestamp_token_id,
        eos=eos_token_id,
        never=(no_timestamps_token_id, start_of_lm_token_id),
        not_inside=(decoder_start_token_id, translate_token_id, transcribe_token_id),
    )
    rules = Rules(
        repetition_penalty=number_of(repetition_penalty),
        ngram_size=no_repeat_ngram_size,
        vocab_mask=vocab_mask,
        prefix_vocab_mask=prefix_vocab_mask,
        min_length=int(min_length or 0),
        eos=eos_token_id,
        temperature=number_of(temperature),
        more=times if logits_processor == 1 else None,
    )
    own = (decoder_input_ids, decoder_start_token_id, beams)
    model = whisper_model(encoder, decoder, prepared, input_ids, *own)
    silence = None
    if n_outputs > 4:
        first = next_scores(model.logits, model.sequences.shape[0], vocab_size)[::beams]
        silence = _silence(first, no_speech_token_id)
    found = search.run(model, rules)
    return (*found, None, silence)


def _silence(logits: Tensor, token: int | None) -> Tensor:
    """The probability of a token, [batch]."""
    if token is None or not 0 <= token < logits.shape[1]:
        raise ValueError(f"no_speech_token_id must be one of {logits.shape[1]} tokens, got {token}")
    return logits.softmax(1)[:, token]


@sample(whisper_beam_search)
def _(d: Draw) -> Call:
    batch, length = d.integer(1, 3), d.integer(1, 4)
    own, features, inputs, attributes = draw_whisper(d, batch, length)
    times = attributes["eos_token_id"] < own.vocab  # onnxruntime wants it to be a token
    return call(
        features,
        *inputs,
        d.maybe(d.integer(0, int(times))),
        None,
        d.maybe(d.ints((batch, 2), 0, 3, torch.int32)),
        d.maybe(d.real(0.5, 2)),
        **attributes,
        beginning_timestamp_token_id=d.integer(2, 4),
        decoder_output_cross_qk=d.maybe(0),
        model_type=d.maybe(2),
        no_speech_token_id=d.maybe(0),
        no_timestamps_token_id=d.maybe(d.integer(0, 3)),
        start_of_lm_token_id=d.maybe(d.integer(0, 3)),
        transcribe_token_id=d.maybe(d.integer(0, 3)),
        translate_token_id=d.maybe(d.integer(0, 3)),
    )

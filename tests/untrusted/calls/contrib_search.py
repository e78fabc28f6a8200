"""Searches, text and alignment of com.microsoft whose parts do not fit together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx

from onnxinterp.ops.contrib.search.graphs import Vocabulary, gpt_decoder, t5_graphs, whisper_graphs
from tests.untrusted.calls.one_node import (
    NAN,
    SCALAR,
    Node,
    either,
    f,
    full,
    gives,
    i,
    ones,
    refused,
    text,
)

MS: dict[str, Any] = {"domain": "com.microsoft", "opset": 1}
I32 = np.int32
OWN = Vocabulary(5, 2, 3)
SEARCH: dict[str, Any] = {
    **MS,
    "decoder": gpt_decoder(OWN),
    "eos_token_id": 4,
    "pad_token_id": 0,
}
PROMPT = i(1, 2, dtype=I32)[None]


def number(value: float, dtype: Any = I32) -> np.ndarray[Any, Any]:
    return SCALAR(value, dtype)


def strings() -> Iterator[Node]:
    """Patterns that are none, or match nothing, and shapes that are no list of strings."""
    own: dict[str, Any] = {**MS, "mark": 0, "mincharnum": 1, "pad_value": ""}
    words = text("ab", "b")
    yield gives([["a", "b"], ["b", ""]], "Tokenizer", [words], **own, separators=[""])
    yield gives([["ab"], ["b"]], "Tokenizer", [words], **own, tokenexp="[a-z]*")
    yield refused("Tokenizer", [words], **own)
    yield refused("Tokenizer", [words], **own, tokenexp="")
    yield refused("Tokenizer", [words], **own, separators=["x*"])
    yield refused("Tokenizer", [words], **own, separators=["", "a"])
    yield refused("Tokenizer", [words], **own, separators=["("])
    yield refused("Tokenizer", [words], **own, tokenexp="((a{1,1000}){1,1000}){1,1000}")
    yield refused("Tokenizer", [words.reshape(1, 1, 2)], **own, separators=["a"])
    for shortest in (0, -1, 2):
        yield refused("Tokenizer", [words], **{**own, "mincharnum": shortest}, separators=[""])
    yield refused("MurmurHash3", [words], **MS, positive=2)
    yield either("MurmurHash3", [f(NAN)], **MS, seed=-(2**63))


def alignment() -> Iterator[Node]:
    """Costs that are no matrix, tokens that do not follow on, n-grams of no size."""
    yield refused("DynamicTimeWarping", [ones(2, 3, 3)], **MS)
    yield refused("DynamicTimeWarping", [ones(3)], **MS)
    yield either("DynamicTimeWarping", [full(NAN, 3, 3)], **MS)
    ids, scores = i(1, 2)[None], ones(1, 3)
    yield refused("NGramRepeatBlock", [ids, scores], **MS, ngram_size=0)
    yield refused("NGramRepeatBlock", [ids, ones(2, 3)], **MS, ngram_size=1)
    yield refused("NGramRepeatBlock", [ids[0], scores], **MS, ngram_size=1)
    for bad in (3, -1):
        yield refused("NGramRepeatBlock", [i(1, bad)[None], scores], **MS, ngram_size=1)
    yield gives([[1, 1, 1]], "NGramRepeatBlock", [ids, scores], **MS, ngram_size=2**40)
    tokens, two = i(1, 2, 3), {**MS, "outputs": 2}
    yield gives([[1, 2, 3], [3]], "BifurcationDetector", [tokens, tokens, i(0)], **two)
    for start, predicted in ((0, i(1, 2)), (4, i()), (-1, i(1, 2, 3, 4, 5)), (1, i(1, 2))):
        yield refused("BifurcationDetector", [tokens, tokens, i(start), predicted], **two)
    yield refused("BifurcationDetector", [tokens, tokens, i(0, 1)], **two)
    yield refused("BifurcationDetector", [tokens, tokens, i(0)], **two, min_ngram_size=4)
    yield refused("BifurcationDetector", [tokens[None], tokens, i(0)], **two)


def layers() -> Iterator[Node]:
    """Memories, weights and words of other sizes than each other."""
    own: list[Any] = [ones(2, 1, 3), ones(1, 8, 5), ones(1, 8, 2), *[None] * 5]
    memory: list[Any] = [ones(1, 2, 4), ones(1, 2, 4), ones(1, 4), ones(1, 3, 2)]
    yield refused("AttnLSTM", own[:3], **MS, hidden_size=2)
    for place, bad in enumerate((ones(1, 3, 4), ones(1, 3, 4), ones(1, 3), ones(2, 3, 2))):
        wrong = [*memory[:place], bad, *memory[place + 1 :]]
        yield refused("AttnLSTM", [*own, *wrong], **MS, hidden_size=2)
    for length in (0, 4, -1):
        lengths = i(length, dtype=I32)
        yield refused("AttnLSTM", [*own, *memory, lengths], **MS, hidden_size=2)
    yield refused("AttnLSTM", [*own, *memory, None, ones(1, 4, 7)], **MS, hidden_size=2)
    yield refused("AttnLSTM", [*own, *memory], **MS, hidden_size=2, activations=["Tanh"])
    yield refused("AttnLSTM", [*own, *memory], **MS, hidden_size=2, direction="evil")
    words, W, B, C = i(1, 2, 0, dtype=I32)[None], ones(2, 1, 2, 3), ones(2), ones(4, 3)
    yield refused("WordConvEmbedding", [words[:, :1], W, B, C], **MS)
    yield refused("WordConvEmbedding", [words, W, B, ones(4, 2)], **MS)
    yield refused("WordConvEmbedding", [words, W, ones(3), C], **MS)
    yield refused("WordConvEmbedding", [words, W, B, C], **MS, conv_window_size=3)
    yield either("WordConvEmbedding", [words - 9, W, B, C], **MS)


def searches() -> Iterator[Node]:
    """Lengths, masks and tokens that do not fit the decoder."""
    for most in (2, 1, 0, -5, 5000, 2**31 - 1):
        yield refused("GreedySearch", [PROMPT, number(most)], **SEARCH)
    for bad in (PROMPT[0], PROMPT[:, :0], PROMPT[:0], PROMPT + 9, PROMPT - 9):
        yield refused("GreedySearch", [bad, number(4)], **SEARCH)
    own: list[Any] = [PROMPT, number(4), None, None]
    yield refused("GreedySearch", [*own, np.ones(4, I32)], **SEARCH)
    yield refused("GreedySearch", [*own, None, np.ones((2, 5), I32)], **SEARCH)
    yield refused("GreedySearch", [*own, None, None, np.ones((1, 3), I32)], **SEARCH)
    for penalty in (0, -1, NAN):
        yield refused("GreedySearch", [*own[:3], number(penalty, np.float32)], **SEARCH)
    yield refused("GreedySearch", own[:2], **SEARCH, model_type=1)
    yield refused("GreedySearch", own[:2], **SEARCH, vocab_size=6)
    ends = {**SEARCH, "eos_token_id": 5}
    yield refused("GreedySearch", [*own[:2], number(3)], **ends)
    yield refused("Sampling", [*own, *[None] * 3, np.ones((1, 4), I32)], **SEARCH)
    yield either("Sampling", own[:2], **SEARCH, temperature=NAN)
    yield either("Sampling", own[:2], **SEARCH, top_p=-1.0, min_tokens_to_keep=2**40)


def beams() -> Iterator[Node]:
    """Numbers of beams that cannot be, and models without an encoder."""
    start: list[Any] = [PROMPT, number(4), None]
    for n, wanted in ((0, 0), (2, 3), (2, 0), (-1, -1), (129, 1), (2**31 - 1, 1)):
        yield refused("BeamSearch", [*start, number(n), number(wanted)], **SEARCH)
    own: list[Any] = [*start, number(2), number(1)]
    yield refused("BeamSearch", own, **SEARCH, model_type=3)
    yield refused("BeamSearch", own, **SEARCH, model_type=1)
    yield either("BeamSearch", [*own, number(NAN, np.float32)], **SEARCH)
    yield either("BeamSearch", [*own, number(1e38, np.float32)], **SEARCH)
    t5: dict[str, Any] = {**SEARCH, **t5_graphs(OWN, False, False), "model_type": 1}
    yield refused("BeamSearch", own, **t5)
    yield refused("BeamSearch", own, **{**t5, "encoder": SEARCH["decoder"]})
    yield refused("BeamSearch", own, **t5, decoder_start_token_id=7)


def whisper() -> Iterator[Node]:
    """Features that are tokens, and timestamps that are none."""
    graphs = whisper_graphs(OWN, False)
    own: dict[str, Any] = {**SEARCH, **graphs, "decoder_start_token_id": 1}
    features, rest = ones(1, 2, 3), [number(4), None, number(1), number(1)]
    heard: list[Any] = [features, *rest]
    times: list[Any] = [*heard, *[None] * 6, number(1)]
    for bad in (PROMPT, features[0], features.astype(I32), ones(1, 3, 3)):
        yield refused("WhisperBeamSearch", [bad, *rest], **own)
    yield refused("WhisperBeamSearch", heard, **own, model_type=1)
    yield refused("WhisperBeamSearch", heard, **own, decoder_output_cross_qk=1)
    yield refused("WhisperBeamSearch", heard, **own, outputs=5)
    yield refused("WhisperBeamSearch", heard, **{**own, "decoder_start_token_id": -1})
    yield refused("WhisperBeamSearch", [*heard, *[None] * 5, np.ones((2, 1), I32)], **own)
    yield refused("BeamSearch", times, **own, model_type=2)
    for first in (None, -1, 0, 5):
        given = {} if first is None else {"beginning_timestamp_token_id": first}
        yield refused("WhisperBeamSearch", times, **own, **given)
    yield either("WhisperBeamSearch", times, **own, beginning_timestamp_token_id=3)


def decoders() -> Iterator[Node]:
    """Subgraphs that are no decoders, or share the memory of their caches."""
    for graph in (
        "d (int32[B,S] input_ids) => (float[B,S,5] logits) { logits = Cast <to = 1> (input_ids) }",
        "d () => (y) { y = Constant <value_int = 1> () }",
    ):
        changed = {**SEARCH, "decoder": onnx.parser.parse_graph(graph)}
        yield refused("GreedySearch", [PROMPT, number(4)], **changed)
    shared = gpt_decoder(OWN)
    shared.input.append(onnx.helper.make_tensor_value_info("past_sequence_length", 6, [1]))
    yield refused("GreedySearch", [PROMPT, number(4)], **{**SEARCH, "decoder": shared})
    unknown = gpt_decoder(OWN)
    unknown.input[3].type.tensor_type.shape.dim[4].dim_param = "H"
    yield refused("GreedySearch", [PROMPT, number(4)], **{**SEARCH, "decoder": unknown})


GROUPS = (strings, alignment, layers, searches, beams, whisper, decoders)

"""Small subgraphs for the samples: their logits depend on all tokens, positions and masks before.

A token is a row of a table. Keys and values are the rows; the context is the sum of the keys that
the mask keeps, so that a cache in a wrong order, or a token too many, changes the logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from onnxinterp.testing.samples import Draw

GPT = """decoder (int32[B,S] input_ids, int32[B,S] position_ids, int32[B,T] attention_mask,
  float[2,B,1,P,{size}] past_0) => (float[B,S,{vocab}] logits, float[2,B,1,T,{size}] present_0) {{
    words = Gather (table, input_ids)
    places = Gather (place_table, position_ids)
    own = Add (words, places)
    axes = Constant <value_ints = [0, 2]> ()
    cell = Unsqueeze (own, axes)
    cells = Concat <axis = 0> (cell, cell)
    present_0 = Concat <axis = 3> (past_0, cells)
    zero = Constant <value_int = 0> ()
    one = Constant <value_ints = [1]> ()
    key = Gather <axis = 0> (present_0, zero)
    keys = Squeeze (key, one)
    kept = CastLike (attention_mask, own)
    row = Unsqueeze (kept, one)
    context = MatMul (row, keys)
    sum = Add (own, context)
    logits = MatMul (sum, head)
}}"""

ENCODER = """encoder ({inputs}) => (
  float[B,S,{vocab}] logits, float[B,E,{size}] encoder_hidden_states,
  float[B,1,S,{size}] present_key_self_0, float[B,1,S,{size}] present_value_self_0,
  float[B,1,E,{size}] present_key_cross_0, float[B,1,E,{size}] present_value_cross_0) {{
    {read}
    own = Gather (table, decoder_input_ids)
    one = Constant <value_ints = [1]> ()
    two = Constant <value_ints = [2]> ()
    present_key_self_0 = Unsqueeze (own, one)
    present_value_self_0 = Identity (present_key_self_0)
    present_key_cross_0 = Unsqueeze (encoder_hidden_states, one)
    present_value_cross_0 = Identity (present_key_cross_0)
    read = ReduceSum <keepdims = 1> (encoder_hidden_states, one)
    said = ReduceSum <keepdims = 1> (own, one)
    with_read = Add (own, read)
    sum = Add (with_read, said)
    logits = MatMul (sum, head)
}}"""

READ_TOKENS = """seen = Gather (table, encoder_input_ids)
    kept = CastLike (encoder_attention_mask, seen)
    last = Constant <value_ints = [2]> ()
    column = Unsqueeze (kept, last)
    encoder_hidden_states = Mul (seen, column)"""
READ_FEATURES = "encoder_hidden_states = Transpose <perm = [0, 2, 1]> (encoder_input_ids)"

NEW_ENCODER = """encoder (int32[B,E] encoder_input_ids, int32[B,E] encoder_attention_mask) => (
  float[B,1,E,{size}] present_key_cross_0, float[B,1,E,{size}] present_value_cross_0) {{
    {read}
    one = Constant <value_ints = [1]> ()
    present_key_cross_0 = Unsqueeze (encoder_hidden_states, one)
    present_value_cross_0 = Identity (present_key_cross_0)
}}"""

DECODER = """decoder (int32[B,{tokens}] input_ids, {shared}
  float[B,1,P,{size}] past_key_self_0, float[B,1,P,{size}] past_value_self_0,
  float[B,1,E,{size}] past_key_cross_0, float[B,1,E,{size}] past_value_cross_0) => (
  float[B,1,{vocab}] logits, float[B,1,T,{size}] present_key_self_0,
  float[B,1,T,{size}] present_value_self_0) {{
    minus = Constant <value_int = -1> ()
    newest = Gather <axis = 1> (input_ids, minus)
    one = Constant <value_ints = [1]> ()
    two = Constant <value_ints = [2]> ()
    token = Unsqueeze (newest, one)
    own = Gather (table, token)
    cell = Unsqueeze (own, one)
    present_key_self_0 = Concat <axis = 2> (past_key_self_0, cell)
    present_value_self_0 = Concat <axis = 2> (past_value_self_0, cell)
    read4 = ReduceSum <keepdims = 1> (past_key_cross_0, two)
    said4 = ReduceSum <keepdims = 1> (present_key_self_0, two)
    read = Squeeze (read4, one)
    said = Squeeze (said4, one)
    {more}
    with_read = Add (own, read)
    sum = Add (with_read, said)
    logits = MatMul (sum, head)
}}"""


@dataclass(frozen=True)
class Vocabulary:
    """The sizes of the subgraphs of one sample.

    Attributes:
        vocab: number of tokens.
        size: of the vectors.
        seed: of the weights.
    """

    vocab: int
    size: int
    seed: int

    def filled(self, text: str, **parts: object) -> onnx.GraphProto:
        """A graph with its tables: the same for all graphs of the sample that have them."""
        graph = onnx.parser.parse_graph(text.format(vocab=self.vocab, size=self.size, **parts))
        generator = np.random.default_rng(self.seed)
        shapes = {
            "table": (self.vocab, self.size),
            "head": (self.size, self.vocab),
            "place_table": (32, self.size),
        }
        read = {name for node in graph.node for name in node.input}
        for name, shape in shapes.items():
            values = generator.normal(size=shape).astype(np.float32)
            if name in read:
                graph.initializer.append(numpy_helper.from_array(values, name))
        return graph


@dataclass(frozen=True)
class Ending:
    """How the sequences of a sample end.

    Attributes:
        eos: the token that ends one; one that is no token if none ends.
        pad: the token of padding. It is `eos`, or no sequence contains it: so the end can be seen.
        vocab_mask: [vocab] or None.
    """

    eos: int
    pad: int
    vocab_mask: Tensor | None


def draw_vocabulary(d: Draw) -> Vocabulary:
    """Few tokens, so that sequences end and n-grams repeat."""
    d.elem_type("I")  # of lengths and counts
    return Vocabulary(d.integer(5, 7), d.integer(1, 3), d.integer(0, 2**16))


def draw_tokens(d: Draw, own: Vocabulary, batch: int, length: int) -> Tensor:
    """A prompt."""
    return d.ints((batch, length), 0, own.vocab - 1, torch.int32)


def draw_mask(d: Draw, *shape: int) -> Tensor | None:
    """A mask of the vocabulary, or None; the first three tokens are never masked."""
    mask = d.ints(shape, 0, 1, torch.int32)
    mask[..., :3] = 1
    return d.maybe(mask)


def draw_ending(d: Draw, own: Vocabulary) -> Ending:
    """The tokens of end and padding."""
    mask, pad = draw_mask(d, own.vocab), d.integer(0, own.vocab - 1)
    if d.boolean():
        return Ending(own.vocab, pad, mask)
    eos = d.integer(0, own.vocab - 1)
    if d.boolean() or pad == eos:
        return Ending(eos, eos, mask)
    mask = torch.ones(own.vocab, dtype=torch.int32) if mask is None else mask.clone()
    mask[pad] = 0
    return Ending(eos, pad, mask)


def gpt_decoder(own: Vocabulary) -> onnx.GraphProto:
    """A decoder in the layout of GPT-2, of one layer."""
    return own.filled(GPT)


def t5_graphs(own: Vocabulary, is_new: bool, takes_all: bool) -> dict[str, onnx.GraphProto]:
    """Encoder and decoder in the layout of T5.

    Args:
        own: the sizes.
        is_new: whether the decoder makes the first step, and the encoder only its caches.
        takes_all: whether the decoder reads all tokens at each step.
    """
    inputs = "int32[B,E] encoder_input_ids, int32[B,E] encoder_attention_mask"
    shared = "int32[B,E] encoder_attention_mask,"
    if not is_new:
        inputs += ", int32[B,S] decoder_input_ids"
    encoder = own.filled(NEW_ENCODER if is_new else ENCODER, inputs=inputs, read=READ_TOKENS)
    more = """kept = CastLike (encoder_attention_mask, own)
    count = ReduceSum <keepdims = 1> (kept, one)
    place = Unsqueeze (count, two)
    weighted = Mul (own, place)"""
    decoder = own.filled(DECODER, tokens="S" if takes_all else "1", shared=shared, more=more)
    decoder.node[-3].input[0] = "weighted"
    return {"encoder": encoder, "decoder": decoder}


def whisper_graphs(own: Vocabulary, takes_states: bool) -> dict[str, onnx.GraphProto]:
    """Encoder and decoder in the layout of Whisper; the features have the size of the vectors.

    Args:
        own: the sizes.
        takes_states: whether the states of the encoder are an input of the decoder, unused.
    """
    inputs = f"float[B,{own.size},E] encoder_input_ids, int32[B,S] decoder_input_ids"
    encoder = own.filled(ENCODER, inputs=inputs, read=READ_FEATURES)
    states = f"float[B,E,{own.size}] encoder_hidden_states," if takes_states else ""
    return {"encoder": encoder, "decoder": own.filled(DECODER, tokens="1", shared=states, more="")}

"""The subgraphs of a search: what they are called with, and what becomes of their caches.

    GptDecoder           input_ids, position_ids, attention_mask, past_i -> logits, present_i
    EncoderDecoder       T5 and Whisper: an encoder that also makes the first step of the decoder,
                         or fills only the caches of its cross attention

Inputs are given by position; the names in the file tell which layout it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from onnxinterp.values import Host, Shape, Subgraph

UNSUPPORTED = ("past_sequence_length", "beam_width", "cache_indirection")


@dataclass(frozen=True)
class Layout:
    """The inputs of a decoder as the file declares them.

    Attributes:
        names: of the inputs.
        shapes: of the inputs.
    """

    names: tuple[str, ...]
    shapes: tuple[Shape, ...]

    def sizes(self, index: int, *axes: int) -> list[int]:
        """Declared sizes of an input that must be numbers: of heads, of channels."""
        shape = self.shapes[index]
        sizes = [shape[axis] if shape and len(shape) > max(axes) else None for axis in axes]
        known = [size for size in sizes if isinstance(size, int) and size > 0]
        if len(known) < len(axes):
            what = f"{self.names[index]!r} of the decoder"
            raise ValueError(f"{what} must declare the sizes of axes {axes}, got {shape}")
        return known


def layout_of(*, decoder: Any) -> Layout:
    """The layout of a decoder subgraph; its values may have been renamed with a dot and number."""
    names = tuple([value.name.partition(".")[0] for value in decoder.inputs])
    unsupported = [name for name in names if name in UNSUPPORTED]
    if unsupported:
        raise ValueError(f"a decoder whose past and present share memory: {unsupported[0]!r}")
    return Layout(names, tuple([value.shape for value in decoder.inputs]))


class GptDecoder:
    """A decoder without encoder.

    Args:
        decoder: the subgraph.
        first: the subgraph for the first step, if it is another one.
        layout: of the decoder.
        input_ids: [batch, length], int32.
        mask: [batch, length], int32; None for the tokens that are not padding.
        pad: the token of padding.
        beams: sequences for each element of the batch.
    """

    def __init__(
        self,
        decoder: Subgraph,
        first: Subgraph | None,
        layout: Layout,
        input_ids: Tensor,
        mask: Tensor | None,
        pad: int,
        beams: int,
    ) -> None:
        expected = ("input_ids", "position_ids", "attention_mask", "past_0")
        if layout.names[:4] != expected:
            raise ValueError(f"the decoder must have the inputs {expected}, got {layout.names[:4]}")
        if decoder.n_inputs != len(decoder.output_types) + 2:
            raise ValueError("the decoder must have one output for logits and one for each past")
        if mask is not None and mask.shape != input_ids.shape:
            raise ValueError(f"attention_mask must be {list(input_ids.shape)}")
        self.decoder = decoder
        is_token = input_ids != pad
        positions = torch.where(is_token, is_token.cumsum(1) - 1, 0).int()
        self.sequences = input_ids.repeat_interleave(beams, 0)
        self.mask = (is_token.int() if mask is None else mask).repeat_interleave(beams, 0)
        self.position = is_token.sum(1, keepdim=True).int().repeat_interleave(beams, 0)
        heads, channels = layout.sizes(3, 2, 4)
        empty = torch.empty(
            (2, self.sequences.shape[0], heads, 0, channels),
            dtype=_dtype(decoder, 1),
            device=input_ids.device,
        )
        past = [empty] * (decoder.n_inputs - 3)
        own = (self.sequences, positions.repeat_interleave(beams, 0), self.mask, *past)
        self.logits, self.presents = _run(first or decoder, own)

    def step(self, tokens: Tensor, beams: Tensor | None) -> Tensor:
        """The logits after one more token of each sequence.

        Args:
            tokens: [sequences], int32.
            beams: [sequences], the sequence that each of them continues; None for itself.
        """
        past = [p if beams is None else p.index_select(1, beams) for p in self.presents]
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], 1)
        self.logits, self.presents = _run(
            self.decoder, (tokens.unsqueeze(1), self.position, self.mask, *past)
        )
        self.position = self.position + 1
        return self.logits


class EncoderDecoder:
    """A decoder that attends to what an encoder has read.

    Args:
        encoder: the subgraph; of its inputs, `own` are the first.
        decoder: likewise, called from the second token on.
        layout: of the decoder.
        inputs: those of the encoder except the first tokens of the decoder.
        tokens: [batch, length], int32, the first tokens of the decoder.
        shared: inputs of the decoder between its tokens and the states of the encoder.
        beams: sequences for each element of the batch.
    """

    def __init__(
        self,
        encoder: Subgraph,
        decoder: Subgraph,
        layout: Layout,
        inputs: Sequence[Tensor],
        tokens: Tensor,
        shared: Sequence[Tensor],
        beams: int,
    ) -> None:
        if encoder.n_inputs not in (len(inputs), len(inputs) + 1):
            raise ValueError(f"the encoder must have {len(inputs) + 1} inputs")
        self.decoder, self.beams = decoder, beams
        self.sequences = tokens.repeat_interleave(beams, 0)
        self.takes_all = _takes_all(layout)
        first = 1 + len(shared)
        has_states = layout.names[first : first + 1] == ("encoder_hidden_states",)
        n_self = len(decoder.output_types) - 1
        if decoder.n_inputs != first + has_states + 2 * n_self:
            raise ValueError(f"the decoder must have four caches a layer, got {layout.names}")
        if encoder.n_inputs == len(inputs):  # the decoder makes the first step, too
            caches = _tensors(encoder(*inputs))
            heads, channels = layout.sizes(first + has_states, 1, 3)
            shape = (tokens.shape[0], heads, 0, channels)
            empty = torch.empty(shape, dtype=_dtype(decoder, 1), device=tokens.device)
            caches, states = [empty] * n_self + caches, []
        else:
            self.logits, (states_, *caches) = _run(encoder, (*inputs, tokens))
            states = [states_] if has_states else []
        if len(caches) != 2 * n_self:
            raise ValueError(f"the encoder must return {2 * n_self} caches, got {len(caches)}")
        self.shared = self._spread([*shared, *states])
        self.presents = self._spread(caches[:n_self])
        self.cross = self._spread(caches[n_self:])
        if encoder.n_inputs == len(inputs):
            self._call(self.sequences)

    def step(self, tokens: Tensor, beams: Tensor | None) -> Tensor:
        """The logits after one more token of each sequence; see `GptDecoder.step`."""
        if beams is not None:
            self.sequences = self.sequences.index_select(0, beams)
            self.presents = [p.index_select(0, beams) for p in self.presents]
        self.sequences = torch.cat([self.sequences, tokens.unsqueeze(1)], 1)
        return self._call(self.sequences if self.takes_all else tokens.unsqueeze(1))

    def _call(self, tokens: Tensor) -> Tensor:
        own = (tokens, *self.shared, *self.presents, *self.cross)
        self.logits, self.presents = _run(self.decoder, own)
        return self.logits

    def _spread(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [t.repeat_interleave(self.beams, 0) for t in tensors]


def t5_model(
    encoder: Subgraph | None,
    decoder: Subgraph,
    layout: Layout,
    input_ids: Tensor,
    mask: Tensor | None,
    start: int,
    pad: int,
    beams: int,
) -> EncoderDecoder:
    """T5: it reads tokens, of which only padding on the left is masked, if there is no mask."""
    if encoder is None or start < 0:
        raise ValueError("the model must have an encoder and decoder_start_token_id")
    if input_ids.ndim != 2 or (mask is not None and mask.shape != input_ids.shape):
        raise ValueError("input_ids and attention_mask must be [batch, length]")
    if mask is None:
        mask = (input_ids != pad).cumsum(1).clamp(max=1).int()
    first = torch.full_like(input_ids[:, :1], start)
    return EncoderDecoder(encoder, decoder, layout, (input_ids, mask), first, (mask,), beams)


def whisper_model(
    encoder: Subgraph | None,
    decoder: Subgraph,
    layout: Layout,
    features: Tensor,
    tokens: Tensor | None,
    start: int,
    beams: int,
) -> EncoderDecoder:
    """Whisper: it reads features, and its decoder begins with `tokens`, or with `start`."""
    if encoder is None or (tokens is None and start < 0):
        raise ValueError("the model must have an encoder, and tokens to start with")
    if features.ndim != 3 or not features.is_floating_point():
        got = f"{features.dtype} {list(features.shape)}"
        raise ValueError(f"input_ids must be 3-D floating-point features, got {got}")
    batch = features.shape[0]
    if tokens is None:
        tokens = torch.full((batch, 1), start, dtype=torch.int32, device=features.device)
    if tokens.ndim != 2 or tokens.shape[0] != batch:
        raise ValueError(f"decoder_input_ids must be [{batch}, length], got {list(tokens.shape)}")
    return EncoderDecoder(encoder, decoder, layout, (features,), tokens, (), beams)


def _takes_all(layout: Layout) -> bool:
    """Whether the decoder reads all tokens at each step: it declares other than one."""
    shape = layout.shapes[0]
    return shape is None or len(shape) != 2 or shape[1] != 1


def _dtype(graph: Subgraph, output: int) -> torch.dtype:
    """The dtype of an output, also that of the empty cache it continues."""
    dtype = graph.output_types[output][0]
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def _run(graph: Subgraph, inputs: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Logits and the other outputs."""
    if graph.n_inputs != len(inputs):
        raise ValueError(f"a subgraph must have {len(inputs)} inputs, got {graph.n_inputs}")
    logits, *others = _tensors(graph(*inputs))
    return logits, others


def _tensors(outputs: Sequence[Any]) -> list[Tensor]:
    return [value.tensor() if isinstance(value, Host) else value for value in outputs]

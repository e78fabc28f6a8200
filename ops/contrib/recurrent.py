"""Layers of early text models: AttnLSTM and WordConvEmbedding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import linear

from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.ops.gathering import within
from onnxinterp.ops.recurrent import EDGED, SMOOTH, lstm_step
from onnxinterp.ops.recurrent_cells import (
    DIRECTIONS,
    Layer,
    States,
    activations_of,
    layer_of,
    run,
    walk,
)
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag, Floats


@dataclass(frozen=True)
class Memory:
    """Bahdanau attention to a memory, in all directions.

    Attributes:
        query: [directions, hidden, attention].
        keys: [directions, batch, steps, attention].
        v: [directions, attention].
        values: [batch, steps, depth].
        outside: [batch, steps], steps behind the end of the memory; None if there are none.
        layer: [directions, hidden + depth, size] or None.
    """

    query: Tensor
    keys: Tensor
    v: Tensor
    values: Tensor
    outside: Tensor | None
    layer: Tensor | None

    @property
    def size(self) -> int:
        """The size of the attention state."""
        return (self.values if self.layer is None else self.layer).shape[2]

    def attend(self, k: int) -> Callable[[Tensor], Tensor]:
        """From the output of the LSTM to the attention state, in direction `k`."""

        def attention(hidden: Tensor) -> Tensor:
            query = (hidden @ self.query[k]).unsqueeze(1)
            scores = (self.v[k] * torch.tanh(self.keys[k] + query)).sum(-1)
            if self.outside is not None:
                scores = scores.masked_fill(self.outside, -math.inf)
            context = (scores.softmax(-1).unsqueeze(1) @ self.values).squeeze(1)
            if self.layer is None:
                return context
            return torch.cat([hidden, context], -1) @ self.layer[k]

        return attention


@contrib_op("AttnLSTM")
def attn_lstm(
    X: Tensor,
    W: Tensor,
    R: Tensor,
    B: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    P: Tensor | None = None,
    QW: Tensor | None = None,
    MW: Tensor | None = None,
    V: Tensor | None = None,
    M: Tensor | None = None,
    memory_seq_lens: Tensor | None = None,
    AW: Tensor | None = None,
    *,
    activation_alpha: Floats | None = None,
    activation_beta: Floats | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: Flag = 0,
) -> tuple[Tensor, ...]:
    """An LSTM whose input at each step is joined with its attention to a memory one step before.

    W has the columns of X, then those of the attention. The memory is obligatory in onnxruntime.
    """
    if QW is None or MW is None or V is None or M is None:
        raise ValueError("QW, MW, V and M must be given")
    states, size = [initial_h, initial_c], X.shape[-1]
    own = (X, W[..., :size], R, B, sequence_lens, states)
    layer = layer_of(*own, 4, direction, hidden_size, 0)
    memory = _memory(layer, QW, MW, V, M, memory_seq_lens, AW)
    if W.shape[2] != size + memory.size:
        raise ValueError(f"W must have {size + memory.size} columns, got {list(W.shape)}")
    if P is not None and P.shape != (layer.n_directions, 3 * R.shape[2]):
        raise ValueError(f"P must be {[layer.n_directions, 3 * R.shape[2]]}, got {list(P.shape)}")
    names = activations or ("Sigmoid", "Tanh", "Tanh") * layer.n_directions
    if len(names) != 3 * layer.n_directions:
        raise ValueError(f"activations must be {3 * layer.n_directions} names, got {len(names)}")
    clipped = activations_of(names, activation_alpha, activation_beta, clip, X)
    unclipped = activations_of(names, activation_alpha, activation_beta, None, X)

    def one_direction(k: int, X: Tensor, states: States) -> tuple[Tensor, States]:
        inputs, R, *biases = layer.parameters(k)
        f, g, h = clipped[3 * k], clipped[3 * k + 1], unclipped[3 * k + 2]
        peepholes = None if P is None else P[k]
        cell = lstm_step(partial(linear, weight=R), peepholes, f, g, h, input_forget)
        of_attention, attend = W[k, :, size:], memory.attend(k)

        def step(x: Tensor, states: States) -> States:
            hidden, c, attention = states
            hidden, c = cell(x + linear(attention, of_attention), (hidden, c))
            return hidden, c, attend(hidden)

        gates = linear(X, inputs, biases[0] + biases[1] if biases else None)
        start = X.new_zeros((X.shape[1], memory.size))
        Y, finals = walk(step, gates, (*states, start), layer.lengths)
        return Y, finals[:2]

    return layer.empty_results() if layer.is_empty else run(layer, one_direction)


def _memory(
    layer: Layer,
    QW: Tensor,
    MW: Tensor,
    V: Tensor,
    M: Tensor,
    lengths: Tensor | None,
    AW: Tensor | None,
) -> Memory:
    """The memory, its sizes checked."""
    n, hidden, batch = layer.n_directions, layer.R.shape[2], layer.X.shape[1]
    if M.ndim != 3 or QW.ndim != 3 or (AW is not None and AW.ndim != 3):
        raise ValueError("QW, M and AW must be 3-D")
    depth, size = M.shape[2], QW.shape[2]
    expected = [
        ("QW", QW, (n, hidden, size)),
        ("MW", MW, (n, depth, size)),
        ("V", V, (n, size)),
        ("M", M, (batch, M.shape[1], depth)),
        ("memory_seq_lens", lengths, (batch,)),
        ("AW", AW, (n, hidden + depth, AW.shape[2] if AW is not None else 0)),
    ]
    for name, tensor, sizes in expected:
        if tensor is not None and tuple(tensor.shape) != sizes:
            raise ValueError(f"{name} must be {list(sizes)}, got {list(tensor.shape)}")
    outside = None
    if lengths is not None:
        steps = torch.arange(M.shape[1], device=M.device)
        last = within(lengths - 1, M.shape[1] - 1)  # a memory of no steps raises
        outside = steps > last[:, None]
    return Memory(QW, M @ MW[:, None], V, M, outside, AW)


@contrib_op("WordConvEmbedding")
def word_conv_embedding(
    Sequence: Tensor,
    W: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    char_embedding_size: int | None = None,
    conv_window_size: int | None = None,
    embedding_size: int | None = None,
) -> Tensor:
    """For each word the maximum over its windows of characters, after tanh.

    The length of a word is the number of characters above 0, or 0 if the first is not. A word that
    is shorter than the window is filled with what follows it, that is with the embedding of 0. A
    character that is not in the table is a vector of zeros, as in onnxruntime, which leaves the row
    of an empty word undefined.
    """
    _check_sizes(Sequence, W, B, C, (embedding_size, conv_window_size, char_embedding_size))
    width = W.shape[2]
    positive = Sequence > 0
    lengths = (positive.sum(1) * positive[:, 0]).unsqueeze(1)
    is_known = (Sequence >= 0) & (Sequence < C.shape[0])
    characters = C[torch.where(is_known, Sequence, 0).long()]
    characters = torch.where(is_known.unsqueeze(-1), characters, 0)
    found = torch.tanh(functional.conv2d(characters.unsqueeze(1), W, B)).squeeze(3)
    windows = torch.arange(found.shape[2], device=found.device)
    behind = windows > (lengths - width).clamp(min=0)
    most = found.masked_fill(behind.unsqueeze(1), -math.inf).amax(2)
    return torch.where(lengths > 0, most, 0)


def _check_sizes(
    words: Tensor, W: Tensor, B: Tensor, C: Tensor, attributes: tuple[int | None, ...]
) -> None:
    if words.ndim != 2 or W.ndim != 4 or C.ndim != 2 or W.shape[1] != 1:
        raise ValueError("Sequence and C must be 2-D, W [filters, 1, window, characters]")
    sizes = (W.shape[0], W.shape[2], C.shape[1])
    if any(a not in (None, -1, size) for a, size in zip(attributes, sizes, strict=True)):
        raise ValueError(f"the sizes must be {sizes}, got the attributes {attributes}")
    if W.shape[3] != C.shape[1] or B.shape != W.shape[:1]:
        raise ValueError(f"W, B and C do not fit: {[list(t.shape) for t in (W, B, C)]}")
    if words.shape[1] < W.shape[2]:
        raise ValueError(f"words of {words.shape[1]} characters are shorter than a window")


@sample(attn_lstm)
def _(d: Draw) -> Call:
    direction = d.choice(["forward", "reverse", "bidirectional"])
    n = len(DIRECTIONS[direction])
    time, batch, size, hidden, steps, depth, depth_of_keys = (d.integer(1, 3) for _ in range(7))
    attention = d.choice([0, 1, 2])

    def tensor(*shape: int) -> Tensor:
        result: Tensor = d.tensor(shape, lo=-1, hi=1)
        return result

    numbers = [d.real(0.25, 1) for _ in range(3 * n)]
    return call(
        tensor(time, batch, size),
        tensor(n, 4 * hidden, size + (attention or depth)),
        tensor(n, 4 * hidden, hidden),
        d.maybe(tensor(n, 8 * hidden)),
        d.maybe(d.ints((batch,), 1, time, torch.int32)),
        *(d.maybe(tensor(n, batch, hidden)) for _ in range(2)),
        d.maybe(tensor(n, 3 * hidden)),
        tensor(n, hidden, depth_of_keys),
        tensor(n, depth, depth_of_keys),
        tensor(n, depth_of_keys),
        tensor(batch, steps, depth),
        d.maybe(d.ints((batch,), 1, steps, torch.int32)),
        tensor(n, hidden + depth, attention) if attention else None,
        direction=d.maybe(direction) if direction == "forward" else direction,
        hidden_size=hidden,
        activations=d.maybe([d.choice(SMOOTH + EDGED) for _ in range(3 * n)]),
        activation_alpha=d.maybe(numbers),
        activation_beta=d.maybe(numbers[::-1]),
        clip=d.maybe(d.real(0.25, 1)),
        input_forget=d.maybe(d.integer(0, 1)),
        outputs=d.integer(1, 3),
    )


@sample(word_conv_embedding)
def _(d: Draw) -> Call:
    words, window, filters, size, vocab = (d.integer(1, 3) for _ in range(5))
    length = d.integer(window, 5)
    rest = d.ints((words, length - 1), d.choice([1, -1]), vocab + d.integer(0, 1))
    rest = rest * (torch.arange(1, length) < d.ints((words, 1), 1, length))
    characters = torch.cat([d.ints((words, 1), 1, vocab), rest], 1)  # onnxruntime: no empty words
    return call(
        characters.int(),
        d.tensor((filters, 1, window, size), "T1", -1, 1),
        d.tensor((filters,), "T1", -1, 1),
        d.tensor((vocab + 1, size), "T1", -1, 1),
        char_embedding_size=d.maybe(size),
        conv_window_size=d.maybe(window),
        embedding_size=d.maybe(filters),
    )

"""Recurrent layers: RNN, GRU, LSTM.

History: 1, 3 (GRU: linear_before_reset), 7 (without output_sequence), 14 (layout), 22 (bfloat16).

What torch's own layers can compute runs on them (`recurrent_native`); other activations, clipping,
peepholes and the like run cell by cell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import linear

from onnxinterp.ops.recurrent_cells import (
    DIRECTIONS,
    Activation,
    Layer,
    States,
    Step,
    activations_of,
    batch_first,
    layer_of,
    run,
    walk,
)
from onnxinterp.ops.recurrent_native import has_native, run_native
from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag, Floats
from onnxinterp.versions import older

Cell: TypeAlias = Callable[[int, Tensor], tuple[Tensor, Step]]  # direction, X -> gates, step


@op("RNN", since=14)
def rnn(
    X: Tensor,
    W: Tensor,
    R: Tensor,
    B: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    *,
    activation_alpha: Floats | None = None,
    activation_beta: Floats | None = None,
    activations: Sequence[str] = ("Tanh", "Tanh"),
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: Flag = 0,
) -> tuple[Tensor, ...]:
    layer = layer_of(X, W, R, B, sequence_lens, [initial_h], 1, direction, hidden_size, layout)
    names = {name.lower() for name in activations[: layer.n_directions]}
    # after the end of its sequence a state of relu may grow without bound
    plain = names == {"tanh"} or (names == {"relu"} and sequence_lens is None)
    if plain and clip is None and has_native():
        return run_native(layer, names.pop(), layout)
    functions = activations_of(activations, activation_alpha, activation_beta, clip, X)

    def cell(k: int, X: Tensor) -> tuple[Tensor, Step]:
        gates, R = _project(layer, k, X)
        f = functions[k]
        return gates, lambda x, states: (f(x + linear(states[0], R)),)

    return _run_cells(layer, cell, layout)


@op("GRU", since=14)
def gru(
    X: Tensor,
    W: Tensor,
    R: Tensor,
    B: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    *,
    activation_alpha: Floats | None = None,
    activation_beta: Floats | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: Flag = 0,
    linear_before_reset: Flag = 0,
) -> tuple[Tensor, ...]:
    """Torch's GRU computes linear_before_reset=1; the default in ONNX is 0."""
    layer = layer_of(X, W, R, B, sequence_lens, [initial_h], 3, direction, hidden_size, layout)
    defaults = ("Sigmoid", "Tanh") * layer.n_directions
    plain = are_activations(defaults, activations) and linear_before_reset
    if plain and clip is None and has_native():
        return run_native(layer, "gru", layout)
    functions = activations_of(activations or defaults, activation_alpha, activation_beta, clip, X)

    def cell(k: int, X: Tensor) -> tuple[Tensor, Step]:
        W, R, *biases = layer.parameters(k)
        f, g = functions[2 * k : 2 * k + 2]
        step = _gru_linear_first if linear_before_reset else _gru_reset_first
        Wb, Rb = biases or (None, None)
        return linear(X, W, Wb), step(R, Rb, f, g)

    return _run_cells(layer, cell, layout)


def _gru_linear_first(R: Tensor, Rb: Tensor | None, f: Activation, g: Activation) -> Step:
    def step(x: Tensor, states: States) -> States:
        (h,) = states
        x_z, x_r, x_h = x.chunk(3, -1)
        h_z, h_r, h_h = linear(h, R, Rb).chunk(3, -1)
        z, r = f(x_z + h_z), f(x_r + h_r)
        return ((1 - z) * g(x_h + r * h_h) + z * h,)

    return step


def _gru_reset_first(R: Tensor, Rb: Tensor | None, f: Activation, g: Activation) -> Step:
    hidden = R.shape[-1]
    split = [2 * hidden, hidden]

    def step(x: Tensor, states: States) -> States:
        (h,) = states
        # split here: a captured loop must not read two views of one tensor
        R_zr, R_h = torch.split(R, split)
        b_zr, b_h = (None, None) if Rb is None else torch.split(Rb, split)
        x_zr, x_h = torch.split(x, split, -1)
        z, r = f(x_zr + linear(h, R_zr, b_zr)).chunk(2, -1)
        return ((1 - z) * g(x_h + linear(r * h, R_h, b_h)) + z * h,)

    return step


@op("LSTM", since=14)
def lstm(
    X: Tensor,
    W: Tensor,
    R: Tensor,
    B: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    P: Tensor | None = None,
    *,
    activation_alpha: Floats | None = None,
    activation_beta: Floats | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: Flag = 0,
    layout: Flag = 0,
    n_outputs: int = 3,
) -> tuple[Tensor, ...]:
    """The input of the last activation is not clipped, as in onnxruntime."""
    states = [initial_h, initial_c]
    layer = layer_of(X, W, R, B, sequence_lens, states, 4, direction, hidden_size, layout)
    check_peepholes(P, layer)
    defaults = ("Sigmoid", "Tanh", "Tanh") * layer.n_directions
    plain = (
        are_activations(defaults, activations) and P is None and clip is None and not input_forget
    )
    # torch's layer does not return the cell state at the end of a sequence shorter than X
    plain = plain and (sequence_lens is None or n_outputs < 3)
    if plain and has_native():
        return run_native(layer, "lstm", layout)
    given = activations or defaults, activation_alpha, activation_beta
    functions = activations_of(*given, clip, X)
    unclipped = activations_of(*given, None, X)

    def cell(k: int, X: Tensor) -> tuple[Tensor, Step]:
        gates, R = _project(layer, k, X)
        f, g, _ = functions[3 * k : 3 * k + 3]
        h = unclipped[3 * k + 2]
        peepholes = None if P is None else P[k]
        return gates, lstm_step(partial(linear, weight=R), peepholes, f, g, h, input_forget)

    return _run_cells(layer, cell, layout)


def _project(layer: Layer, k: int, X: Tensor) -> tuple[Tensor, Tensor]:
    """The product of X and W with both biases, and R, of direction `k`."""
    W, R, *biases = layer.parameters(k)
    return linear(X, W, biases[0] + biases[1] if biases else None), R


def check_peepholes(P: Tensor | None, layer: Layer) -> None:
    expected = (layer.n_directions, 3 * layer.R.shape[2])
    if P is not None and P.shape != expected:
        raise ValueError(f"P must be {list(expected)}, got {list(P.shape)}")


def lstm_step(
    recur: Activation,
    P: Tensor | None,
    f: Activation,
    g: Activation,
    h: Activation,
    coupled: int,
    bias: Tensor | None = None,
) -> Step:
    """One step of an LSTM; `recur` is the product of the hidden state and R.

    A bias is added last here; it may be part of x as well.
    """

    def peep(gate: Tensor, peephole: Tensor | None, c: Tensor) -> Tensor:
        return gate if peephole is None else gate + peephole * c

    def step(x: Tensor, states: States) -> States:
        hidden, c = states
        p_i, p_o, p_f = (None, None, None) if P is None else P.chunk(3)
        gates = x + recur(hidden)
        gates = gates if bias is None else gates + bias
        x_i, x_o, x_f, x_c = gates.chunk(4, -1)
        i = f(peep(x_i, p_i, c))
        forget = 1 - i if coupled else f(peep(x_f, p_f, c))
        c = forget * c + i * g(x_c)
        return f(peep(x_o, p_o, c)) * h(c), c

    return step


def are_activations(defaults: Sequence[str], names: Sequence[str] | None) -> bool:
    """Whether these are the activations of a node; their number is checked."""
    if names is not None and len(names) != len(defaults):
        raise ValueError(f"activations must be {len(defaults)} names, got {len(names)}")
    return names is None or [n.lower() for n in names] == [n.lower() for n in defaults]


def _run_cells(layer: Layer, cell: Cell, layout: Flag) -> tuple[Tensor, ...]:
    """Run time step by time step."""
    if layer.is_empty:
        return batch_first(layer.empty_results(), layout)

    def direction(k: int, X: Tensor, states: States) -> tuple[Tensor, States]:
        gates, step = cell(k, X)
        return walk(step, gates, states, layer.lengths)

    return batch_first(run(layer, direction), layout)


# `output_sequence` has no effect: the outputs of the node show whether Y is wanted
rnn_7 = older(rnn, since=7, without=["layout"])
rnn_1 = older(rnn_7, since=1, unused={"output_sequence": 0})
gru_7 = older(gru, since=7, without=["layout"])
gru_3 = older(gru_7, since=3, unused={"output_sequence": 0})
gru_1 = older(
    gru_7,
    since=1,
    without=["linear_before_reset"],
    defaults={"direction": "foward"},  # as the schema spells it
    unused={"output_sequence": 0},
)
lstm_7 = older(lstm, since=7, without=["layout"])
lstm_1 = older(lstm_7, since=1, unused={"output_sequence": 0})


SMOOTH = ("Tanh", "Sigmoid", "Softsign", "Softplus", "Elu", "Affine", "ScaledTanh")
EDGED = ("Relu", "LeakyRelu", "ThresholdedRelu", "HardSigmoid")


def _draw_call(d: Draw, n_gates: int, n_states: int, n_activations: int, **more: Any) -> Call:
    """A call; no oracle supports the rarer options together with `layout`."""
    rare = d.opset >= 7 and d.boolean()
    direction = d.choice(["forward", "reverse", "bidirectional"])
    directions = len(DIRECTIONS[direction])
    time, batch, size, hidden = (d.integer(1, 3) for _ in range(4))

    def tensor(*shape: int) -> Any:
        return d.tensor(shape, lo=-1, hi=1)

    n_functions = n_activations * directions
    numbers = [d.real(0.25, 1) for _ in range(n_functions)]
    options = {
        "activations": d.maybe([d.choice(SMOOTH + EDGED) for _ in range(n_functions)]),
        "activation_alpha": d.maybe(numbers),
        "activation_beta": d.maybe(numbers[::-1]),
        "clip": d.maybe(d.real(0.25, 1)),
    }
    layout = d.maybe(d.integer(0, 1)) if d.opset >= 14 and not rare else None
    turn = (lambda *shape: (shape[1], shape[0], shape[2])) if layout else (lambda *shape: shape)
    return call(
        tensor(*turn(time, batch, size)),
        tensor(directions, n_gates * hidden, size),
        tensor(directions, n_gates * hidden, hidden),
        d.maybe(tensor(directions, 2 * n_gates * hidden)),
        d.maybe(d.ints((batch,), 0, time, torch.int32)) if rare else None,
        *(d.maybe(tensor(*turn(directions, batch, hidden))) for _ in range(n_states)),
        *([d.maybe(tensor(directions, 3 * hidden))] if n_states == 2 else []),
        direction=d.maybe(direction) if direction == "forward" else direction,
        hidden_size=hidden,
        layout=layout,
        outputs=d.integer(1, n_states + 1),
        **(options if rare else {}),
        **more,
    )


@sample(rnn)
def _(d: Draw) -> Call:
    return _draw_call(d, 1, 1, 1)


@sample(gru)
def _(d: Draw) -> Call:
    more = {"linear_before_reset": d.integer(0, 1)} if d.opset >= 3 else {}
    return _draw_call(d, 3, 1, 2, **more)


@sample(lstm)
def _(d: Draw) -> Call:
    return _draw_call(d, 4, 2, 3)

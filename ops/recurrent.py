"""Recurrent layers: RNN, GRU, LSTM.

History: 1, 3 (GRU: linear_before_reset), 7 (without output_sequence), 14 (layout), 22 (bfloat16).

What torch's own layers can compute runs on them (`recurrent_native`); other activations, clipping,
peepholes and the like run cell by cell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import Parameter, Signature, signature
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import linear

from onnxinterp.ops.recurrent_cells import (
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
from onnxinterp.ops.recurrent_native import run_native
from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag, Floats

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
    # behind the end of its sequence a state of relu may grow without bound
    plain = names == {"tanh"} or (names == {"relu"} and sequence_lens is None)
    if plain and clip is None and not torch.compiler.is_compiling():
        return run_native(layer, names.pop(), layout)
    functions = activations_of(activations, activation_alpha, activation_beta, clip, X)

    def cell(k: int, X: Tensor) -> tuple[Tensor, Step]:
        W, R, *biases = layer.parameters(k)
        f = functions[k]
        gates = linear(X, W, biases[0] + biases[1] if biases else None)
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
    """linear_before_reset is what torch's GRU computes; the default of ONNX is the other way."""
    layer = layer_of(X, W, R, B, sequence_lens, [initial_h], 3, direction, hidden_size, layout)
    defaults = ("Sigmoid", "Tanh") * layer.n_directions
    plain = _are(defaults, activations) and linear_before_reset
    if plain and clip is None and not torch.compiler.is_compiling():
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
    """Clipping spares the state that goes into the last activation, as in onnxruntime."""
    layer = layer_of(
        X, W, R, B, sequence_lens, [initial_h, initial_c], 4, direction, hidden_size, layout
    )
    if P is not None and P.shape != (layer.n_directions, 3 * R.shape[2]):
        raise ValueError(f"P has shape {list(P.shape)}")
    defaults = ("Sigmoid", "Tanh", "Tanh") * layer.n_directions
    plain = _are(defaults, activations) and P is None and clip is None and not input_forget
    # torch's layer does not give the cell state at the end of a sequence that is shorter than X
    plain = plain and (sequence_lens is None or n_outputs < 3)
    if plain and not torch.compiler.is_compiling():
        return run_native(layer, "lstm", layout)
    given = activations or defaults, activation_alpha, activation_beta
    functions = activations_of(*given, clip, X)
    unclipped = activations_of(*given, None, X)

    def cell(k: int, X: Tensor) -> tuple[Tensor, Step]:
        W, R, *biases = layer.parameters(k)
        f, g, _ = functions[3 * k : 3 * k + 3]
        h = unclipped[3 * k + 2]
        gates = linear(X, W, biases[0] + biases[1] if biases else None)
        peepholes = None if P is None else P[k]
        return gates, _lstm_step(R, peepholes, f, g, h, input_forget)

    return _run_cells(layer, cell, layout)


def _lstm_step(
    R: Tensor, P: Tensor | None, f: Activation, g: Activation, h: Activation, coupled: int
) -> Step:
    def seen(gate: Tensor, peephole: Tensor | None, c: Tensor) -> Tensor:
        return gate if peephole is None else gate + peephole * c

    def step(x: Tensor, states: States) -> States:
        hidden, c = states
        p_i, p_o, p_f = (None, None, None) if P is None else P.chunk(3)
        x_i, x_o, x_f, x_c = (x + linear(hidden, R)).chunk(4, -1)
        i = f(seen(x_i, p_i, c))
        forget = 1 - i if coupled else f(seen(x_f, p_f, c))
        c = forget * c + i * g(x_c)
        return f(seen(x_o, p_o, c)) * h(c), c

    return step


def _are(defaults: Sequence[str], names: Sequence[str] | None) -> bool:
    """Whether a node asks for these; there are as many in any case."""
    if names is not None and len(names) != len(defaults):
        raise ValueError(f"{len(names)} activations, not {len(defaults)}")
    return names is None or [n.lower() for n in names] == [n.lower() for n in defaults]


def _run_cells(layer: Layer, cell: Cell, layout: Flag) -> tuple[Tensor, ...]:
    """Time step by time step."""
    if layer.is_empty:
        return batch_first(layer.nothing(), layout)

    def direction(k: int, X: Tensor, states: States) -> tuple[Tensor, States]:
        gates, step = cell(k, X)
        return walk(step, gates, states, layer.lengths)

    return batch_first(run(layer, direction), layout)


def _older(
    kernel: Callable[..., Any], name: str, *, without: Sequence[str] = (), **defaults: Any
) -> Callable[..., tuple[Tensor, ...]]:
    """An earlier version: the kernel without some attributes, with other defaults.

    `output_sequence` has no meaning left: whether Y is wanted shows in the outputs of the node.
    """

    def older(*inputs: Tensor | None, output_sequence: Flag = 0, **attributes: Any) -> Any:
        del output_sequence
        return kernel(*inputs, **attributes)

    parameters = {n: p for n, p in signature(kernel).parameters.items() if n not in without}
    for attribute, default in defaults.items():
        like = parameters.get(attribute)
        hint = "int" if like is None else like.annotation
        parameters[attribute] = Parameter(
            attribute, Parameter.KEYWORD_ONLY, default=default, annotation=hint
        )
    older.__signature__ = Signature(list(parameters.values()))  # type: ignore[attr-defined]
    older.__annotations__ = {n: p.annotation for n, p in parameters.items()}
    older.__name__ = older.__qualname__ = name
    return older


rnn_7 = op("RNN", since=7)(_older(rnn, "rnn_7", without=["layout"]))
rnn_1 = op("RNN", since=1)(_older(rnn, "rnn_1", without=["layout"], output_sequence=0))
gru_7 = op("GRU", since=7)(_older(gru, "gru_7", without=["layout"]))
gru_3 = op("GRU", since=3)(_older(gru, "gru_3", without=["layout"], output_sequence=0))
gru_1 = op("GRU", since=1)(
    _older(
        gru,
        "gru_1",
        without=["layout", "linear_before_reset"],
        output_sequence=0,
        direction="foward",  # so the schema spells it
    )
)
lstm_7 = op("LSTM", since=7)(_older(lstm, "lstm_7", without=["layout"]))
lstm_1 = op("LSTM", since=1)(_older(lstm, "lstm_1", without=["layout"], output_sequence=0))


SMOOTH = ("Tanh", "Sigmoid", "Softsign", "Softplus", "Elu", "Affine", "ScaledTanh")
EDGED = ("Relu", "LeakyRelu", "ThresholdedRelu", "HardSigmoid")


def _draw_call(d: Draw, n_gates: int, n_states: int, n_activations: int, **more: Any) -> Call:
    """A call; no oracle judges the rarer options together with `layout`."""
    rare = d.opset >= 7 and d.boolean()
    directions = (
        2 if (direction := d.choice(["forward", "reverse", "bidirectional"]))[0] == "b" else 1
    )
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


@sample(rnn, rnn_7, rnn_1)
def _(d: Draw) -> Call:
    return _draw_call(d, 1, 1, 1)


@sample(gru, gru_7, gru_3, gru_1)
def _(d: Draw) -> Call:
    more = {"linear_before_reset": d.integer(0, 1)} if d.opset >= 3 else {}
    return _draw_call(d, 3, 1, 2, **more)


@sample(lstm, lstm_7, lstm_1)
def _(d: Draw) -> Call:
    return _draw_call(d, 4, 2, 3)

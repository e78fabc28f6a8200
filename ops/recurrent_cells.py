"""What RNN, GRU and LSTM share: activations, the walk through time, directions, lengths.

Axis 0 is time and axis 1 the batch. In eager mode a Python loop runs over time; in a captured graph
torch's scan operator does, so that the length may be symbolic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch._higher_order_ops import scan as captured_loop
from torch.nn import functional

from onnxinterp.ops.gathering import within
from onnxinterp.values import Flag, is_known, is_traced, plain_shape

Activation: TypeAlias = Callable[[Tensor], Tensor]
States: TypeAlias = tuple[Tensor, ...]
Step: TypeAlias = Callable[[Tensor, States], States]
Direction: TypeAlias = Callable[[int, Tensor, States], tuple[Tensor, States]]

# Name -> defaults of alpha and beta, if it has them, and the function. As in onnxruntime, the
# default is 0 if the specification has none (Affine, ScaledTanh), and for ThresholdedRelu (not 1).
ACTIVATIONS: dict[str, tuple[tuple[float, ...], Callable[..., Tensor]]] = {
    "relu": ((), torch.relu),
    "tanh": ((), torch.tanh),
    "sigmoid": ((), torch.sigmoid),
    "softsign": ((), functional.softsign),
    "softplus": ((), functional.softplus),
    "leakyrelu": ((0.01,), lambda x, alpha: torch.where(x < 0, alpha * x, x)),
    "thresholdedrelu": ((0.0,), lambda x, alpha: torch.where(x > alpha, x, 0)),
    "elu": ((1.0,), lambda x, alpha: torch.where(x < 0, alpha * x.clamp(max=0).expm1(), x)),
    "affine": ((0.0, 0.0), lambda x, alpha, beta: alpha * x + beta),
    "scaledtanh": ((0.0, 0.0), lambda x, alpha, beta: alpha * torch.tanh(beta * x)),
    "hardsigmoid": ((0.2, 0.5), lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1)),
}


def activations_of(
    names: Sequence[str],
    alpha: Sequence[float] | None,
    beta: Sequence[float] | None,
    clip: float | None,
    like: Tensor,
) -> list[Activation]:
    """The functions; each takes the next values of alpha and beta that it needs.

    These become tensors like `like`, because a captured loop takes no Python floats.
    """
    given = iter(alpha or ()), iter(beta or ())
    bound = None if clip is None else like.new_full((), clip)
    return [_activation(name, given, bound, like) for name in names]


def _activation(
    name: str, given: tuple[Iterator[float], Iterator[float]], bound: Tensor | None, like: Tensor
) -> Activation:
    defaults, function = ACTIVATIONS[name.lower()]
    numbers = [next(left, default) for left, default in zip(given, defaults, strict=False)]
    settings = [like.new_full((), number) for number in numbers]
    if bound is None:
        return lambda x: function(x, *settings)
    return lambda x: function(x.clamp(-bound, bound), *settings)


@dataclass(frozen=True)
class Layer:
    """One recurrent layer: its inputs, time first, checked and complete.

    Attributes:
        X: [time, batch, input].
        W: [directions, gates * hidden, input].
        R: [directions, gates * hidden, hidden].
        B: [directions, 2 * gates * hidden], the bias of W, then that of R; None for zeros.
        lengths: [batch]; None if all sequences are as long as X.
        states: initial values, each [directions, batch, hidden].
        backwards: for each direction, whether it reads from the end.
        n_gates: number of blocks of rows of W and R.
    """

    X: Tensor
    W: Tensor
    R: Tensor
    B: Tensor | None
    lengths: Tensor | None
    states: States
    backwards: tuple[bool, ...]
    n_gates: int

    @property
    def n_directions(self) -> int:
        """1 or 2."""
        return len(self.backwards)

    @property
    def is_empty(self) -> bool:
        """Whether there are no time steps."""
        return is_known(self.X.shape[0]) and self.X.shape[0] == 0

    def empty_results(self) -> tuple[Tensor, ...]:
        """The results without time steps: the final states are those of a sequence of length 0."""
        first = self.states[0]
        Y = first.new_zeros(0, *first.shape)
        return (Y, *(torch.zeros_like(s) for s in self.states))

    def parameters(self, k: int) -> list[Tensor]:
        """W, R and, if there are any, the two biases of direction `k`."""
        biases = () if self.B is None else equal_parts(self.B[k], 2)
        return [self.W[k], self.R[k], *biases]


def equal_parts(weight: Tensor, count: int) -> Sequence[Tensor]:
    """Along the first axis; in a trace as slices, whose sizes OpenVINO knows when it converts."""
    if not is_traced():
        return weight.chunk(count)
    size = plain_shape(weight)[0] // count
    return [weight.narrow(0, i * size, size) for i in range(count)]


DIRECTIONS = {
    "forward": (False,),
    "foward": (False,),  # the default of GRU-1
    "reverse": (True,),
    "bidirectional": (False, True),
}


def layer_of(
    X: Tensor,
    W: Tensor,
    R: Tensor,
    B: Tensor | None,
    lengths: Tensor | None,
    states: Sequence[Tensor | None],
    n_gates: int,
    direction: str,
    hidden_size: int | None,
    layout: Flag,
) -> Layer:
    """Check sizes, which torch's kernels do not check; put time first; add missing states."""
    if layout:
        X = X.transpose(0, 1)
        states = [None if s is None else s.transpose(0, 1) for s in states]
    backwards = DIRECTIONS[direction]
    n, hidden = len(backwards), R.shape[-1] if hidden_size is None else hidden_size
    shape = (n, X.shape[1], hidden)
    expected = [
        ("W", W, (n, n_gates * hidden, X.shape[2])),
        ("R", R, (n, n_gates * hidden, hidden)),
        ("B", B, (n, 2 * n_gates * hidden)),
        ("sequence_lens", lengths, (X.shape[1],)),
        *(("initial_h or initial_c", s, shape) for s in states),
    ]
    for name, tensor, sizes in expected:
        if tensor is not None and tuple(tensor.shape) != sizes:
            raise ValueError(f"{name} must be {list(sizes)}, got {list(tensor.shape)}")
    if lengths is not None:
        lengths = within(lengths, X.shape[0])
    complete = tuple(X.new_zeros(shape) if s is None else s for s in states)
    return Layer(X, W, R, B, lengths, complete, backwards, n_gates)


def run(layer: Layer, direction: Direction) -> tuple[Tensor, ...]:
    """Run all directions, each as if it went forward.

    Args:
        layer: the layer.
        direction: returns (Y, final states) for the number of a direction, its X and its states.

    Returns:
        Y [time, directions, batch, hidden] and the final states [directions, batch, hidden].
        A sequence of length 0 has final states of zeros, as in onnxruntime.
    """
    rows, finals = [], []
    for k, backwards in enumerate(layer.backwards):
        X = reverse(layer.X, layer.lengths) if backwards else layer.X
        Y, final = direction(k, X, tuple(s[k] for s in layer.states))
        if layer.lengths is not None:
            inside = _inside(layer.lengths, Y)
            Y = torch.where(inside, Y, Y.new_zeros(()))
            final = tuple(torch.where(inside[0], s, s.new_zeros(())) for s in final)
        rows.append(reverse(Y, layer.lengths) if backwards else Y)
        finals.append(final)
    return (_together(rows, 1), *(_together(s, 0) for s in zip(*finals, strict=True)))


def batch_first(results: tuple[Tensor, ...], layout: Flag) -> tuple[Tensor, ...]:
    """Y and the final states in the axis order of `layout`."""
    if not layout:
        return results
    return (results[0].permute(2, 0, 1, 3), *(s.transpose(0, 1) for s in results[1:]))


def _together(parts: Sequence[Tensor], axis: int) -> Tensor:
    return parts[0].unsqueeze(axis) if len(parts) == 1 else torch.stack(tuple(parts), axis)


def _inside(lengths: Tensor, X: Tensor) -> Tensor:
    """[time, batch, 1]: whether a step is part of its sequence."""
    return (torch.arange(X.shape[0], device=X.device)[:, None] < lengths).unsqueeze(-1)


def reverse(X: Tensor, lengths: Tensor | None) -> Tensor:
    """Reverse each sequence; elements after its end keep their positions."""
    if lengths is None:
        return X.flip(0)
    time = torch.arange(X.shape[0], device=X.device)[:, None]
    order = torch.where(time < lengths, lengths - 1 - time, time)
    return X.gather(0, order.unsqueeze(-1).expand_as(X))


def last(Y: Tensor, lengths: Tensor) -> Tensor:
    """The row of Y at the end of each sequence."""
    end = (lengths.long() - 1).clamp(min=0)
    return Y.gather(0, end[None, :, None].expand(1, *Y.shape[1:])).squeeze(0)


def walk(
    step: Step, gates: Tensor, states: States, lengths: Tensor | None
) -> tuple[Tensor, States]:
    """Apply a step along time; states do not change after the end of their sequence.

    Args:
        step: from a row of gates and the states to the next states, the first of them the output.
        gates: [time, batch, ...], the contribution of the input.
        states: initial values.
        lengths: [batch] or None.
    """
    rows = (gates,) if lengths is None else (gates, _inside(lengths, gates))

    def advance(states: States, row: States) -> tuple[States, Tensor]:
        after = step(row[0], states)
        if lengths is not None:
            after = tuple(torch.where(row[1], a, s) for a, s in zip(after, states, strict=True))
        return after, after[0]

    return repeat(advance, states, rows)


def repeat(
    step: Callable[[States, States], tuple[States, Tensor]], states: States, rows: States
) -> tuple[Tensor, States]:
    """All outputs of a step and the last states; time may be symbolic in a captured graph."""
    if torch.compiler.is_compiling():

        def captured(states: States, row: States) -> tuple[States, Tensor]:
            after, output = step(states, row)
            return after, output.clone()  # torch needs separate tensors for state and output

        own = tuple(s.clone(memory_format=torch.contiguous_format) for s in states)
        finals, Y = captured_loop(captured, own, rows)
        return Y, finals
    outputs = []
    for row in zip(*(r.unbind(0) for r in rows), strict=True):
        states, output = step(states, row)
        outputs.append(output)
    return torch.stack(outputs), states

"""DynamicQuantizeLSTM: an LSTM with integer weights, which onnxruntime's quantizer writes.

W is [directions, input, 4 * hidden] and R [directions, hidden, 4 * hidden], transposed against
LSTM. X is quantized once, up to the end of the longest sequence; the hidden state anew at each
step, over the whole batch, as onnxruntime does with one thread (several threads take parts of the
batch, and each quantizes its own). Sums and activations are rounded as in onnxruntime, so that the
states are equal bit for bit: see `rational_activations.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from onnxinterp.ops.contrib.quantized_numbers import settings, wide
from onnxinterp.ops.contrib.rational_activations import rational_activations
from onnxinterp.ops.contrib.registration import REQUIRED, contrib_op
from onnxinterp.ops.integer_products import mat_mul_integer
from onnxinterp.ops.quantization import dynamic_quantize_linear
from onnxinterp.ops.recurrent import EDGED, SMOOTH, are_activations, check_peepholes, lstm_step
from onnxinterp.ops.recurrent_cells import (
    DIRECTIONS,
    States,
    Step,
    activations_of,
    layer_of,
    run,
    walk,
)
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag, Floats

Product = Callable[[Tensor], Tensor]


@contrib_op("DynamicQuantizeLSTM", frozen=settings("W", "R"))
def dynamic_quantize_lstm(
    X: Tensor,
    W: Tensor,
    R: Tensor,
    B: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    P: Tensor | None = None,
    W_scale: Tensor = REQUIRED,
    W_zero_point: Tensor = REQUIRED,
    R_scale: Tensor = REQUIRED,
    R_zero_point: Tensor = REQUIRED,
    *,
    activation_alpha: Floats | None = None,
    activation_beta: Floats | None = None,
    activations: list[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: Flag = 0,
) -> tuple[Tensor, ...]:
    """Settings of a weight are [directions] or [directions, 4 * hidden]."""
    matrices, states = (W.mT, R.mT), [initial_h, initial_c]
    layer = layer_of(X, *matrices, B, sequence_lens, states, 4, direction, hidden_size, 0)
    check_peepholes(P, layer)
    of_W = _products(W, W_scale, W_zero_point)
    of_R = _products(R, R_scale, R_zero_point)
    defaults = ("Sigmoid", "Tanh", "Tanh") * layer.n_directions
    are_activations(defaults, activations)  # checks their number
    given = activations or defaults, activation_alpha, activation_beta
    functions, unclipped = (_activations(*given, bound, X) for bound in (clip, None))
    if layer.is_empty:
        return layer.empty_results()

    def walk_direction(k: int, X: Tensor, states: States) -> tuple[Tensor, States]:
        gates = of_W[k](X if layer.lengths is None else _used(X, layer.lengths))
        bias = None if B is None else torch.add(*B[k].chunk(2))
        f, g = functions[3 * k : 3 * k + 2]
        rest = None if P is None else P[k], f, g, unclipped[3 * k + 2], input_forget, bias
        if layer.lengths is None:
            return walk(lstm_step(of_R[k], *rest), gates, states, None)
        step = _masked_step(lambda recur: lstm_step(recur, *rest), of_R[k])
        return walk(step, _with_mask(gates, layer.lengths), states, layer.lengths)

    return run(layer, walk_direction)


def _activations(
    names: Sequence[str],
    alpha: Sequence[float] | None,
    beta: Sequence[float] | None,
    clip: float | None,
    like: Tensor,
) -> list[Product]:
    """Activations with onnxruntime's roundings, where the type is one that it computes in."""
    found = activations_of(names, alpha, beta, clip, like)
    if like.dtype is not torch.float32:
        return found
    rational = rational_activations(like)

    def clipped(function: Product) -> Product:
        return function if clip is None else lambda x: function(x.clamp(-clip, clip))

    pairs = zip(names, found, strict=True)
    return [clipped(rational[n.lower()]) if n.lower() in rational else f for n, f in pairs]


def _with_mask(gates: Tensor, lengths: Tensor) -> Tensor:
    """Gates and, behind them, whether a sequence had not ended before the step before."""
    steps = torch.arange(gates.shape[0], device=gates.device)[:, None]
    return torch.cat([gates, (steps <= lengths).to(gates.dtype).unsqueeze(-1)], -1)


def _masked_step(make: Callable[[Product], Step], multiply: Product) -> Step:
    """A step in which the hidden state of an ended sequence is 0: it is quantized with the others.

    Args:
        make: a step with this product of the hidden state and R.
        multiply: the product, whose quantization depends on all elements.
    """

    def step(x: Tensor, states: States) -> States:
        gates, mask = x[..., :-1], x[..., -1:]
        return make(lambda hidden: multiply(hidden * mask))(gates, states)

    return step


def _used(X: Tensor, lengths: Tensor) -> Tensor:
    """X with zeros, which widen no range, after the end of the longest sequence."""
    steps = torch.arange(X.shape[0], device=X.device)[:, None, None]
    return torch.where(steps < lengths.amax(), X, X.new_zeros(()))


def _products(weight: Tensor, scale: Tensor, zero_point: Tensor) -> list[Product]:
    """For each direction the product of x, quantized to uint8, and the weight."""
    count, _, columns = weight.shape
    for setting in (scale, zero_point):
        if setting.shape not in ((count,), (count, columns)):
            wanted = f"{[count]} or {[count, columns]}"
            raise ValueError(f"settings of W and R must be {wanted}, got {list(setting.shape)}")
    return [_product(*row) for row in zip(weight, scale, zero_point, strict=True)]


def _product(weight: Tensor, scale: Tensor, zero_point: Tensor) -> Product:
    def multiply(x: Tensor) -> Tensor:
        dtype = wide(x)
        quantized, x_scale, x_zero_point = dynamic_quantize_linear(x.to(dtype))
        total = mat_mul_integer(quantized, weight, x_zero_point, zero_point)
        return (total.to(dtype) * (x_scale * scale.to(dtype))).to(x.dtype)

    return multiply


@sample(dynamic_quantize_lstm)
def _(d: Draw) -> Call:
    """Zero points of columns are equal, those of int8 are 0, as onnxruntime requires."""
    direction = d.choice(["forward", "reverse", "bidirectional"])
    n = len(DIRECTIONS[direction])
    time, batch, size, hidden = (d.integer(1, 3) for _ in range(4))

    def floats(*shape: int) -> Tensor:
        return d.floats(shape, -1, 1)

    def weight(rows: int) -> tuple[Tensor, Tensor, Tensor]:
        integers = d.tensor((n, rows, 4 * hidden), "T2", -64, 63)
        shape = d.choice([(n,), (n, 4 * hidden)])
        signed = d.dtype("T2") is torch.int8 and len(shape) > 1
        number = 0 if signed else d.integer(0, 40)
        zero = torch.full(shape, number, dtype=integers.dtype)
        return integers, d.floats(shape, 0.001, 0.015), zero

    (W, *of_W), (R, *of_R) = weight(size), weight(hidden)
    numbers = [d.real(0.25, 1) for _ in range(3 * n)]
    return call(
        floats(time, batch, size),
        W,
        R,
        d.maybe(floats(n, 8 * hidden)),
        d.maybe(d.ints((batch,), 0, time, torch.int32)),
        *(d.maybe(floats(n, batch, hidden)) for _ in range(2)),
        d.maybe(floats(n, 3 * hidden)),
        *of_W,
        *of_R,
        activations=d.maybe([d.choice(SMOOTH + EDGED) for _ in range(3 * n)]),
        activation_alpha=d.maybe(numbers),
        activation_beta=d.maybe(numbers[::-1]),
        clip=d.maybe(d.real(0.25, 1)),
        direction=d.maybe(direction) if direction == "forward" else direction,
        hidden_size=hidden,
        input_forget=d.maybe(d.integer(0, 1)),
        outputs=d.integer(1, 3),
    )

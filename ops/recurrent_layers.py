"""RNN, GRU and LSTM as torch's exporter writes torch's layers.

The exporter splits each parameter into gates, joins these in the order of ONNX, and stacks the
directions. Trainable tensors cannot be folded, so a graph does this at each call; or the exporter
has folded it, and the parameters are packed again (`recurrent_packing`). The patterns of this file
call torch's layer with the original parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from onnxinterp.ops.joining import concat
from onnxinterp.ops.recurrent import gru, gru_7, lstm, lstm_7, rnn, rnn_7
from onnxinterp.ops.recurrent_native import has_native, native
from onnxinterp.ops.recurrent_packing import ONNX_ORDER, packed_biases, packed_weights
from onnxinterp.ops.shapes import unsqueeze, unsqueeze_1
from onnxinterp.ops.slicing import slice_
from onnxinterp.registry import Pattern, fuse
from onnxinterp.values import Ints

ZRH = ((1, 2), (0, 1), (2, 3))  # blocks of rows in the order of the exporter
IOFC = ((0, 1), (3, 4), (1, 3))


def _parameter(names: tuple[str, ...], blocks: Any, stack: Callable[[Any], Pattern]) -> Pattern:
    """One direction of W, R or B; `end_k` is k times the hidden size."""
    bounds = ([0], "end_1", "end_2", "end_3", "end_4")
    parts = [
        (concat, *((slice_, name, bounds[a], bounds[b], [0]) for a, b in blocks), {"axis": 0})
        for name in names
    ]
    return stack(parts[0] if len(parts) == 1 else (concat, *parts, {"axis": 0}))


def _patterns(
    kernel: Callable[..., Any], blocks: Any, states: tuple[str, ...], attributes: dict[str, Any]
) -> Iterator[Pattern]:
    """With biases or without, with one direction or two."""
    for stack in (lambda x: (unsqueeze, x, [0]), lambda x: (unsqueeze_1, x, {"axes": [0]})):
        for B in (("Wb", "Rb"), ()):
            forward = [_parameter(n, blocks, stack) if n else None for n in (("W",), ("R",), B)]
            yield (kernel, "X", *forward, None, *states, attributes)
            back = tuple(f"{name}_back" for name in B)
            backward = [
                _parameter(n, blocks, stack) if n else None
                for n in (("W_back",), ("R_back",), back)
            ]
            both = [
                f and (concat, f, b, {"axis": 0}) for f, b in zip(forward, backward, strict=True)
            ]
            direction = {**attributes, "direction": "bidirectional"}
            yield (kernel, "X", *both, None, *states, direction)


def _packed(
    kernel: Callable[..., Any], n_gates: int, states: tuple[str, ...], attributes: dict[str, Any]
) -> Iterator[Pattern]:
    """The same of weights that are packed by one node each; without states they are zeros."""
    order = {"order": ONNX_ORDER[n_gates]}
    for count in (1, 2):
        ends = ("", "_back")[:count]
        W, R = ((packed_weights, *(f"{n}{end}" for end in ends), order) for n in "WR")
        biases = (packed_biases, *(f"{n}{end}" for end in ends for n in ("Wb", "Rb")), order)
        named = {n: v * count for n, v in attributes.items() if isinstance(v, list)}
        direction = {"direction": "bidirectional"} if count == 2 else {}
        for B in (biases, None):
            for initial in (states, (None,) * len(states)):
                yield (kernel, "X", W, R, B, None, *initial, {**attributes, **named, **direction})


def _layer(kind: str, n_gates: int) -> Callable[..., Any]:
    def layer(
        X: Tensor,
        h: Tensor | None,
        c: Tensor | None,
        W: Tensor,
        R: Tensor,
        Wb: Tensor | None,
        Rb: Tensor | None,
        W_back: Tensor | None,
        R_back: Tensor | None,
        Wb_back: Tensor | None,
        Rb_back: Tensor | None,
        *,
        hidden_size: int,
        end_1: Ints | None = None,
        end_2: Ints | None = None,
        end_3: Ints | None = None,
        end_4: Ints | None = None,
    ) -> Any:
        n, rows = 1 if W_back is None else 2, n_gates * hidden_size
        given = (W, R, Wb, Rb, W_back, R_back, Wb_back, Rb_back)
        shapes = [(rows, X.shape[2]), (rows, hidden_size), (rows,), (rows,)] * 2
        zeros = X.new_zeros(n, X.shape[1], hidden_size) if h is None else h
        states = (zeros, zeros if c is None else c)[: 2 if kind == "lstm" else 1]
        right = all(p is None or p.shape == s for p, s in zip(given, shapes, strict=True))
        right &= all(s.shape == (n, X.shape[1], hidden_size) for s in states)
        right &= all(
            end is None or end == [k * hidden_size]
            for k, end in enumerate((end_1, end_2, end_3, end_4), 1)
        )
        if not right or not X.shape[0] or not has_native():
            return NotImplemented
        parameters = [p for p in given if p is not None]
        Y, *finals = native(kind, X, states, parameters, both=n == 2)
        return (Y.reshape(*Y.shape[:-1], n, -1).transpose(1, 2), *finals)

    layer.__name__ = f"torch_{kind}"
    return layer


for _kernel in (lstm, lstm_7):
    _lstm = _layer("lstm", 4)
    fuse(*_patterns(_kernel, IOFC, ("h", "c"), {}), *_packed(_kernel, 4, ("h", "c"), {}))(_lstm)
for _kernel in (gru, gru_7):
    _first = {"linear_before_reset": 1}
    _gru = _layer("gru", 3)
    fuse(*_patterns(_kernel, ZRH, ("h",), _first), *_packed(_kernel, 3, ("h",), _first))(_gru)
for _kernel in (rnn, rnn_7):
    for _kind in ("Tanh", "Relu"):
        fuse(*_packed(_kernel, 1, ("h",), {"activations": [_kind]}))(_layer(_kind.lower(), 1))

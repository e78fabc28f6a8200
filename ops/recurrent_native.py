"""RNN, GRU and LSTM on torch's own layers.

The order of the gates differs: ONNX has iofc and zrh, torch ifco and rzh.
"""

from __future__ import annotations

import torch
from torch import Tensor

from onnxinterp.ops.recurrent_cells import Layer, States, batch_first, last, run
from onnxinterp.values import Flag

TORCH_ORDER = {1: (0,), 3: (1, 0, 2), 4: (0, 2, 3, 1)}  # number of gates -> where torch's stand


def run_native(layer: Layer, kind: str, layout: Flag) -> tuple[Tensor, ...]:
    """With torch's layer; where sequences differ in length, without the final cell state."""
    if layer.is_empty:
        return batch_first(layer.nothing(), layout)
    every = [_torch_parameters(layer, k) for k in range(layer.n_directions)]
    if layer.n_directions == 2 and layer.lengths is None:
        Y, *finals = native(kind, layer.X, layer.states, [*every[0], *every[1]], both=True)
        Y = Y.reshape(*Y.shape[:-1], 2, -1).transpose(1, 2)
        return batch_first((Y, *finals), layout)

    def direction(k: int, X: Tensor, states: States) -> tuple[Tensor, States]:
        initial = tuple(s.unsqueeze(0) for s in states)
        Y, *finals = native(kind, X, initial, every[k], both=False)
        if layer.lengths is not None:
            return Y, (last(Y, layer.lengths),)
        return Y, tuple(s.squeeze(0) for s in finals)

    return batch_first(run(layer, direction), layout)


def _torch_parameters(layer: Layer, k: int) -> list[Tensor]:
    """W, R and biases of direction `k`, gates in torch's order."""
    order = TORCH_ORDER[layer.n_gates]
    if len(order) == 1:
        return layer.parameters(k)
    blocks = [p.chunk(len(order)) for p in layer.parameters(k)]
    return [torch.cat([gates[i] for i in order]) for gates in blocks]


def native(
    kind: str, X: Tensor, states: States, parameters: list[Tensor], *, both: bool
) -> tuple[Tensor, ...]:
    biased = len(parameters) > (4 if both else 2)
    # cuDNN keeps what the backward pass needs only where it is told that it trains
    rest = (biased, 1, 0.0, torch.is_grad_enabled(), both, False)
    if kind == "lstm":
        return torch.lstm(X, states, parameters, *rest)
    rule = {"gru": torch.gru, "tanh": torch.rnn_tanh, "relu": torch.rnn_relu}[kind]
    return rule(X, states[0], parameters, *rest)

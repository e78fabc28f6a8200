"""The weights of torch's recurrent layers, packed as W, R and B of RNN, GRU and LSTM.

    W   [directions, gates * hidden, input]     weight_ih_l0, weight_ih_l0_reverse
    R   [directions, gates * hidden, hidden]    weight_hh_l0, weight_hh_l0_reverse
    B   [directions, 2 * gates * hidden]        bias_ih_l0, bias_hh_l0, and the same reversed

The order of the gates differs: ONNX has iofc and zrh, torch ifco and rzh. Each layer of a torch
module is a node of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from onnxinterp.ops.recurrent_native import TORCH_ORDER, in_order
from onnxinterp.torch_weights import Sizes, TorchWeight, layout, torch_weights

ONNX_ORDER = {n: [order.index(i) for i in range(n)] for n, order in TORCH_ORDER.items()}
"""Number of gates -> where ONNX's are in torch's order."""
DIRECTIONS = {"forward": 1, "bidirectional": 2}


def packed_weights(*weights: Tensor, order: list[int]) -> Tensor:
    """W or R, of the weights of each direction."""
    return torch.stack([in_order(weight, order) for weight in weights])


def packed_biases(*biases: Tensor, order: list[int]) -> Tensor:
    """B, of both biases of each direction."""
    rows = torch.cat([in_order(bias, order) for bias in biases])
    return rows.reshape(len(biases) // 2, -1)


def _split_weights(stored: Tensor, order: Sequence[int]) -> tuple[Tensor, ...]:
    return tuple(in_order(weight, order) for weight in stored)


def _split_biases(stored: Tensor, order: Sequence[int]) -> tuple[Tensor, ...]:
    return tuple(in_order(bias, order) for row in stored for bias in row.chunk(2))


def _weight_sizes(shape: Sizes, n_gates: int, directions: int) -> tuple[Sizes, ...]:
    fits = len(shape) == 3 and shape[0] == directions and shape[1] and not shape[1] % n_gates
    return (tuple(shape[1:]),) * directions if fits else ()


def _bias_sizes(shape: Sizes, n_gates: int, directions: int) -> tuple[Sizes, ...]:
    rows = 2 * n_gates
    fits = len(shape) == 2 and shape[0] == directions and shape[1] and not shape[1] % rows
    return ((shape[1] // 2,),) * (2 * directions) if fits else ()


def _declare(op_type: str, n_gates: int, direction: str) -> None:
    """Say which weights the inputs of an operator are."""
    count, suffixes = DIRECTIONS[direction], ("", "_reverse")[: DIRECTIONS[direction]]

    def names(*kinds: str) -> tuple[str, ...]:
        return tuple(f"{kind}_l{{k}}{suffix}" for suffix in suffixes for kind in kinds)

    weights, biases = (f"{what}_{n_gates}_{count}" for what in ("weights", "biases"))
    torch_weights(
        op_type,
        when=lambda a: a.get("direction", "forward") == direction,
        W=[TorchWeight(names("weight_ih"), weights)],
        R=[TorchWeight(names("weight_hh"), weights)],
        B=[TorchWeight(names("bias_ih", "bias_hh"), biases)],
    )


for _n_gates, _op_type in ((1, "RNN"), (3, "GRU"), (4, "LSTM")):
    for _direction, _count in DIRECTIONS.items():
        layout(
            f"weights_{_n_gates}_{_count}",
            packed_weights,
            split=partial(_split_weights, order=TORCH_ORDER[_n_gates]),
            sizes=partial(_weight_sizes, n_gates=_n_gates, directions=_count),
            order=ONNX_ORDER[_n_gates],
        )
        layout(
            f"biases_{_n_gates}_{_count}",
            packed_biases,
            split=partial(_split_biases, order=TORCH_ORDER[_n_gates]),
            sizes=partial(_bias_sizes, n_gates=_n_gates, directions=_count),
            order=ONNX_ORDER[_n_gates],
        )
        _declare(_op_type, _n_gates, _direction)

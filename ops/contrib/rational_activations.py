"""Sigmoid and tanh bit for bit as onnxruntime computes them in float32: quotients of polynomials.

Their results differ from exact ones by a few units in the last place. That is nothing, unless they
are quantized again in each step, as in DynamicQuantizeLSTM: one of 20,000 values is that near to a
tie, and its step of 8 bits grows over the sequence to a difference of one percent.

onnxruntime evaluates the polynomials with fused multiply-adds. Here, the product of two float32 is
exact in float64, and the sum is rounded to float32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Polynomials = tuple[tuple[float, ...], tuple[float, ...]]

SIGMOID: Polynomials = (
    (
        4.37031012579801e-11,
        1.15627324459942e-07,
        6.08574864600143e-05,
        8.51377133304701e-03,
        2.48287947061529e-01,
    ),
    (
        6.10247389755681e-13,
        5.76102136993427e-09,
        6.29106785017040e-06,
        1.70198817374094e-03,
        1.16817656904453e-01,
        9.93151921023180e-01,
    ),
)
SIGMOID_RANGE = 18.0
TANH: Polynomials = (
    (
        -2.76076847742355e-16,
        2.00018790482477e-13,
        -8.60467152213735e-11,
        5.12229709037114e-08,
        1.48572235717979e-05,
        6.37261928875436e-04,
        4.89352455891786e-03,
    ),
    (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03),
)
TANH_RANGE = 9.0
"""Coefficients of the numerator over x, and of the denominator, in powers of x * x."""


def rational_activations(like: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """The functions by their ONNX names, in lower case, for float32 on the device of `like`."""
    of_sigmoid, of_tanh = (_quotient(polynomials, like) for polynomials in (SIGMOID, TANH))

    def sigmoid(x: Tensor) -> Tensor:
        return (of_sigmoid(x.clamp(-SIGMOID_RANGE, SIGMOID_RANGE)) + 0.5).clamp(0, 1)

    def tanh(x: Tensor) -> Tensor:
        return of_tanh(x.clamp(-TANH_RANGE, TANH_RANGE))

    return {"sigmoid": sigmoid, "tanh": tanh}


def _quotient(polynomials: Polynomials, like: Tensor) -> Callable[[Tensor], Tensor]:
    """Both polynomials at once: the shorter one begins with zeros."""
    length = max(len(p) for p in polynomials)
    rows = [[0.0] * (length - len(p)) + list(p) for p in polynomials]
    coefficients = torch.tensor(rows, dtype=torch.float32, device=like.device).double().unbind(1)

    def quotient(x: Tensor) -> Tensor:
        square = (x * x).double()
        shape = (2, *[1] * x.ndim)
        value = coefficients[0].reshape(shape)
        for coefficient in coefficients[1:]:
            value = (value * square + coefficient.reshape(shape)).float().double()
        numerator, denominator = value.float().unbind(0)
        return numerator * x / denominator

    return quotient

"""Batch normalization of fixed statistics is folded into the convolution before it.

    batch_norm(conv(x, W, b)) = conv(x, W * s, (b - mean) * s + shift),  s = scale / sqrt(var + eps)

For snapshots alone: the result is a copy of the weight.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from onnxinterp.programs.aliases import is_torch
from onnxinterp.programs.calls import Call, Program, Value, values_in
from onnxinterp.programs.functions import name_of

PRODUCTS = ("conv1d", "conv2d", "conv3d")
"""Functions whose weight begins with the axis of the channels of their result."""


def fold_batchnorm(program: Program) -> Program:
    """A program in which normalization by constants is part of the function before it."""
    readers = Counter(v for call in program.calls for v in set(call.reads()))
    readers.update(values_in(program.outputs))
    constants = dict(program.constants)
    places: dict[Value, int] = {}
    calls: list[Call] = []
    for call in program.calls:
        index = places.get(call.args[0]) if _normalizes(call, constants) else None
        if index is not None and readers[call.args[0]] == 1:
            calls[index] = _folded(calls[index], call, constants)
            places[call.results[0]] = index  # type: ignore[index]  # it has one
            continue
        if name_of(call.function) in PRODUCTS and _is_constant(call.args[1:3], constants):
            places[call.results[0]] = len(calls)  # type: ignore[index]  # as above
        calls.append(call)
    return Program(program.inputs, program.weights, constants, calls, program.outputs).pruned()


def _is_constant(values: Any, constants: dict[Value, Tensor]) -> bool:
    return all(value is None or value in constants for value in values)


def _normalizes(call: Call, constants: dict[Value, Tensor]) -> bool:
    """Whether a call normalizes channels by constants: batch_norm in eval mode."""
    if name_of(call.function) != "batch_norm" or not is_torch(call) or len(call.args) != 9:
        return False
    _, weight, bias, mean, variance, training, *_ = call.args
    given = isinstance(mean, Value) and isinstance(variance, Value)
    return given and not training and _is_constant((weight, bias, mean, variance), constants)


def _folded(product: Call, norm: Call, constants: dict[Value, Tensor]) -> Call:
    """The product that computes what the normalization of it does."""
    x, weight, bias, *window = product.args
    _, scale, shift, mean, variance, _, _, epsilon, _ = norm.args

    def number(value: Value | None) -> Any:
        return 0.0 if value is None else constants[value].double()

    factor = (1.0 if scale is None else number(scale)) / torch.sqrt(number(variance) + epsilon)
    kernel = constants[weight]
    shape = (-1, *[1] * (kernel.ndim - 1))
    made = (
        (kernel.double() * factor.reshape(shape)).to(kernel.dtype),
        ((number(bias) - number(mean)) * factor + number(shift)).to(kernel.dtype),
    )
    values = [Value.of(tensor) for tensor in made]
    constants.update(zip(values, made, strict=True))
    return replace(product, args=(x, *values, *window), results=norm.results)

"""Recurrent layers of one step: torch's cells, which do not repack the weights in each call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from onnxinterp.programs.aliases import is_torch
from onnxinterp.programs.calls import Call, Program, Value
from onnxinterp.programs.functions import name_of

CELLS: dict[str, Callable[..., Any]] = {
    "lstm": torch.lstm_cell,
    "gru": torch.gru_cell,
    "rnn_tanh": torch.rnn_tanh_cell,
    "rnn_relu": torch.rnn_relu_cell,
}


def use_cells(program: Program) -> Program:
    """A program in which recurrent layers of one time step are cells."""
    calls: list[Call] = []
    for call in program.calls:
        calls += _cells(call) if _is_one_step(call) else [call]
    return replace(program, calls=calls)


def _is_one_step(call: Call) -> bool:
    """Whether a call runs one layer of one step: of [time, batch, features], with its states."""
    if name_of(call.function) not in CELLS or not is_torch(call) or len(call.args) != 9:
        return False
    x, _, _, _, n_layers, _, training, _, batch_first = call.args
    time_first = isinstance(x, Value) and len(x.shape) == 3 and x.shape[0] == 1
    return bool(time_first and n_layers == 1 and not training and not batch_first)


def _cells(call: Call) -> list[Call]:
    """The calls of the cells, one for each direction."""
    x, states, parameters, has_biases, *_ = call.args
    cell = CELLS[name_of(call.function)]
    states = list(states) if isinstance(states, (tuple, list)) else [states]
    n_directions = states[0].shape[0]
    each = len(parameters) // n_directions
    calls: list[Call] = []

    def add(function: Any, result: Value, *args: Any) -> Value:
        calls.append(Call(function, args, {}, [result], False, call.step))
        return result

    def like(value: Value, *shape: int) -> Value:
        return Value.dense(shape, value.dtype)

    batch, width = states[0].shape[1:]
    step = add(Tensor.select, like(x, *x.shape[1:]), x, 0, 0)
    after: list[list[Value]] = []
    for direction in range(n_directions):
        before = [add(Tensor.select, like(s, *s.shape[1:]), s, 0, direction) for s in states]
        weights = parameters[each * direction : each * (direction + 1)]
        biases = () if has_biases else (None, None)
        results = [like(s, batch, s.shape[2]) for s in states]
        given = tuple(before) if len(before) > 1 else before[0]
        args = (step, given, *weights, *biases)
        many = len(results) > 1
        calls.append(Call(cell, args, {}, list(results), many, call.step))
        after.append(results)
    output, *last = call.results
    hidden = [results[0] for results in after]
    joined = hidden[0]
    if n_directions > 1:
        joined = add(torch.cat, like(x, batch, width * n_directions), hidden, 1)
    if output is not None:
        add(Tensor.unsqueeze, output, joined, 0)
    for index, state in enumerate(last):
        if state is not None:
            add(torch.stack, state, [results[index] for results in after], 0)
    return calls

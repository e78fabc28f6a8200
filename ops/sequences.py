"""Sequences of tensors. A sequence is a Python list; no operator changes its input.

History: 11 (all), 17 (SequenceMap), 24 (SplitToSequence: bfloat16).
"""

from __future__ import annotations

from typing import Any

import onnx
import torch
from torch import Tensor

from onnxinterp.dtypes import onnx_name
from onnxinterp.ops.joining import concat
from onnxinterp.registry import op, sample
from onnxinterp.runtime.costs import TENSOR_OBJECT
from onnxinterp.runtime.guard import reserve
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag, Host, Scalar, Subgraph


def _elements(sequence: list[Tensor]) -> list[Tensor]:
    """The sequence as a list.

    Raises:
        TypeError: it is not a list, e.g. a tensor from an If: Python would iterate over its rows.
    """
    if not isinstance(sequence, list):
        raise TypeError(f"the input must be a sequence, got a {type(sequence).__name__}")
    return sequence


@op("SequenceConstruct", since=11, any_type=True)
def sequence_construct(*inputs: Tensor) -> list[Tensor]:
    return list(inputs)


@op("SequenceEmpty", since=11, any_type=True)
def sequence_empty(*, dtype: torch.dtype | None = None) -> list[Tensor]:
    """An empty list has no type here: each inserted tensor has its own."""
    del dtype
    return []


@op("SequenceAt", since=11, any_type=True)
def sequence_at(input_sequence: list[Tensor], position: Scalar) -> Tensor:
    return _elements(input_sequence)[int(position)]


@op("SequenceInsert", since=11, any_type=True)
def sequence_insert(
    input_sequence: list[Tensor], tensor: Tensor, position: Scalar | None = None
) -> list[Tensor]:
    """Insert before `position`, from the end if it is negative; at the end if it is absent."""
    n = len(_elements(input_sequence))
    at = n if position is None else int(position)
    if not -n <= at <= n:
        raise IndexError(f"position must be {-n} to {n}, got {at}")
    at %= n + 1 if at >= 0 else n
    return [*input_sequence[:at], tensor, *input_sequence[at:]]


@op("SequenceErase", since=11, any_type=True)
def sequence_erase(input_sequence: list[Tensor], position: Scalar | None = None) -> list[Tensor]:
    rest = list(_elements(input_sequence))
    rest.pop(-1 if position is None else int(position))
    return rest


@op("SequenceLength", since=11, any_type=True)
def sequence_length(input_sequence: list[Tensor]) -> Host:
    return Host(len(_elements(input_sequence)))


@op("ConcatFromSequence", since=11)
def concat_from_sequence(input_sequence: list[Tensor], *, axis: int, new_axis: Flag = 0) -> Tensor:
    if new_axis:
        return torch.stack(input_sequence, axis)
    return concat(*input_sequence, axis=axis)


@op("SplitToSequence", since=11)
def split_to_sequence(
    input: Tensor, split: Host | None = None, *, axis: int = 0, keepdims: Flag = 1
) -> list[Tensor]:
    """Split into single slices if `split` is absent; only these may lose the axis."""
    if split is None and not keepdims:
        return list(input.unbind(axis))
    parts = 1 if split is None else split.data
    return list(torch.split(input, parts, axis))


@op("SequenceMap", since=17, any_type=True)
def sequence_map(
    input_sequence: list[Tensor], *additional_inputs: Any, body: Subgraph, device: torch.device
) -> tuple[list[Tensor], ...]:
    """The body gets one element of each sequence at a time, and whole tensors."""
    rows = []
    for i, element in enumerate(_elements(input_sequence)):
        others = [x[i] if isinstance(x, list) else x for x in additional_inputs]
        results = body(element, *others)
        rows.append([r.tensor(device) if isinstance(r, Host) else r for r in results])
        reserve(TENSOR_OBJECT * len(rows) * len(results))
    if not rows:
        return tuple([] for _ in body.output_types)
    return tuple(list(column) for column in zip(*rows, strict=True))


def _sequence(d: Draw, type: str = "S", min_dims: int = 0) -> list[Any]:
    shape = d.shape(min_dims)
    return [d.tensor(shape, type) for _ in range(d.integer(1, 3))]


@sample(sequence_construct)
def _(d: Draw) -> Call:
    return call(*_sequence(d, "T"))


@sample(sequence_empty)
def _(d: Draw) -> Call:
    return call(dtype=d.maybe(d.elem_type("S")))


@sample(sequence_at)
def _(d: Draw) -> Call:
    sequence = _sequence(d)
    return call(sequence, d.axis(len(sequence)))


@sample(sequence_insert)
def _(d: Draw) -> Call:
    sequence = _sequence(d)
    position = d.maybe(d.integer(-len(sequence), len(sequence)))
    return call(sequence, d.tensor(d.shape(), "S"), position)


@sample(sequence_erase)
def _(d: Draw) -> Call:
    sequence = _sequence(d)
    return call(sequence, d.maybe(d.axis(len(sequence))))


@sample(sequence_length)
def _(d: Draw) -> Call:
    return call(_sequence(d))


@sample(concat_from_sequence)
def _(d: Draw) -> Call:
    sequence, new_axis = _sequence(d, min_dims=1), d.boolean()
    axis = d.axis(sequence[0].ndim + new_axis)
    return call(sequence, axis=axis, new_axis=1 if new_axis else d.maybe(0))


@sample(split_to_sequence)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=1))
    axis = d.axis(x.ndim)
    side = x.shape[axis]
    cut = d.integer(0, side)
    split = d.choice([None, d.integer(1, side), [cut, side - cut]])
    keepdims = d.maybe(d.integer(0, 1)) if split is None else None
    return call(x, split, axis=axis, keepdims=keepdims)


MAP_BODY = "body (T[] x, T[] y) => (T[] z, T[] same) { z = RULE (x, y) same = Identity (y) }"


@sample(sequence_map)
def _(d: Draw) -> Call:
    sequence, elem_type = _sequence(d), d.elem_type("S")
    shape = sequence[0].shape
    other = d.tensor(shape, "S") if d.boolean() else [d.tensor(shape, "S") for _ in sequence]
    floating = isinstance(sequence[0], Tensor) and sequence[0].is_floating_point()
    text = MAP_BODY.replace("T[", f"{onnx_name(elem_type)}[")
    if floating and sequence[0].dtype is torch.float64:  # if a test sets it
        text = MAP_BODY.replace("T[", "double[")
    text = text.replace("RULE (x, y)", "Sub (x, y)" if floating else "Identity (x)")
    return call(sequence, other, body=onnx.parser.parse_graph(text), outputs=2)

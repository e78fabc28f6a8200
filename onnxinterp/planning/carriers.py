"""Emulates element types that torch stores but cannot compute with, for all kernels at once.

A kernel is written for the types that torch can compute with. Where planning knows that an input
has another type, the kernel gets a carrier instead:

    string          positions in a sorted table of the strings of the call, so that the kernel can
                    move, compare and sort them; "" is 0, which also fills and pads
    uint16, uint32  int64; the result is wrapped to the type
    uint64          int64 with the same bits, for kernels that declare `uint64="bits"`, or with the
                    highest bit flipped, which keeps the order, for `uint64="order"`
    8-bit floats    their bytes: operators that admit them only move them

Kernels that declare `any_type`, and kernels of operators without schema, get values as they are.
Types come from `graph.types`: a value of unknown type reaches the kernel as it is, and torch raises
an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from onnxinterp.dtypes import CARRIER, FLOAT8
from onnxinterp.kinds import Kind
from onnxinterp.registry import Kernel
from onnxinterp.runtime.guard import chunks, reserve
from onnxinterp.runtime.strings import map_to_int64
from onnxinterp.schemas import schema_of
from onnxinterp.values import array_of

UNSIGNED = {torch.uint16, torch.uint32, torch.uint64}
CARRIED_BY_BITS = frozenset({torch.uint64, *FLOAT8})
HIGHEST_BIT = -(2**63)
BYTES_PER_STRING = 100  # of the tables that map strings to positions
COMPUTED = (Kind.TENSOR, Kind.OPERAND, Kind.ANY)  # kinds of inputs that are not read into numbers


def emulate(
    kernel: Kernel,
    attributes: Mapping[str, Any],
    kinds: Sequence[Kind],
    inputs: Sequence[int],
    outputs: Sequence[int],
) -> Callable[..., Any]:
    """The kernel's function, for inputs of these ONNX types."""
    schema = schema_of(kernel.op_type, kernel.since, kernel.domain)
    if kernel.any_type or schema is None:  # the output types of a user's kernel are unknown
        return kernel.function
    seen = [t for t, k in zip(inputs, kinds, strict=True) if k in COMPUTED]
    reduction = attributes.get("reduction", "none")
    if TensorProto.STRING in seen:
        if not kernel.strings or reduction != "none":
            return _no_strings(kernel)
        return _over_positions(kernel.function, [t == TensorProto.STRING for t in outputs])
    dtypes = [CARRIER.get(t) for t in outputs]
    if any(CARRIER.get(t) in UNSIGNED for t in seen):
        uint64 = "order" if reduction in ("max", "min") else kernel.uint64
        return _over_int64(kernel.function, dtypes, uint64)
    if any(CARRIER.get(t) in FLOAT8 for t in seen):
        return _over_bytes(kernel.function, dtypes)
    return kernel.function


def _no_strings(kernel: Kernel) -> Callable[..., Any]:
    def call(*_args: Any, **_attributes: Any) -> Any:
        raise TypeError(f"the inputs of {kernel.op_type} must be numbers, got strings")

    return call


def _over_positions(function: Callable[..., Any], are_strings: list[bool]) -> Callable[..., Any]:
    """A function of tensors, for arrays of strings."""

    def call(*args: Any, **attributes: Any) -> Any:
        arrays: list[np.ndarray[Any, Any]] = []
        device = None
        for value in _flat(args):
            if isinstance(value, np.ndarray):
                arrays.append(value)
            elif isinstance(value, Tensor):
                device = device or value.device
        table, numbered = _numbered(arrays)
        found = iter([torch.from_numpy(p).to(device) for p in numbered])
        tensors = _each(args, lambda a: next(found) if isinstance(a, np.ndarray) else a)
        result = function(*tensors, **attributes)

        def strings(positions: Any, are_strings: bool) -> Any:
            if not are_strings:
                return positions
            reserve(8 * positions.numel())
            out = np.empty(positions.shape, dtype=object)
            out[...] = table[array_of(positions)]
            return out

        return _map_outputs(result, are_strings, strings)

    return call


def _numbered(
    arrays: Sequence[np.ndarray[Any, Any]],
) -> tuple[np.ndarray[Any, Any], list[np.ndarray[Any, Any]]]:
    """All strings of some arrays, and "", in ascending order; the arrays as positions therein."""
    different = {""}
    flat = [a.reshape(-1) for a in arrays]
    for strings in flat:
        for part in chunks(len(strings)):
            different.update(strings[part])
    reserve(BYTES_PER_STRING * len(different) + 8 * sum(map(len, flat)))
    table = sorted(different)
    positions = {string: position for position, string in enumerate(table)}
    numbered = [map_to_int64(strings, positions.__getitem__) for strings in flat]
    shaped = [n.reshape(a.shape) for n, a in zip(numbered, arrays, strict=True)]
    return np.array(table, dtype=object), shaped


def _over_int64(
    function: Callable[..., Any], dtypes: list[torch.dtype | None], uint64: str | None
) -> Callable[..., Any]:
    """A function of tensors, for unsigned integers."""

    def turn(bits: Tensor) -> Tensor:
        return bits ^ HIGHEST_BIT if uint64 == "order" else bits

    def widen(x: Any) -> Any:
        if not isinstance(x, Tensor) or x.dtype not in UNSIGNED:
            return x
        if x.dtype is not torch.uint64:
            return x.to(torch.int64)
        return x if uint64 is None else turn(x.view(torch.int64))

    def narrow(x: Any, dtype: torch.dtype | None) -> Any:
        if dtype not in UNSIGNED or not isinstance(x, Tensor) or x.dtype is dtype:
            return x
        return x.to(dtype) if dtype is not torch.uint64 else turn(x).view(dtype)

    def call(*args: Any, **attributes: Any) -> Any:
        return _map_outputs(function(*_each(args, widen), **attributes), dtypes, narrow)

    return call


def _over_bytes(
    function: Callable[..., Any], dtypes: list[torch.dtype | None]
) -> Callable[..., Any]:
    """A function that moves the elements of tensors, for 8-bit floats."""

    def to_bytes(x: Any) -> Any:
        return x.view(torch.uint8) if isinstance(x, Tensor) and x.dtype in FLOAT8 else x

    def from_bytes(x: Any, dtype: torch.dtype | None) -> Any:
        return x.view(dtype) if dtype in FLOAT8 else x

    def call(*args: Any, **attributes: Any) -> Any:
        return _map_outputs(function(*_each(args, to_bytes), **attributes), dtypes, from_bytes)

    return call


def _flat(values: Any) -> Iterator[Any]:
    """The values in a nest of lists and tuples."""
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _flat(value)
        else:
            yield value


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    """A value with all its parts changed; lists and tuples stay lists and tuples."""
    if isinstance(value, (list, tuple)):
        return type(value)(_each(v, change) for v in value)
    return change(value)


def _map_outputs(result: Any, types: Sequence[Any], change: Callable[[Any, Any], Any]) -> Any:
    """Change the result of a kernel, one value or a tuple of them, each with its type."""
    if not isinstance(result, tuple):
        return _each(result, lambda r: change(r, types[0]))
    return tuple(_map_outputs(r, [t], change) for r, t in zip(result, types, strict=False))

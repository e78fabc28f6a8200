"""Element types that torch stores but cannot compute with, for all kernels at once.

A kernel is written for what torch can compute. Where planning knows that other types come in, it
puts one of these around the kernel:

    string          positions in a sorted table of the call's strings, so that moving, comparing and
                    sorting mean what they mean for strings; "" is 0, which fills and pads
    uint16, uint32  int64, wrapped on the way back
    uint64          its bits as int64, for kernels that declare that these do (`uint64="bits"`), or
                    with the highest bit turned, which keeps the order (`uint64="order"`)
    8-bit floats    their bytes: what admits them moves them, and no more

Kernels that know every type by themselves say so (`any_type`), and kernels of operators that are
not ONNX's get every value as it is. Types are those that the schemas
tell: a value whose type they leave open reaches the kernel as it is, and torch refuses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from onnxinterp.dtypes import CARRIER, FLOAT8
from onnxinterp.registry import Kernel, Kind, schema_of
from onnxinterp.runtime.guard import portions, reserve
from onnxinterp.runtime.strings import numbers_of
from onnxinterp.values import array_of

UNSIGNED = {torch.uint16, torch.uint32, torch.uint64}
CARRIED_BY_BITS = frozenset({torch.uint64, *FLOAT8})
HIGHEST_BIT = -(2**63)
PLACE_OF_STRING = 100  # bytes, of the tables that give texts their numbers
COMPUTED = (Kind.TENSOR, Kind.OPERAND, Kind.ANY)  # inputs that reach the kernel as they flow


def emulate(
    kernel: Kernel,
    attributes: Mapping[str, Any],
    kinds: Sequence[Kind],
    inputs: Sequence[int],
    outputs: Sequence[int],
) -> Callable[..., Any]:
    """The kernel's function, for inputs of these ONNX types."""
    schema = schema_of(kernel.op_type, kernel.since, kernel.domain)
    if kernel.any_type or schema is None:  # nothing tells what a kernel of one's own gives
        return kernel.function
    seen = [t for t, k in zip(inputs, kinds, strict=True) if k in COMPUTED]
    reduction = attributes.get("reduction", "none")
    if TensorProto.STRING in seen:
        if not kernel.strings or reduction != "none":
            return _refused(kernel)
        return _over_positions(kernel.function, [t == TensorProto.STRING for t in outputs])
    dtypes = [CARRIER.get(t) for t in outputs]
    if any(CARRIER.get(t) in UNSIGNED for t in seen):
        uint64 = "order" if reduction in ("max", "min") else kernel.uint64
        return _over_int64(kernel.function, dtypes, uint64)
    if any(CARRIER.get(t) in FLOAT8 for t in seen):
        return _over_bytes(kernel.function, dtypes)
    return kernel.function


def _refused(kernel: Kernel) -> Callable[..., Any]:
    def call(*_args: Any, **_attributes: Any) -> Any:
        raise TypeError(f"{kernel.op_type} computes with its inputs: they cannot be strings")

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
    """All texts of some arrays in ascending order, the empty one among them; their places in it."""
    different = {""}
    flat = [a.reshape(-1) for a in arrays]
    for texts in flat:
        for part in portions(len(texts)):
            different.update(texts[part])
    reserve(PLACE_OF_STRING * len(different) + 8 * sum(map(len, flat)))
    table = sorted(different)
    places = {text: place for place, text in enumerate(table)}
    numbered = [numbers_of(texts, places.__getitem__) for texts in flat]
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
    """A value with all that it holds changed; lists and tuples keep their form."""
    if isinstance(value, (list, tuple)):
        return type(value)(_each(v, change) for v in value)
    return change(value)


def _map_outputs(result: Any, told: Sequence[Any], change: Callable[[Any, Any], Any]) -> Any:
    """Change what a kernel gives, be it one value or a tuple of them."""
    if not isinstance(result, tuple):
        return _each(result, lambda r: change(r, told[0]))
    return tuple(_map_outputs(r, [t], change) for r, t in zip(result, told, strict=False))

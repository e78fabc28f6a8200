"""Element types that torch stores but cannot compute with, for all kernels at once.

A kernel is written for what torch can compute. Where planning knows that other types come in, it
puts one of these around the kernel:

    string          positions in a sorted table of the call's strings, so that moving, comparing and
                    sorting mean what they mean for strings; "" is 0, which fills and pads
    uint16, uint32  int64, wrapped on the way back
    uint64          its bits as int64, for kernels that declare that these do (`uint64="bits"`), or
                    with the highest bit turned, which keeps the order (`uint64="order"`)

Kernels that know every type by themselves say so (`any_type`). Types are those that the schemas
tell: a value whose type they leave open reaches the kernel as it is, and torch refuses it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import onnx.defs
import torch
from onnx import TensorProto
from torch import Tensor

from onnxinterp.dtypes import CARRIER, NATIVE, onnx_name
from onnxinterp.graph import Node
from onnxinterp.registry import Kernel, Kind

UNSIGNED = {torch.uint16, torch.uint32, torch.uint64}
HIGHEST_BIT = -(2**63)
TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")  # they name the type of an output
ELEMENT = {f"tensor({onnx_name(t)})": t for t in TensorProto.DataType.values()}
ONNX_TYPE = {CARRIER[t]: t for t in NATIVE}


def type_of(value: Any) -> int:
    """The ONNX type of a constant; 0 where its carrier does not tell."""
    if isinstance(value, np.ndarray):
        return TensorProto.STRING
    return ONNX_TYPE.get(value.dtype, 0)


def output_types(node: Node, inputs: Sequence[int]) -> tuple[int, ...]:
    """The ONNX types of a node's outputs, as far as its schema tells; 0 for the others."""
    schema = _schema(node.op_type, node.opset, node.domain)
    if schema is None or not schema.outputs:
        return (0,) * len(node.outputs)
    bound: dict[str, int] = {}
    for index, elem_type in enumerate(inputs):
        formal = schema.inputs[min(index, len(schema.inputs) - 1)]
        if elem_type and formal.is_homogeneous:
            bound.setdefault(formal.type_str, elem_type)
    told = next((node.attributes[a] for a in TYPE_ATTRIBUTES if node.attributes.get(a)), 0)
    formals = [schema.outputs[min(i, len(schema.outputs) - 1)] for i in range(len(node.outputs))]
    return tuple(
        0
        if not formal.is_homogeneous
        else bound.get(formal.type_str)
        or ELEMENT.get(formal.type_str, 0)
        or (told if isinstance(told, int) else 0)
        for formal in formals
    )


@lru_cache(maxsize=1024)
def _schema(op_type: str, opset: int, domain: str) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op_type, max_inclusive_version=opset, domain=domain)
    except onnx.defs.SchemaError:
        return None


def carried(
    kernel: Kernel,
    attributes: Mapping[str, Any],
    kinds: Sequence[Kind],
    inputs: Sequence[int],
    outputs: Sequence[int],
) -> Callable[..., Any]:
    """The kernel's function, for inputs of these ONNX types."""
    tensors = [t for t, k in zip(inputs, kinds, strict=True) if k in (Kind.TENSOR, Kind.OPERAND)]
    if kernel.any_type:
        return kernel.function
    if TensorProto.STRING in tensors and attributes.get("reduction", "none") == "none":
        return _over_positions(kernel.function, [t == TensorProto.STRING for t in outputs])
    if any(CARRIER.get(t) in UNSIGNED for t in tensors):
        return _over_int64(kernel.function, [CARRIER.get(t) for t in outputs], kernel.uint64)
    return kernel.function


def _over_positions(function: Callable[..., Any], are_strings: list[bool]) -> Callable[..., Any]:
    """A function of tensors, for arrays of strings."""

    def call(*args: Any, **attributes: Any) -> Any:
        device = next((a.device for a in args if isinstance(a, Tensor)), None)
        arrays = [a for a in args if isinstance(a, np.ndarray)]
        flat = [np.array([""], dtype=object), *(a.reshape(-1) for a in arrays)]
        table, positions = np.unique(np.concatenate(flat), return_inverse=True)
        pieces = torch.split(torch.from_numpy(positions[1:]).to(device), [a.size for a in arrays])
        tensors = [p.reshape(a.shape) for p, a in zip(pieces, arrays, strict=True)]
        found = iter(tensors)
        result = function(
            *[next(found) if isinstance(a, np.ndarray) else a for a in args], **attributes
        )

        def looked_up(found: Any, is_string: bool) -> Any:
            return np.asarray(table[found.numpy(force=True)], object) if is_string else found

        return _each(result, are_strings, looked_up)

    return call


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
        return _each(function(*map(widen, args), **attributes), dtypes, narrow)

    return call


def _each(result: Any, told: Sequence[Any], change: Callable[[Any, Any], Any]) -> Any:
    """Change what a kernel gives, be it one value or a tuple of them."""
    if not isinstance(result, tuple):
        return change(result, told[0])
    return tuple(change(r, t) for r, t in zip(result, told, strict=False))

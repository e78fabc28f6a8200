"""Tensors made of numbers in the file or of a shape: Constant, ConstantOfShape, EyeLike.

History: Constant 1, 9 (types), 11 (sparse_value), 12 (numbers and strings), 13-25 (types).
ConstantOfShape 9, 20-25 (types). EyeLike 9, 22 (bfloat16).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from onnxinterp.ops.shapes import MOST_DIMENSIONS
from onnxinterp.registry import host, op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import HOST_DTYPES, Host, Ints, is_known
from onnxinterp.versions import older


@op("Constant", since=12, initializer=True)
def constant(
    *,
    value: Tensor | None = None,
    sparse_value: Tensor | None = None,
    value_int: int | None = None,
    value_ints: Ints | None = None,
    value_float: float | None = None,
    value_floats: list[float] | None = None,
    value_string: str | None = None,
    value_strings: list[str] | None = None,
) -> Tensor | np.ndarray[Any, Any]:
    """Exactly one attribute is set; strings are returned as numpy object arrays."""
    given = (
        value,
        sparse_value,
        _tensor_of(value_int, torch.int64),
        _tensor_of(value_ints, torch.int64),
        _tensor_of(value_float, torch.float32),
        _tensor_of(value_floats, torch.float32),
        _strings(value_string),
        _strings(value_strings),
    )
    (only,) = (v for v in given if v is not None)
    return only


NUMBERS_AND_STRINGS = [f"value_{t}{s}" for t in ("int", "float", "string") for s in ("", "s")]
constant_11 = older(constant, since=11, without=NUMBERS_AND_STRINGS)


@op("Constant", since=1, initializer=True)
def constant_1(*, value: Tensor) -> Tensor:
    return value


def _tensor_of(data: Any, dtype: torch.dtype) -> Tensor | None:
    return None if data is None else torch.tensor(data, dtype=dtype)


def _strings(data: str | list[str] | None) -> np.ndarray[Any, Any] | None:
    return None if data is None else np.array(data, dtype=object)


def _value_type(attributes: dict[str, Any], _inputs: Sequence[int]) -> int:
    value = attributes.get("value")
    return int(value.data_type) if isinstance(value, TensorProto) else int(TensorProto.FLOAT)


@op("ConstantOfShape", since=9, infer_output_type=_value_type)
def constant_of_shape(
    input: Ints, *, value: Host | None = None, output_type: torch.dtype, device: torch.device
) -> Tensor:
    """An expanded view of one element: it needs no memory, and must not be written to."""
    value = value or Host([0.0], output_type)
    (number,) = value.numbers
    if any(is_known(n) and n < 0 for n in input):  # torch keeps a size for -1
        raise ValueError(f"sizes must not be negative, got {input}")
    return torch.full((), number, dtype=value.dtype, device=device).expand(input)


@host(constant_of_shape)
def _(input: Ints, *, value: Host | None = None, output_type: torch.dtype) -> Any:
    value = value or Host([0.0], output_type)
    if len(value.numbers) != 1:
        return NotImplemented
    sizes = all(is_known(n) and n >= 0 for n in input)
    if not sizes or math.prod(input) > MOST_DIMENSIONS or value.dtype not in HOST_DTYPES:
        return NotImplemented
    if len(input) > 1 and value.dtype.is_floating_point:
        return NotImplemented  # the state of a recurrent layer, say
    return Host(value.numbers * math.prod(input), value.dtype, tuple(input))


@op("EyeLike", since=9, any_type=True)
def eye_like(input: Tensor, *, dtype: torch.dtype | None = None, k: int = 0) -> Tensor:
    """1 on the k-th diagonal, 0 elsewhere."""
    rows, columns = (torch.arange(n, device=input.device) for n in input.shape)
    ones = columns == rows[:, None] + k
    return ones.to(input.dtype if dtype is None else dtype)


@sample(constant_of_shape)
def _(d: Draw) -> Call:
    value = d.maybe(d.tensor((1,), "T2"))
    return call(list(d.shape()), value=value)


@sample(eye_like)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=2, max_dims=2), "T1")
    return call(x, dtype=d.maybe(d.elem_type("T2")), k=d.maybe(d.integer(-3, 3)))

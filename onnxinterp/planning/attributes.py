"""An attribute as a kernel's signature asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from onnx import TensorProto
from torch import Tensor

from onnxinterp.dtypes import CARRIER, onnx_name
from onnxinterp.errors import InvalidModelError
from onnxinterp.format.tensor_reader import TensorReader
from onnxinterp.registry import Kernel
from onnxinterp.values import Host


def decode(
    kernel: Kernel,
    name: str,
    value: Any,
    dtypes: Mapping[torch.dtype, torch.dtype],
    device: torch.device,
) -> Any:
    """An attribute as the kernel's signature asks for it: ONNX type numbers as torch dtypes.

    Args:
        kernel: whose attribute it is.
        name: of the attribute.
        value: what the file has.
        dtypes: what floating types have become since loading.
        device: where tensors go.

    Raises:
        InvalidModelError: it is none of the values that the signature lists, or no such type.
    """
    if (choices := kernel.choices(name)) and value not in choices:
        message = f"{kernel.op_type}: {name} is {value!r}, not one of {sorted(choices)}"
        raise InvalidModelError(message)
    if kernel.wants_dtype(name) and isinstance(value, int):
        if value == TensorProto.UNDEFINED and kernel.may_be_none(name):
            return None
        if value == TensorProto.STRING:
            return str
        if value not in CARRIER:
            raise InvalidModelError(f"{kernel.op_type}: {name} is {onnx_name(value)}")
        return dtypes.get(CARRIER[value], CARRIER[value])
    if isinstance(value, TensorProto) and kernel.wants_host(name):
        tensor = TensorReader(None)(value)
        if not isinstance(tensor, Tensor) or tensor.ndim > 1:
            raise InvalidModelError(f"{kernel.op_type}: {name} is a number or a list of numbers")
        return Host(tensor.tolist()).cast(dtypes.get(tensor.dtype, tensor.dtype))
    if isinstance(value, list) and kernel.wants_tensor(name):
        dtype = torch.float32 if any(isinstance(v, float) for v in value) else torch.int64
        return torch.tensor(value, dtype=dtype, device=device)
    return value


def placed(value: Any, device: torch.device) -> Any:
    """The same with its tensors, alone or in tuples, on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if not isinstance(value, tuple):
        return value
    items = [placed(v, device) for v in value]
    return type(value)(*items) if hasattr(value, "_fields") else tuple(items)

"""Reading the tensors that a graph uses."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from onnxinterp.errors import InvalidModelError, UnsafeModelError
from onnxinterp.format.tensor_reader import TensorReader
from onnxinterp.graph.ir import Graph, Holder, Model
from onnxinterp.limits import REPEATED


def read_tensors(
    model: Model, graph: Graph, reader: TensorReader
) -> tuple[dict[str, Tensor], dict[str, np.ndarray[Any, Any]]]:
    """The tensors the graph uses, and apart from them the arrays of strings.

    Raises:
        InvalidModelError: the data of one does not fit.
        UnsafeModelError: what `ties` made weights of their own is too large for so many copies.
    """
    most = reader.limits.weight_bytes
    left = REPEATED if most is None else most
    used = set(graph.captures).union(i.name for i in graph.inputs)
    tensors: dict[str, Tensor] = {}
    strings: dict[str, np.ndarray[Any, Any]] = {}
    seen: set[int] = set()
    for name, stored in model.tensors.items():
        if name not in used:
            continue
        value = _read_tensor(stored, reader)
        if isinstance(value, Tensor):  # untied weights do not share the memory of a mapped file
            if id(stored) in seen:
                left -= value.nbytes
                if left < 0:
                    raise UnsafeModelError(f"tensor {name!r} is too large for as many copies of it")
                value = value.clone()
            tensors[name] = value
            seen.add(id(stored))
        else:
            strings[name] = value
    return tensors, strings


def _read_tensor(stored: Holder, reader: TensorReader) -> Tensor | np.ndarray[Any, Any]:
    if isinstance(stored, onnx.TensorProto):
        return reader(stored)
    if isinstance(stored, onnx.SparseTensorProto):
        return reader.sparse(stored)
    if isinstance(stored, onnx.AttributeProto):
        return torch.tensor(stored.floats, dtype=torch.float32)
    assert stored.kernel is not None, "a node becomes a weight only by its kernel's declaration"
    protos = (onnx.TensorProto, onnx.SparseTensorProto)
    attributes = {
        k: _read_tensor(v, reader) if isinstance(v, protos) else v
        for k, v in stored.attributes.items()
    }
    try:
        value: Tensor | np.ndarray[Any, Any] = stored.kernel.function(**attributes)
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        what = f"node {stored.name!r} ({stored.op_type})"
        raise InvalidModelError(f"{what}: {error}") from error
    return value


def elem_type(stored: Holder) -> int:
    """The ONNX type of a weight; 0 where a node holds it as something else than a tensor."""
    if isinstance(stored, onnx.TensorProto):
        return stored.data_type
    if isinstance(stored, onnx.SparseTensorProto):
        return stored.values.data_type
    if isinstance(stored, onnx.AttributeProto):
        return onnx.TensorProto.FLOAT
    value = stored.attributes.get("value")
    return value.data_type if isinstance(value, onnx.TensorProto) else 0

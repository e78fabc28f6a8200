"""Reading the weights that a graph uses: tensors, and nodes or attributes that contain one."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from onnxinterp.errors import InvalidModelError, UnsafeModelError
from onnxinterp.format.tensor_reader import TensorReader
from onnxinterp.graph.ir import Graph, Holder, Model, Node
from onnxinterp.limits import REPEATED

PROTOS = (onnx.TensorProto, onnx.SparseTensorProto)


def read_tensors(
    model: Model, graph: Graph, reader: TensorReader
) -> tuple[dict[str, Tensor], dict[str, np.ndarray[Any, Any]]]:
    """The tensors that the graph uses, and separately the arrays of strings.

    Raises:
        InvalidModelError: the data of a tensor does not fit its shape and type.
        UnsafeModelError: the copies that untied weights need are too large.
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
        value = read_tensor(stored, reader)
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


def read_tensor(stored: Holder, reader: TensorReader) -> Tensor | np.ndarray[Any, Any]:
    """One weight; strings are an array.

    Raises:
        InvalidModelError: the data does not fit shape and type, or a node cannot be evaluated.
    """
    if isinstance(stored, onnx.TensorProto):
        return reader(stored)
    if isinstance(stored, onnx.SparseTensorProto):
        return reader.sparse(stored)
    if isinstance(stored, onnx.AttributeProto):
        return torch.tensor(stored.floats, dtype=torch.float32)
    assert stored.kernel is not None, "a node becomes a weight only by its kernel's declaration"
    attributes = {
        k: read_tensor(v, reader) if isinstance(v, PROTOS) else v
        for k, v in stored.attributes.items()
    }
    try:
        value: Tensor | np.ndarray[Any, Any] = stored.kernel.function(**attributes)
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        what = f"node {stored.name!r} ({stored.op_type})"
        raise InvalidModelError(f"{what}: {error}") from error
    return value


def own_tensors(model: Model, reader: TensorReader) -> set[str]:
    """The tensors that were read to memory of their own, which nothing else uses."""
    return {
        name
        for name, stored in model.tensors.items()
        if isinstance(stored, onnx.TensorProto) and reader.is_own(stored)
    }


def header(stored: Holder) -> tuple[int, tuple[int, ...]]:
    """The ONNX type and the shape of a weight, without its data; a sparse one counts as dense.

    The type is 0 where a node has it as numbers or strings, not as a tensor.
    """
    if isinstance(stored, Node):
        held = (v for v in stored.attributes.values() if isinstance(v, PROTOS))
        tensor = next(held, None)
        return (0, ()) if tensor is None else header(tensor)
    if isinstance(stored, onnx.AttributeProto):
        return onnx.TensorProto.FLOAT, (len(stored.floats),)
    sparse = isinstance(stored, onnx.SparseTensorProto)
    return (stored.values if sparse else stored).data_type, tuple(stored.dims)

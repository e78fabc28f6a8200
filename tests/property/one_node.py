"""A call of one operator as a model of one node, with the inputs to feed it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.defs import OpSchema
from torch import Tensor

from onnxinterp.dtypes import CARRIER
from onnxinterp.registry import Kind
from onnxinterp.sampling import Call
from tests.property.served import kernel_of

NUMBERS = (Kind.LIST, Kind.SCALAR, Kind.HOST)
ONNX_TYPE = {dtype: number for number, dtype in reversed(CARRIER.items())}


@dataclass
class OneNode:
    """The model, what to feed, and what it is made of."""

    model: onnx.ModelProto
    feeds: dict[str, Any]
    call: Call

    def torch_feeds(self, device: str = "cpu") -> dict[str, Any]:
        """The feeds as the module takes them."""
        return {name: to_torch(value, device) for name, value in self.feeds.items()}


def to_torch(value: Any, device: str = "cpu") -> Any:
    if isinstance(value, list):
        return [to_torch(v, device) for v in value]
    if isinstance(value, np.ndarray) and value.dtype != object:
        return torch.from_numpy(value.copy()).to(device)
    return value


def to_numpy(value: Any) -> Any:
    """What a module gives, as onnxruntime gives it."""
    if isinstance(value, (list, tuple)):
        return [to_numpy(v) for v in value]
    return value.detach().numpy() if isinstance(value, Tensor) else value


def as_array(value: Any, like: torch.dtype = torch.float32) -> Any:
    """An input of a call as numpy: plain numbers become int64 or float32."""
    if isinstance(value, Tensor):
        return value.numpy()
    if isinstance(value, list) and any(isinstance(v, Tensor) for v in value):
        return [as_array(v) for v in value]
    if isinstance(value, (np.ndarray, dict)):
        return value
    flat = value if isinstance(value, list) else [value]
    floating = any(isinstance(v, float) for v in flat)
    return np.array(value, dtype=np.float32 if floating else np.int64)


def _attribute(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return ONNX_TYPE[value]
    if isinstance(value, (Tensor, np.ndarray)):
        return numpy_helper.from_array(np.asarray(value))
    return value


def _info(name: str, value: Any) -> onnx.ValueInfoProto:
    if isinstance(value, dict):
        return helper.make_value_info(name, _map_type(value))
    if isinstance(value, list):
        element = helper.np_dtype_to_tensor_dtype(value[0].dtype) if value else TensorProto.FLOAT
        return helper.make_tensor_sequence_value_info(name, element, None)
    if value.dtype == object:
        return helper.make_tensor_value_info(name, TensorProto.STRING, value.shape)
    return helper.make_tensor_value_info(
        name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
    )


MAP_TYPES = {str: TensorProto.STRING, int: TensorProto.INT64, float: TensorProto.FLOAT}


def _map_type(value: dict[Any, Any]) -> onnx.TypeProto:
    key, held = next(iter(value.items()))
    element = helper.make_tensor_type_proto(MAP_TYPES[type(held)], ())
    return helper.make_map_type_proto(MAP_TYPES[type(key)], element)


def one_node(schema: OpSchema, call: Call, constants: str = "none") -> OneNode:
    """Build it.

    Args:
        schema: operator and version.
        call: what a sample drew.
        constants: which inputs are initializers: "none", "settings" (those the kernel takes as
            plain numbers) or "all" (sequences and maps stay inputs).
    """
    kernel = kernel_of(schema)
    names, feeds, initializers = [], {}, []
    for index, value in enumerate(call.inputs):
        names.append("" if value is None else f"x{index}")
        if value is None:
            continue
        array, parameter = as_array(value), kernel.parameter(index)
        setting = parameter is not None and kernel.kinds[parameter.name] in NUMBERS
        held = constants == "all" or (constants == "settings" and setting)
        if held and not isinstance(array, (list, dict)):
            initializers.append(numpy_helper.from_array(np.asarray(array), names[-1]))
        else:
            feeds[names[-1]] = array
    while names and not names[-1]:
        names.pop()
    outputs = [f"y{i}" for i in range(call.outputs)]
    attributes = {name: _attribute(value) for name, value in call.attrs.items()}
    node = helper.make_node(schema.name, names, outputs, domain=schema.domain, **attributes)
    infos = [_info(name, value) for name, value in feeds.items()]
    results = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph([node], "one", infos, results, initializers)
    imports = _imports(schema, call.attrs.values())
    return OneNode(helper.make_model(graph, opset_imports=imports, ir_version=8), feeds, call)


def _imports(schema: OpSchema, attributes: Any) -> Sequence[onnx.OperatorSetIdProto]:
    imports = [helper.make_opsetid(schema.domain, schema.since_version)]
    if schema.domain and any(isinstance(a, onnx.GraphProto) for a in attributes):
        imports.append(helper.make_opsetid("", 21))
    return imports

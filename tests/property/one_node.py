"""A call of one operator as a model of one node, with the inputs to feed it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.defs import OpSchema
from torch import Tensor

from onnxinterp import backend
from onnxinterp.dtypes import CARRIER, ONNX_TYPE
from onnxinterp.graph.ir import ValueInfo
from onnxinterp.kinds import Kind
from onnxinterp.testing.samples import Call
from onnxinterp.versions import sample_of
from tests.property.drawing import TypedDraw
from tests.property.served import kernel_of

NUMBERS = (Kind.LIST, Kind.SCALAR, Kind.HOST, Kind.LATE)


@dataclass
class OneNode:
    """The model, what to feed (numpy arrays, `ml_dtypes` among them), and what it is made of."""

    model: onnx.ModelProto
    feeds: dict[str, Any]
    call: Call
    types: dict[str, int]

    def initializers(self) -> dict[str, np.ndarray[Any, Any]]:
        """The initializers of the model."""
        return {t.name: numpy_helper.to_array(t) for t in self.model.graph.initializer}

    def torch_feeds(self, device: str = "cpu") -> dict[str, Any]:
        """The feeds as the module takes them."""
        return {name: backend.to_torch(value, device) for name, value in self.feeds.items()}


def as_array(value: Any, elem_types: Sequence[int] = ()) -> Any:
    """An input of a call as numpy: plain numbers become int64 or float32.

    Args:
        value: what a sample gave.
        elem_types: ONNX types, the likeliest first; a tensor has the first one that its dtype
            carries, else the one that its dtype is the carrier of.
    """
    if isinstance(value, Tensor):
        fitting = [t for t in elem_types if CARRIER.get(t) is value.dtype]
        elem_type = fitting[0] if fitting else ONNX_TYPE[value.dtype]
        return backend.to_numpy(value, ValueInfo("", elem_type))
    if isinstance(value, list) and any(isinstance(v, (Tensor, np.ndarray)) for v in value):
        return [as_array(v, elem_types) for v in value]
    if isinstance(value, (np.ndarray, dict)):
        return value
    flat = value if isinstance(value, list) else [value]
    floating = any(isinstance(v, float) for v in flat)
    told = [t for t in elem_types if t in CARRIER and CARRIER[t].is_floating_point == floating]
    if told and not floating:  # an end of 2**63 - 1 is no int32
        info = torch.iinfo(CARRIER[told[0]])
        told = told if all(info.min <= v <= info.max for v in flat) else []
    elem_type = told[0] if told else TensorProto.FLOAT if floating else TensorProto.INT64
    return np.array(value).astype(helper.tensor_dtype_to_np_dtype(elem_type))


def _attribute(value: Any, elem_types: Sequence[int]) -> Any:
    if isinstance(value, torch.dtype):
        return ONNX_TYPE[value]
    if isinstance(value, (Tensor, np.ndarray)):
        return numpy_helper.from_array(np.asarray(as_array(value, elem_types)))
    return value


def _element_type(array: np.ndarray[Any, Any]) -> int:
    strings = array.dtype == object
    return TensorProto.STRING if strings else helper.np_dtype_to_tensor_dtype(array.dtype)


def _info(name: str, value: Any) -> onnx.ValueInfoProto:
    if isinstance(value, dict):
        return helper.make_value_info(name, _map_type(value))
    if isinstance(value, list):
        element = _element_type(value[0]) if value else TensorProto.FLOAT
        return helper.make_tensor_sequence_value_info(name, element, None)
    return helper.make_tensor_value_info(name, _element_type(value), value.shape)


MAP_TYPES = {str: TensorProto.STRING, int: TensorProto.INT64, float: TensorProto.FLOAT}


def _map_type(value: dict[Any, Any]) -> onnx.TypeProto:
    key, held = next(iter(value.items()))
    element = helper.make_tensor_type_proto(MAP_TYPES[type(held)], ())
    return helper.make_map_type_proto(MAP_TYPES[type(key)], element)


def drawn(schema: OpSchema, draw: TypedDraw, constants: str = "none") -> OneNode:
    """What the operator's sample draws, as a model."""
    call = sample_of(kernel_of(schema).function)(draw)
    parameters = {c.type_param_str for c in schema.type_constraints}
    for formal, value in zip(schema.inputs, call.inputs, strict=False):
        plain = isinstance(value, (int, float, list))
        if plain and formal.type_str in parameters:
            draw.elem_type(formal.type_str)
    return one_node(schema, call, draw.types, constants)


def one_node(
    schema: OpSchema, call: Call, types: Mapping[str, int], constants: str = "none"
) -> OneNode:
    """Build it.

    Args:
        schema: operator and version.
        call: what a sample drew.
        types: the element types that were drawn for the schema's type parameters.
        constants: which inputs are initializers: "none", "settings" (those the kernel takes as
            plain numbers) or "all" (sequences and maps stay inputs).
    """
    kernel = kernel_of(schema)
    names, feeds, initializers = [], {}, []
    for index, value in enumerate(call.inputs):
        names.append("" if value is None else f"x{index}")
        if value is None:
            continue
        told = _element_types(schema, index, types)
        array = as_array(value, told if isinstance(value, (Tensor, list)) else told[:1])
        parameter = kernel.parameter(index)
        setting = parameter is not None and kernel.kinds[parameter.name] in NUMBERS
        held = constants == "all" or (constants == "settings" and setting)
        if held and not isinstance(array, (list, dict)):
            initializers.append(numpy_helper.from_array(np.asarray(array), names[-1]))
        else:
            feeds[names[-1]] = array
    while names and not names[-1]:
        names.pop()
    outputs = [f"y{i}" for i in range(call.outputs)]
    drawn_types = list(types.values())
    attributes = {name: _attribute(value, drawn_types) for name, value in call.attrs.items()}
    node = helper.make_node(schema.name, names, outputs, domain=schema.domain, **attributes)
    infos = [_info(name, value) for name, value in feeds.items()]
    results = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph([node], "one", infos, results, initializers)
    imports = _imports(schema, call.attrs.values())
    ir_version = 8 if schema.since_version < 19 else 10  # the first that has the types since then
    model = helper.make_model(graph, opset_imports=imports, ir_version=ir_version)
    return OneNode(model, feeds, call, dict(types))


def _element_types(schema: OpSchema, index: int, types: Mapping[str, int]) -> list[int]:
    """What may be the element type of an input: that of its type parameter, then the others."""
    formal = schema.inputs[min(index, len(schema.inputs) - 1)].type_str
    if formal.startswith("tensor("):
        return []
    return [*([types[formal]] if formal in types else []), *types.values()]


def _imports(schema: OpSchema, attributes: Any) -> Sequence[onnx.OperatorSetIdProto]:
    imports = [helper.make_opsetid(schema.domain, schema.since_version)]
    if schema.domain and any(isinstance(a, onnx.GraphProto) for a in attributes):
        imports.append(helper.make_opsetid("", 21))
    return imports

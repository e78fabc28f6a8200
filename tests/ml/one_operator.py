"""A model of one ai.onnx.ml node, for cases that are written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from torch import Tensor

from onnxinterp import OnnxModule
from onnxinterp.backend import to_numpy
from onnxinterp.verify.reference import Reference

STRING, FLOAT, DOUBLE, INT64 = (
    TensorProto.STRING,
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.INT64,
)


def strings(*words: str) -> np.ndarray[Any, Any]:
    return np.array(words, dtype=object)


def map_type(key: int, value: int) -> onnx.TypeProto:
    return helper.make_map_type_proto(key, helper.make_tensor_type_proto(value, ()))


def tensor_type(elem_type: int, shape: tuple[int | str, ...]) -> onnx.TypeProto:
    return helper.make_tensor_type_proto(elem_type, shape)


def model(op_type: str, opset: int, given: onnx.TypeProto, **attributes: Any) -> onnx.ModelProto:
    """A model whose input `x` has the type `given` and whose output is `y`."""
    node = helper.make_node(op_type, ["x"], ["y"], domain="ai.onnx.ml", **attributes)
    infos = [helper.make_value_info("x", given)], [helper.make_empty_tensor_value_info("y")]
    graph = helper.make_graph([node], "one", *infos)
    imports = [helper.make_opsetid("ai.onnx.ml", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def answer(op_type: str, opset: int, given: onnx.TypeProto, x: Any, **attributes: Any) -> Any:
    """What the node answers, as nested lists."""
    module = OnnxModule(model(op_type, opset, given, **attributes))
    got = module(x)
    array = to_numpy(got, module.onnx_graph.outputs[0]) if isinstance(got, Tensor) else got
    return array.tolist() if isinstance(array, np.ndarray) else array


def in_onnxruntime(proto: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    """What onnxruntime answers."""
    return list(Reference(proto)(feeds).values())

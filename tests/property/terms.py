"""ai.onnx.ml in onnxruntime's terms: what it lacks or reads otherwise than specified.

a version that is deprecated      the one before it, which means the same
an element type that it lacks     float32, the type it computes in, and the answer cast back
TreeEnsemble                      it takes SOFTMAX (1) and LOGISTIC (2) for each other
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx.defs
from onnx import AttributeProto, ModelProto, TensorProto, numpy_helper

from tests.property.one_node import OneNode

ML = "ai.onnx.ml"
COMPUTED = {  # what it has kernels for, where that is not all that the schema allows
    "LinearRegressor": ("float32",),
    "SVMRegressor": ("float32",),
    "TreeEnsemble": ("float32", "float64"),
    "TreeEnsembleRegressor": ("float32", "float64"),
}
OTHER_NUMBER = {1: 2, 2: 1}


def in_terms(case: OneNode) -> tuple[OneNode, Any]:
    """The call in onnxruntime's terms; the dtype to cast the answer to, if any."""
    model, feeds = case.model, case.feeds
    node, version = model.graph.node[0], model.opset_import[0].version
    if node.domain != ML or not node.op_type.startswith(("Tree", "SVM", "Linear")):
        return case, None
    mine = ModelProto()
    mine.CopyFrom(model)
    schema = onnx.defs.get_schema(node.op_type, version, ML)
    if schema.deprecated:
        mine.opset_import[0].version = version - 1
    if node.op_type == "TreeEnsemble":
        for attribute in mine.graph.node[0].attribute:
            if attribute.name == "post_transform":
                attribute.i = OTHER_NUMBER.get(attribute.i, attribute.i)
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    dtype = {**tensors, **feeds}[node.input[0]].dtype
    if dtype.name in COMPUTED.get(node.op_type, (dtype.name,)):
        return replace(case, model=mine), None
    _to_float32(mine)
    same = schema.outputs[0].type_str == schema.inputs[0].type_str
    feeds = {n: x.astype(np.float32) for n, x in feeds.items()}
    return replace(case, model=mine, feeds=feeds), dtype if same else None


def _to_float32(model: ModelProto) -> None:
    """Inputs, initializers and floating tensors in attributes as float32."""
    for info in model.graph.input:
        info.type.tensor_type.elem_type = TensorProto.FLOAT
    held = [a.t for a in model.graph.node[0].attribute if a.type == AttributeProto.TENSOR]
    floating = [t for t in held if t.data_type != TensorProto.UINT8]
    for tensor in (*model.graph.initializer, *floating):
        array = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))

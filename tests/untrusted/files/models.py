"""Models in few words: of one node, of ONNX's text, of a branch, of a tree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper,
)

OPSET = 21
IR_VERSION = 10
FLOAT, INT64, STRING = 1, 7, 8


def model(
    nodes: Iterable[NodeProto],
    inputs: Sequence[onnx.ValueInfoProto] = (),
    outputs: Sequence[str] = ("y",),
    initializers: Sequence[TensorProto] = (),
    *,
    opset: int = OPSET,
    functions: Sequence[onnx.FunctionProto] = (),
    imports: Sequence[tuple[str, int]] = (),
) -> ModelProto:
    """A model that nothing has checked."""
    infos = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph(list(nodes), "g", list(inputs), infos, list(initializers))
    domains = [helper.make_opsetid("", opset), *(helper.make_opsetid(*i) for i in imports)]
    return helper.make_model(
        graph, opset_imports=domains, functions=functions, ir_version=IR_VERSION
    )


def text(source: str) -> ModelProto:
    """A model of ONNX's text, unchecked; the header is added where there is none."""
    if not source.lstrip().startswith("<"):
        source = f'<ir_version: {IR_VERSION}, opset_import: ["" : {OPSET}, "f" : 1]>\n{source}'
    return onnx.parser.parse_model(source)


def input_info(name: str, value: Any) -> onnx.ValueInfoProto:
    """The declaration of an input by a value for it."""
    if isinstance(value, list):
        kind = elem_type(value[0]) if value else FLOAT
        return helper.make_tensor_sequence_value_info(name, kind, None)
    return helper.make_tensor_value_info(name, elem_type(value), value.shape)


def elem_type(array: Any) -> int:
    return STRING if array.dtype == object else helper.np_dtype_to_tensor_dtype(array.dtype)


def array(value: Any) -> Any:
    """Numbers as int64 or float32, texts as objects, arrays as they are."""
    if isinstance(value, (np.ndarray, np.generic)):
        return np.asarray(value)
    made = np.array(value)
    if made.dtype.kind == "U":
        return made.astype(object)
    return made.astype(np.float32) if made.dtype == np.float64 else made


def one(
    op: str,
    values: Sequence[Any],
    *,
    stored: bool | Sequence[int] = False,
    domain: str = "",
    opset: int = OPSET,
    outputs: int = 1,
    raw: Sequence[AttributeProto] = (),
    **attributes: Any,
) -> tuple[bytes, dict[str, Any]]:
    """A model of one node, and its feeds.

    Args:
        op: the operator.
        values: its inputs; None is absent, a list of arrays is a sequence.
        stored: which of them the file holds; the others are inputs.
        domain: that of the operator.
        opset: of that domain.
        outputs: how many the node names.
        raw: attributes as they are, whatever they say.
        attributes: the others.
    """
    held = range(len(values)) if stored is True else stored or ()
    names = ["" if value is None else f"x{i}" for i, value in enumerate(values)]
    feeds, initializers = {}, []
    for i, value in enumerate(values):
        sequence = isinstance(value, list) and any(isinstance(v, np.ndarray) for v in value)
        if i in held and value is not None and not sequence:
            initializers.append(tensor(array(value), names[i]))
        elif value is not None:
            feeds[names[i]] = value if sequence else array(value)
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, results, domain=domain, **attributes)
    node.attribute.extend(raw)
    infos = [input_info(name, value) for name, value in feeds.items()]
    imports = [(domain, opset)] if domain else []
    own = OPSET if domain else opset
    built = model([node], infos, results, initializers, opset=own, imports=imports)
    return built.SerializeToString(), feeds


def tensor(data: Any, name: str = "") -> TensorProto:
    return numpy_helper.from_array(np.asarray(data), name)


def branch(nodes: Sequence[NodeProto], output: str, held: Sequence[Any] = ()) -> GraphProto:
    """A graph without inputs."""
    infos = [helper.make_empty_tensor_value_info(output)]
    graph = helper.make_graph(list(nodes), "b", [], infos)
    for item in held:
        sparse = isinstance(item, onnx.SparseTensorProto)
        (graph.sparse_initializer if sparse else graph.initializer).append(item)
    return graph


def identity(source: str, target: str) -> NodeProto:
    return helper.make_node("Identity", [source], [target])


def attribute(name: str, kind: int, **fields: Any) -> AttributeProto:
    """An attribute as its fields say, whether they fit or not."""
    return AttributeProto(name=name, type=kind, **fields)


def conditional(then: GraphProto, otherwise: GraphProto | None = None) -> list[NodeProto]:
    """An If that takes `then`."""
    yes = helper.make_node("Constant", [], ["yes"], value=tensor(np.array(True)))
    other = otherwise or branch([helper.make_node("Constant", [], ["o"], value_float=0.0)], "o")
    node = helper.make_node("If", ["yes"], ["y"], then_branch=then, else_branch=other)
    return [yes, node]


def stump() -> dict[str, Any]:
    """The attributes of a TreeEnsembleRegressor: 1 where the feature is at most 0.5, else 2."""
    return {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_featureids": [0, 0, 0],
        "nodes_values": [0.5, 0.0, 0.0],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "target_treeids": [0, 0],
        "target_nodeids": [1, 2],
        "target_ids": [0, 0],
        "target_weights": [1.0, 2.0],
        "n_targets": 1,
    }

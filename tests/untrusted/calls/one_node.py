"""One node with inputs and attributes that no valid model has, and what must become of it.

What it must give is written out, by the specification or onnxruntime; or it must be refused, with
an error of this library.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from onnxinterp import OnnxModule
from onnxinterp.errors import OnnxError

REFUSED = "refused"
ANY = "refused, or something finite in shape"  # that it ends is all that is asked


class Node(NamedTuple):
    """One node.

    Attributes:
        op_type: its operator.
        inputs: arrays; None is absent.
        attributes: by name.
        expected: nested lists, those of each output where there are several; or REFUSED, or ANY.
        opset: of its domain.
        domain: likewise.
        outputs: how many.
    """

    op_type: str
    inputs: list[Any]
    attributes: dict[str, Any]
    expected: Any
    opset: int
    domain: str
    outputs: int


def refused(op_type: str, inputs: list[Any], **rest: Any) -> Node:
    """A node that must be refused; `rest` is its opset, domain, outputs, and its attributes."""
    return gives(REFUSED, op_type, inputs, **rest)


def either(op_type: str, inputs: list[Any], **rest: Any) -> Node:
    """One that may give anything or be refused, as long as it ends."""
    return gives(ANY, op_type, inputs, **rest)


def gives(
    expected: Any,
    op_type: str,
    inputs: list[Any],
    *,
    opset: int = 21,
    domain: str = "",
    outputs: int = 1,
    **attributes: Any,
) -> Node:
    """One that must give these numbers."""
    return Node(op_type, inputs, attributes, expected, opset, domain, outputs)


def f(*values: Any) -> np.ndarray[Any, Any]:
    return np.array(values, dtype=np.float32)


def i(*values: int, dtype: Any = np.int64) -> np.ndarray[Any, Any]:
    return np.array(values, dtype=dtype)


def full(value: float, *shape: int) -> np.ndarray[Any, Any]:
    return np.full(shape, value, dtype=np.float32)


def ones(*shape: int) -> np.ndarray[Any, Any]:
    return full(1, *shape)


def text(*values: str) -> np.ndarray[Any, Any]:
    return np.array(values, dtype=object)


NAN, INF = float("nan"), float("inf")
SCALAR = np.array
ML = "ai.onnx.ml"


def outcome(node: Node, constant: bool) -> str:
    """`ok`, or what is wrong."""
    try:
        got = _run(node, constant)
    except OnnxError as error:
        if node.expected in (REFUSED, ANY) if isinstance(node.expected, str) else False:
            return "ok"
        return f"is refused: {error}; {error.__cause__}"[:300]
    except Exception as error:
        return f"raises a raw {type(error).__name__}: {error}"[:300]
    if isinstance(node.expected, str):
        return "ok" if node.expected == ANY else f"gives {got}"[:300]
    return "ok" if got == node.expected else f"gives {got}"[:300]


def _run(node: Node, constant: bool) -> Any:
    """What the node gives, as nested lists."""
    names = ["" if x is None else f"x{n}" for n, x in enumerate(node.inputs)]
    feeds = {n: x for n, x in zip(names, node.inputs, strict=True) if n}
    infos, initializers = [], []
    for name, x in feeds.items():
        if isinstance(x, str):
            infos.append(helper.make_tensor_sequence_value_info(name, onnx.TensorProto.FLOAT, None))
        elif constant:
            initializers.append(numpy_helper.from_array(np.asarray(x), name))
        else:
            kind = (
                onnx.TensorProto.STRING
                if x.dtype == object
                else helper.np_dtype_to_tensor_dtype(x.dtype)
            )
            infos.append(helper.make_tensor_value_info(name, kind, x.shape))
    outputs = [f"y{n}" for n in range(node.outputs)]
    made = helper.make_node(node.op_type, names, outputs, domain=node.domain, **node.attributes)
    results = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph([made], "one", infos, results, initializers)
    imports = [helper.make_opsetid(node.domain, node.opset)]
    if any(isinstance(a, onnx.GraphProto) for a in node.attributes.values()) and node.domain:
        imports.append(helper.make_opsetid("", 21))
    module = OnnxModule(helper.make_model(graph, opset_imports=imports, ir_version=10))
    given = {name: _fed(x) for name, x in feeds.items() if name in module.input_names}
    got = module(**given)
    return _plain(got)


def _fed(x: Any) -> Any:
    if isinstance(x, str):
        return [torch.ones(2), torch.ones(2)]
    return x if x.dtype == object else torch.from_numpy(np.array(x))


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value.tolist() if hasattr(value, "tolist") else value

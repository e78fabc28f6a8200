"""What a rewrite of a node for ncnn knows of the model, and the pieces that it builds of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from onnxinterp.deploy.fixed_sizes import Array, value_info
from onnxinterp.module import OnnxModule


class Refused(Exception):  # noqa: N818  # an answer, which the caller turns into an error
    """No form of the node is known that pnnx and ncnn compute right; the message says of what."""


Rewrite = Callable[[onnx.NodeProto, "Context"], "list[onnx.NodeProto] | None"]
REWRITES: dict[str, Rewrite] = {}


@dataclass
class Context:
    """What a rewrite knows of the model.

    Attributes:
        values: name -> a value of the sizes that the model is fixed at.
        constants: names of the values that do not depend on the inputs.
        opset: of the model before.
        added: new constants.
    """

    values: Mapping[str, Array]
    constants: set[str]
    opset: int
    added: dict[str, Array] = field(default_factory=dict)
    _count: int = 0

    def shape(self, name: str) -> tuple[int, ...]:
        """The sizes of a value of the model."""
        return self.values[name].shape

    def constant(self, node: onnx.NodeProto, index: int) -> Array | None:
        """An input that is a constant; None where it is left out.

        Raises:
            Refused: it is computed from the inputs of the model.
        """
        name = node.input[index] if index < len(node.input) else ""
        if not name:
            return None
        if name not in self.constants:
            raise Refused(f"input {index} must be a constant")
        return self.values[name]

    def name(self) -> str:
        """A new name of a value."""
        self._count += 1
        return f"onnxinterp_{self._count}"

    def add(self, value: Any, dtype: Any = np.float32) -> str:
        """The name of a new constant."""
        name = self.name()
        self.added[name] = np.asarray(value, dtype)
        return name

    def chain(self, node: onnx.NodeProto, *links: Link) -> list[onnx.NodeProto]:
        """Nodes one after the other, from the first input of `node` to its first output."""
        value, nodes = node.input[0], []
        for number, (op, others, attributes) in enumerate(links, 1):
            result = node.output[0] if number == len(links) else self.name()
            nodes.append(helper.make_node(op, [value, *others], [result], **attributes))
            value = result
        return nodes


Link = tuple[str, Sequence[str], Mapping[str, Any]]
"""Operator, inputs after the first one, attributes."""


def as_float_or_int(value: Array) -> Array:
    """A value in the types of ncnn, which have 32 bits."""
    return value.astype(np.int32) if value.dtype == np.int64 else value


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes of a node; strings as `str`."""
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {n: v.decode() if isinstance(v, bytes) else v for n, v in found.items()}


def along(context: Context, rank: int, axis: int, matrix: Array) -> list[Link]:
    """A product of one axis with a matrix [old size, new size]."""
    product: Link = ("MatMul", [context.add(matrix)], {})
    if axis == rank - 1:
        return [product]
    perm = [i for i in range(rank) if i != axis] + [axis]
    back = [perm.index(i) for i in range(rank)]
    return [("Transpose", [], {"perm": perm}), product, ("Transpose", [], {"perm": back})]


def rewrites(*operators: str) -> Callable[[Rewrite], Rewrite]:
    """Register the rewrite of operators."""

    def register(rewrite: Rewrite) -> Rewrite:
        REWRITES.update(dict.fromkeys(operators, rewrite))
        return rewrite

    return register


def run_node(node: onnx.NodeProto, x: torch.Tensor, target: Any = None, opset: int = 13) -> Array:
    """The result of a node y = f(x), whose input `target` is a constant."""
    infos = [value_info("x", x.numpy()), onnx.ValueInfoProto(name="y")]
    tensors = [] if target is None else [numpy_helper.from_array(target, "target")]
    graph = helper.make_graph([node], "one", infos[:1], infos[1:], tensors)
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    result: Array = OnnxModule(model)(x).numpy()
    return result

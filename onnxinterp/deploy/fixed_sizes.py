"""A model at known input sizes: what does not depend on data is a constant.

Exporters compute shapes in the graph. For inputs of known sizes these values are numbers, and the
nodes that compute them disappear. What remains is what a runtime for devices has to know.

    freeze    a model and inputs -> a `FixedModel`: its graph, and the value of everything in it
    cut       the part of a fixed model that computes other outputs
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, inliner, numpy_helper

from onnxinterp.errors import InputError
from onnxinterp.module import OnnxModule

Array = NDArray[Any]
SHAPE_READERS = ("Shape", "Size")
"""Operators whose result depends on the shape of their input, not on its elements."""


@dataclass(frozen=True)
class FixedModel:
    """A model whose sizes are known.

    Attributes:
        proto: functions are inlined; nodes of constants and of shapes alone are initializers.
        values: name -> the value for the inputs that it was fixed with: of inputs, initializers and
            of the outputs of all nodes.
    """

    proto: onnx.ModelProto
    values: Mapping[str, Array]

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs, in order."""
        return [info.name for info in self.proto.graph.input]

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs, in order."""
        return [info.name for info in self.proto.graph.output]


def freeze(proto: onnx.ModelProto, inputs: Mapping[str, torch.Tensor]) -> FixedModel:
    """Fix a model at the sizes of its inputs.

    Args:
        proto: a model with all its weights; it is not changed.
        inputs: by name; their values only matter to what `FixedModel.values` has.

    Raises:
        InputError: an output is not a tensor.
    """
    proto = inliner.inline_local_functions(proto) if proto.functions else proto
    graph = proto.graph
    stored = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    varying = _varying(graph, inputs)
    outputs = [info.name for info in graph.output]
    names = [n for node in graph.node for n in node.output if n]
    tensors = _run(proto, [*dict.fromkeys([*names, *outputs])], inputs)
    values = {**stored, **tensors, **{name: x.numpy() for name, x in inputs.items()}}
    if missing := [name for name in outputs if name not in values]:
        raise InputError(f"outputs must be tensors, got {missing[0]!r}")
    kept = [node for node in graph.node if varying.intersection(node.output)]
    return FixedModel(_model(proto, kept, list(inputs), outputs, values), values)


def cut(model: FixedModel, outputs: Sequence[str]) -> FixedModel:
    """The part of a fixed model that computes `outputs`; inputs that it does not read stay."""
    nodes = needed(model.proto.graph.node, outputs)
    proto = _model(model.proto, nodes, model.inputs, outputs, model.values)
    return FixedModel(proto, model.values)


def needed(nodes: Sequence[onnx.NodeProto], outputs: Iterable[str]) -> list[onnx.NodeProto]:
    """The nodes that some values need, in order."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]


def _varying(graph: onnx.GraphProto, inputs: Collection[str]) -> set[str]:
    """The values that depend on the elements of the inputs."""
    varying = set(inputs)
    for node in graph.node:
        reads = set(node.input) | {name for a in node.attribute for name in _inner_reads(a)}
        if node.op_type not in SHAPE_READERS and varying & reads:
            varying.update(filter(None, node.output))
    return varying | {info.name for info in graph.output}


def _inner_reads(attribute: onnx.AttributeProto) -> Iterable[str]:
    for graph in (attribute.g, *attribute.graphs):
        for node in graph.node:
            yield from node.input
            for inner in node.attribute:
                yield from _inner_reads(inner)
        yield from (output.name for output in graph.output)


def _run(
    proto: onnx.ModelProto, names: Sequence[str], inputs: Mapping[str, torch.Tensor]
) -> dict[str, Array]:
    """The values of names, as far as they are tensors of types that numpy has."""
    module = OnnxModule(proto, outputs=names, trainable="none", fuse=False)
    with torch.no_grad():
        results = module(**{n: x for n, x in inputs.items() if n in module.input_names})
    results = results if isinstance(results, tuple) else (results,)
    named = zip(names, results, strict=True)
    return {n: x.numpy() for n, x in named if isinstance(x, torch.Tensor) and _has_numpy(x)}


def _has_numpy(x: torch.Tensor) -> bool:
    return x.dtype is not torch.bfloat16 and "float8" not in str(x.dtype)


def _model(
    proto: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[str],
    outputs: Sequence[str],
    values: Mapping[str, Array],
) -> onnx.ModelProto:
    """A model of nodes; what they read and none of them computes is an initializer."""
    computed = {name for node in nodes for name in node.output}
    reads = dict.fromkeys(name for node in nodes for name in node.input if name)
    constants = [n for n in reads if n not in computed and n not in inputs and n in values]
    graph = helper.make_graph(
        nodes,
        proto.graph.name or "fixed",
        [value_info(name, values[name]) for name in inputs],
        [value_info(name, values[name]) for name in outputs],
        [numpy_helper.from_array(np.asarray(values[name]), name) for name in constants],
    )
    return helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)


def value_info(name: str, value: Array) -> onnx.ValueInfoProto:
    """The type and shape of a value."""
    element = helper.np_dtype_to_tensor_dtype(value.dtype)
    return helper.make_tensor_value_info(name, element, value.shape)

"""What pnnx and ncnn get wrong or do not know, in forms that they get right.

Each entry of `REWRITES` takes a node and returns nodes that compute the same, or None where the
node may stay; it raises `Refused` where no right form is known. Measured with pnnx and ncnn
20261020:

    silently wrong   MaxPool and AveragePool with auto_pad or unequal pads, Resize with asymmetric
                     coordinates, antialiasing or another cubic coefficient, Pow of negative
                     numbers, Shrink with a bias, SpaceToDepth, normalization of several axes
    another shape    ConvTranspose with output_shape, Gather of several indices, reductions with one
                     axis as an input
    not converted    Conv and ConvTranspose with auto_pad or unequal pads, DepthToSpace in DCR,
                     Slice with steps, Softsign, ThresholdedRelu, Selu with constants of its own
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxinterp.deploy import (  # noqa: F401  # they fill the table
    ncnn_elementwise,
    ncnn_linear,
    ncnn_reductions,
    ncnn_windows,
)
from onnxinterp.deploy.fixed_sizes import FixedModel, value_info
from onnxinterp.deploy.ncnn_context import REWRITES, Context, Refused, as_float_or_int

__all__ = ["REWRITES", "Context", "Refused", "rewrite_node", "rewritten"]

OPSET = 17
"""The newest one in which pnnx reads all reductions: their axes are attributes."""


def rewrite_node(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto]:
    """The nodes that stand in for a node; the node alone where it may stay.

    Raises:
        Refused: no right form is known.
    """
    rewrite = REWRITES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    return (rewrite(node, context) if rewrite else None) or [node]


def rewritten(
    model: FixedModel, nodes: Sequence[onnx.NodeProto], context: Context
) -> onnx.ModelProto:
    """The model with other nodes, at an opset that pnnx reads."""
    reads = dict.fromkeys(name for node in nodes for name in node.input if name)
    stored = {**model.values, **context.added}
    computed = {name for node in nodes for name in node.output} | set(model.inputs)
    graph = helper.make_graph(
        nodes,
        "rewritten",
        [value_info(name, as_float_or_int(model.values[name])) for name in model.inputs],
        [value_info(name, model.values[name]) for name in model.outputs],
        [numpy_helper.from_array(np.asarray(stored[n]), n) for n in reads if n not in computed],
    )
    imports = [helper.make_opsetid("", min(context.opset, OPSET))]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)

"""Rewrites of reductions and normalization for ncnn."""

from __future__ import annotations

import numpy as np
import onnx

from onnxinterp.deploy.ncnn_context import (
    Context,
    Link,
    Refused,
    attributes,
    rewrites,
)

REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")


@rewrites(*[f"Reduce{kind}" for kind in REDUCTIONS])
def axes_as_attribute(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Axes as an attribute; one after the other for maxima, a mean times its size for sums."""
    given, kind = attributes(node), node.op_type.removeprefix("Reduce")
    shape, keepdims = context.shape(node.input[0]), given.get("keepdims", 1)
    axes = given.get("axes")
    if axes is None:
        told = context.constant(node, 1)
        axes = [] if told is None else np.asarray(told).tolist()
    if not axes and given.get("noop_with_empty_axes"):
        raise Refused("noop_with_empty_axes is not converted")
    axes = sorted(a % len(shape) for a in axes) or list(range(len(shape)))
    if kind in ("Max", "Min"):
        links: list[Link] = [(node.op_type, [], {"axes": [a], "keepdims": 0}) for a in axes[::-1]]
        to_shape = context.add(context.shape(node.output[0]), np.int64)
        return context.chain(node, *links, ("Reshape", [to_shape], {}))
    form = {"axes": axes, "keepdims": keepdims}
    if kind == "Sum":
        count = context.add(np.prod([shape[a] for a in axes]))
        return context.chain(node, ("ReduceMean", [], form), ("Mul", [count], {}))
    return context.chain(node, (node.op_type, [], form))


@rewrites("LayerNormalization")
def one_axis(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Several axes as one; zeros where there is no bias."""
    given, shape = attributes(node), context.shape(node.input[0])
    axis = given.get("axis", -1) % len(shape)
    if len([o for o in node.output if o]) > 1:
        raise Refused("means and deviations as outputs are not converted")
    size = int(np.prod(shape[axis:]))
    scale, bias = context.constant(node, 1), context.constant(node, 2)
    if axis == len(shape) - 1 and bias is not None:
        return None
    scale = np.broadcast_to(np.asarray(scale), shape[axis:]).reshape(size)
    bias = np.zeros(size) if bias is None else np.broadcast_to(bias, shape[axis:]).reshape(size)
    flat, back = (context.add(s, np.int64) for s in ((*shape[:axis], size), shape))
    norm = [context.add(scale), context.add(bias)]
    how = {"axis": -1, "epsilon": given.get("epsilon", 1e-5)}
    links: list[Link] = [("Reshape", [flat], {}), ("LayerNormalization", norm, how)]
    return context.chain(node, *links, ("Reshape", [back], {}))


@rewrites("GroupNormalization")
def by_instances(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto]:
    """Each group as a channel of InstanceNormalization, then scale and bias."""
    given, shape = attributes(node), context.shape(node.input[0])
    groups, ones = given["num_groups"], [1] * (len(shape) - 2)
    by_channel = [np.asarray(context.constant(node, i)) for i in (1, 2)]
    if by_channel[0].size == groups:
        by_channel = [v.repeat(shape[1] // groups) for v in by_channel]
    scale, bias = (context.add(v.reshape(1, -1, *ones)) for v in by_channel)
    flat, back = (context.add(s, np.int64) for s in ((shape[0], groups, -1, 1), shape))
    norm = [context.add(np.ones(groups)), context.add(np.zeros(groups))]
    how = {"epsilon": given.get("epsilon", 1e-5)}
    links: list[Link] = [("Reshape", [flat], {}), ("InstanceNormalization", norm, how)]
    links += [("Reshape", [back], {}), ("Mul", [scale], {}), ("Add", [bias], {})]
    return context.chain(node, *links)

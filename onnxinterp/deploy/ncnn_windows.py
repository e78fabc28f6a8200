"""Rewrites of convolutions and poolings for ncnn: padding as explicit numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper

from onnxinterp.deploy.ncnn_context import (
    Context,
    Link,
    Refused,
    along,
    attributes,
    rewrites,
    run_node,
)


def _pads(node: onnx.NodeProto, context: Context, kernel: Sequence[int]) -> list[int]:
    """The pads of a window, at the start of each axis and then at the end."""
    given, rank = attributes(node), len(kernel)
    mode = given.get("auto_pad", "NOTSET")
    if not mode.startswith("SAME"):
        return list(given.get("pads", [0] * (2 * rank)))
    strides, dilations = given.get("strides", [1] * rank), given.get("dilations", [1] * rank)
    before, after = context.shape(node.input[0])[2:], context.shape(node.output[0])[2:]
    needs = [
        max((after[i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - before[i], 0)
        for i in range(rank)
    ]
    starts = [n // 2 if mode == "SAME_UPPER" else n - n // 2 for n in needs]
    return [*starts, *[n - s for n, s in zip(needs, starts, strict=True)]]


def _with(node: onnx.NodeProto, *without: str, **changed: Any) -> onnx.NodeProto:
    """A copy of a node with other attributes."""
    kept = {n: v for n, v in attributes(node).items() if n not in without}
    return helper.make_node(node.op_type, node.input, node.output, node.name, **(kept | changed))


@rewrites("Conv")
def explicit_pads(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """`auto_pad` as pads."""
    given = attributes(node)
    if given.get("auto_pad", "NOTSET") == "NOTSET":
        return None
    kernel = given.get("kernel_shape") or context.shape(node.input[1])[2:]
    return [_with(node, "auto_pad", pads=_pads(node, context, kernel))]


@rewrites("MaxPool")
def maximum_of_lowest(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Unequal pads: zeros, and the lowest float added to them."""
    given = attributes(node)
    kernel = given["kernel_shape"]
    rank = len(kernel)
    if len([name for name in node.output if name]) > 1:
        raise Refused("indices of maxima are not converted")
    pads = _pads(node, context, kernel)
    if pads[:rank] == pads[rank:]:
        return [_with(node, "auto_pad", pads=pads)] if "auto_pad" in given else None
    shape = context.shape(node.input[0])
    widths = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
    lowest = np.finfo(np.float32).min
    edge = np.pad(np.zeros((1, 1, *shape[2:])), widths, constant_values=lowest)
    links: list[Link] = [*_zeros_around(context, shape, pads), ("Add", [context.add(edge)], {})]
    how = {n: v for n, v in given.items() if n not in ("auto_pad", "pads")}
    return context.chain(node, *links, ("MaxPool", [], how))


@rewrites("AveragePool")
def average_of_zeros(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Unequal pads: the average with zeros, times size of the window / elements in it."""
    given = attributes(node)
    kernel = given["kernel_shape"]
    rank = len(kernel)
    pads = _pads(node, context, kernel)
    if pads[:rank] == pads[rank:]:
        return [_with(node, "auto_pad", pads=pads)] if "auto_pad" in given else None
    if given.get("ceil_mode") or any(d != 1 for d in given.get("dilations", ())):
        raise Refused("unequal pads with ceil_mode or dilations are not converted")
    pool = {"kernel_shape": kernel, "strides": given.get("strides", [1] * rank)}
    links: list[Link] = [*_zeros_around(context, context.shape(node.input[0]), pads)]
    links.append(("AveragePool", [], pool))
    if not given.get("count_include_pad"):
        ones = torch.ones(1, 1, *context.shape(node.input[0])[2:])
        counted = helper.make_node("AveragePool", ["x"], ["y"], pads=pads, **pool)
        counted.attribute.append(helper.make_attribute("count_include_pad", 1))
        links.append(("Mul", [context.add(1 / run_node(counted, ones))], {}))
    return context.chain(node, *links)


def _zeros_around(context: Context, shape: Sequence[int], pads: Sequence[int]) -> list[Link]:
    """Zeros around the last axes: products with matrices that have rows of an identity."""
    links: list[Link] = []
    rank = len(pads) // 2
    for i in range(rank):
        axis = len(shape) - rank + i
        if pads[i] or pads[rank + i]:
            size = shape[axis]
            matrix = np.eye(size, size + pads[i] + pads[rank + i], pads[i])
            links += along(context, len(shape), axis, matrix)
    return links


@rewrites("ConvTranspose")
def cropped(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Unequal pads and `output_shape`: all that the product gives, and a Slice of it."""
    given = attributes(node)
    kernel, rank = context.shape(node.input[1])[2:], len(context.shape(node.input[1])) - 2
    pads = list(given.get("pads", [0] * (2 * rank)))
    plain = given.get("auto_pad", "NOTSET") == "NOTSET" and "output_shape" not in given
    if plain and pads[:rank] == pads[rank:]:
        return None
    strides, dilations = given.get("strides", [1] * rank), given.get("dilations", [1] * rank)
    extra = given.get("output_padding", [0] * rank)
    before, after = context.shape(node.input[0])[2:], context.shape(node.output[0])[2:]
    starts = []
    for i in range(rank):
        whole = (before[i] - 1) * strides[i] + extra[i] + (kernel[i] - 1) * dilations[i] + 1
        upper = given.get("auto_pad") == "SAME_UPPER"
        spare = whole - after[i]
        starts.append(pads[i] if plain else spare // 2 if upper else spare - spare // 2)
        if min(starts[i], spare - starts[i]) < 0:
            raise Refused("an output larger than the product is not converted")
    dropped = ("auto_pad", "output_shape", "pads")
    product = {n: v for n, v in given.items() if n not in dropped}
    ends = [s + a for s, a in zip(starts, after, strict=True)]
    window = [context.add(v, np.int64) for v in (starts, ends, range(2, 2 + rank))]
    links: list[Link] = [("ConvTranspose", node.input[1:], product), ("Slice", window, {})]
    return context.chain(node, *links)

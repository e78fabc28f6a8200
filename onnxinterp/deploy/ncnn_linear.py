"""Rewrites of linear maps for ncnn: as products with matrices, and as convolutions.

Values that pass through products with zeros and ones are exact, as long as they are finite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper

from onnxinterp.deploy.fixed_sizes import Array
from onnxinterp.deploy.ncnn_context import (
    Context,
    Link,
    Refused,
    along,
    attributes,
    rewrites,
    run_node,
)


@rewrites("Resize")
def as_products(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Other coordinates and filters: a product of each axis with its matrix."""
    given = attributes(node)
    coordinates = given.get("coordinate_transformation_mode", "half_pixel")
    mode = given.get("mode", "nearest")
    if coordinates == "tf_crop_and_resize":
        raise Refused("tf_crop_and_resize is not converted")
    before, after = context.shape(node.input[0]), context.shape(node.output[0])
    has_sizes = len(node.input) > 3 and bool(node.input[3])
    scales = [a / b for a, b in zip(after, before, strict=True)]
    if not has_sizes:
        scales = [float(v) for v in np.asarray(context.constant(node, 2))]
        if (axes := given.get("axes")) is not None:
            every = dict(zip([a % len(before) for a in axes], scales, strict=True))
            scales = [every.get(i, 1.0) for i in range(len(before))]
    default = {"antialias": 0, "exclude_outside": 0, "cubic_coeff_a": -0.75}
    is_plain = all(given.get(n, v) == v for n, v in default.items())
    centred = coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners")
    is_whole = all(s == int(s) for s in scales) and coordinates in ("asymmetric", "half_pixel")
    if len(before) == 4 and is_plain and before[:2] == after[:2]:
        if mode != "nearest" and centred and all(s > 1 for s in after[2:]):
            return _resize_to(node, context, mode, coordinates)
        if mode == "nearest" and is_whole:
            return _resize_to(node, context, mode, "asymmetric")
    links: list[Link] = []
    for axis, (old, new) in enumerate(zip(before, after, strict=True)):
        if old != new or scales[axis] != 1:
            matrix = _resize_matrix(given, old, new, None if has_sizes else scales[axis])
            links += along(context, len(before), axis, matrix)
    return context.chain(node, *(links or [("Identity", [], {})]))


def _resize_to(
    node: onnx.NodeProto, context: Context, mode: str, coordinates: str
) -> list[onnx.NodeProto]:
    """A Resize to the sizes of its result, in a form that opset 11 has, too."""
    how = {"mode": mode, "coordinate_transformation_mode": coordinates}
    if mode == "nearest":
        how["nearest_mode"] = "floor"
    sizes = context.add(context.shape(node.output[0]), np.int64)
    return context.chain(node, ("Resize", ["", "", sizes], how))


def _resize_matrix(given: Mapping[str, Any], old: int, new: int, scale: float | None) -> Array:
    """What a Resize does to one axis, [old size, new size]: its result for an identity."""
    kept = {n: v for n, v in given.items() if n not in ("axes", "keep_aspect_ratio_policy")}
    names = ["x", "", "", "target"] if scale is None else ["x", "", "target"]
    resize = helper.make_node("Resize", names, ["y"], **kept)
    target = np.array([old, new]) if scale is None else np.array([1, scale], np.float32)
    return run_node(resize, torch.eye(old), target, opset=19)


@rewrites("SpaceToDepth")
def one_hot_convolution(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto]:
    """A convolution whose kernels pick one element each."""
    size, channels = attributes(node)["blocksize"], context.shape(node.input[0])[1]
    kernel = np.zeros((size, size, channels, channels, size, size), np.float32)
    for y in range(size):
        for x in range(size):
            kernel[y, x, :, :, y, x] = np.eye(channels)
    kernel = kernel.reshape(-1, channels, size, size)
    return context.chain(node, ("Conv", [context.add(kernel)], {"strides": [size, size]}))


@rewrites("DepthToSpace")
def one_hot_transposed(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """DCR order: a transposed convolution whose kernels place one element each."""
    given, channels = attributes(node), context.shape(node.output[0])[1]
    if given.get("mode", "DCR") == "CRD":
        return None
    size = given["blocksize"]
    kernel = np.zeros((size, size, channels, channels, size, size), np.float32)
    for y in range(size):
        for x in range(size):
            kernel[y, x, :, :, y, x] = np.eye(channels)
    weight = context.add(kernel.reshape(-1, channels, size, size))
    return context.chain(node, ("ConvTranspose", [weight], {"strides": [size, size]}))


@rewrites("Slice")
def steps(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Steps and reversed axes: a product with the columns of an identity."""
    if context.opset < 10:
        return None
    step = context.constant(node, 4)
    if step is None or (np.asarray(step) == 1).all():
        return None
    shape = context.shape(node.input[0])
    starts, ends, axes = (context.constant(node, i) for i in (1, 2, 3))
    axes = np.arange(len(np.asarray(starts))) if axes is None else axes
    rows = [np.arange(n) for n in shape]
    numbers = [np.asarray(v).tolist() for v in (starts, ends, axes, step)]
    for start, end, axis, by in zip(*numbers, strict=True):
        stop = None if by < 0 and end < -shape[axis] else end
        rows[axis % len(shape)] = np.arange(shape[axis])[start:stop:by]
    return context.chain(node, *_picked(context, shape, rows))


@rewrites("Gather")
def picked(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Several constant indices: a product with the columns of an identity."""
    if node.input[0] in context.constants:
        return None
    indices = np.asarray(context.constant(node, 1))
    shape = context.shape(node.input[0])
    axis = attributes(node).get("axis", 0) % len(shape)
    if indices.size == 1 and indices.ndim == 0:
        return None
    if indices.ndim != 1:
        raise Refused("indices of several axes are not converted")
    rows = [np.arange(n) for n in shape]
    rows[axis] = indices % shape[axis]
    return context.chain(node, *_picked(context, shape, rows))


def _picked(context: Context, shape: Sequence[int], rows: Sequence[Array]) -> list[Link]:
    links: list[Link] = []
    for axis, picked in enumerate(rows):
        if not np.array_equal(picked, np.arange(shape[axis])):
            matrix = np.eye(shape[axis], dtype=np.float32)[:, picked]
            links += along(context, len(shape), axis, matrix)
    return links or [("Identity", [], {})]

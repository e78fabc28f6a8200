"""The blocked operators of onnxruntime, on tensors that are not in blocks.

The blocks of filters have 8 channels. Windows and their like are those of ONNX: onnxruntime runs
its operator in their place.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import onnxruntime
from onnx import helper

from tests.property.formulas import formula as register
from tests.property.formulas_quantized import Array, nhwc_fused_conv

formula = partial(register, domain="com.microsoft.nchwc")
BLOCK = 8


@formula("Conv")
def conv(
    x: Array,
    w: Array,
    b: Array | None = None,
    z: Array | None = None,
    *,
    group: int = 1,
    **attributes: Any,
) -> Array:
    """Each element of a filter is looked up where its block has it."""
    m, c, height, width = w.shape
    in_blocks = c >= BLOCK
    plain, flat = np.empty_like(w), w.reshape(-1)
    for o, i, h, v in np.ndindex(*w.shape):
        if in_blocks:
            block = (o // BLOCK * (c // BLOCK) + i // BLOCK) * height * width + h * width + v
            place = (block * BLOCK + i % BLOCK) * BLOCK + o % BLOCK
        else:
            place = ((o // BLOCK * c + i) * height * width + h * width + v) * BLOCK + o % BLOCK
        plain[o, i, h, v] = flat[place]
    assert m % BLOCK == 0
    rest = None if z is None else np.moveaxis(z, 1, -1)
    x = np.moveaxis(x, 1, -1)
    y: Array = nhwc_fused_conv(x, plain, b, rest, group=group, **attributes)
    return np.moveaxis(y, -1, 1)


@formula("ReorderInput")
def reorder_input(x: Array, channels_last: int = 0) -> Array:
    x = np.moveaxis(x, -1, 1) if channels_last else x
    return np.pad(x, [(0, 0), (0, -x.shape[1] % BLOCK), (0, 0), (0, 0)])


@formula("ReorderOutput")
def reorder_output(x: Array, channels: int, channels_last: int = 0) -> Array:
    y = x[:, :channels]
    return np.moveaxis(y, 1, -1) if channels_last else y


@formula("GlobalMaxPool")
def global_max_pool(x: Array) -> Array:
    return np.asarray(x.max((2, 3), keepdims=True))


@formula("GlobalAveragePool")
def global_average_pool(x: Array) -> Array:
    return np.asarray(x.mean((2, 3), keepdims=True, dtype=np.float64).astype(x.dtype))


def _run(op_type: str, x: Array, *inputs: Array, **attributes: Any) -> Array:
    """An operator of ONNX; further inputs are of float32, an empty one is absent."""
    feeds = {f"x{n}": v for n, v in enumerate((x, *inputs)) if v.size}
    names = [f"x{n}" if v.size else "" for n, v in enumerate((x, *inputs))]
    node = helper.make_node(op_type, names, ["y"], **attributes)
    infos = [helper.make_tensor_value_info(n, 1, v.shape) for n, v in feeds.items()]
    graph = helper.make_graph([node], "one", infos, [helper.make_tensor_value_info("y", 1, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=8)
    answer: Array = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)[0]
    return answer


@formula("MaxPool")
def max_pool(x: Array, **attributes: Any) -> Array:
    return _run("MaxPool", x, **attributes)


@formula("AveragePool")
def average_pool(x: Array, **attributes: Any) -> Array:
    return _run("AveragePool", x, **attributes)


@formula("Upsample")
def upsample(x: Array, scales: tuple[int, ...] = (1, 1, 1, 1), **attributes: Any) -> Array:
    factors = np.array(scales, np.float32)
    how = {"coordinate_transformation_mode": "asymmetric", **attributes}
    return _run("Resize", x, np.array([], np.float32), factors, nearest_mode="floor", **how)

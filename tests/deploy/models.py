"""Small models in ONNX's text format, with random weights."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

TYPES = {1: np.float32, 6: np.int32, 7: np.int64}


def small_model(
    text: str, opset: int = 18, seed: int = 0
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A model, and values for its inputs.

    Args:
        text: the graph; inputs beside `x` and `z` become weights.
        opset: of ai.onnx.
        seed: of weights and inputs, which are near 1.
    """
    header = f'<ir_version: 8, opset_import: ["": {opset}]>'
    model = onnx.parser.parse_model(f"{header} g {text}")
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    random = np.random.default_rng(seed)
    given = {}
    for info in list(model.graph.input):
        kind = info.type.tensor_type
        sizes = [d.dim_value for d in kind.shape.dim]
        is_float = kind.elem_type == 1
        value = random.standard_normal(sizes) if is_float else random.integers(0, 4, sizes)
        value = np.asarray(value, TYPES[kind.elem_type])
        if info.name in ("x", "z"):
            given[info.name] = value
        else:
            weight = value / np.sqrt(max(1, value[0].size)) if is_float else value
            name = info.name
            model.graph.initializer.append(
                numpy_helper.from_array(weight.astype(value.dtype), name)
            )
            model.graph.input.remove(info)
    return model, given

"""GroupQueryAttention with norms of queries and keys, which onnxruntime has on GPUs only."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import onnxruntime
import pytest
import torch

from onnxinterp import NodeError, OnnxModule

EPSILONS = {
    "": (1e-6, 1e-6),
    ", qk_norm_epsilon = 0.5": (0.5, 0.5),
    ", q_norm_epsilon = 0.25, k_norm_epsilon = 0.125": (0.25, 0.125),
    ", qk_norm_epsilon = 0.5, k_norm_epsilon = 0.125": (0.5, 0.125),
}
"""Attributes -> the epsilon of queries and of keys."""


def model(nodes: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]> g ('
        "float[2, 3, 64] q, float[2, 3, 32] k, float[2, 3, 32] v, int32[2] lengths, int32 total, "
        "float[4, 8] cos, float[4, 8] sin, float[16] q_scale, float[16] k_scale) => (float[] y) "
        f"<int64[4] heads = {{0, 0, -1, 16}}, int64[3] merged = {{0, 0, -1}}> {{ {nodes} }}"
    )


def fused(attributes: str, q_scale: str = "q_scale") -> onnx.ModelProto:
    return model(
        "y = com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2, do_rotary = 1"
        f"{attributes}> (q, k, v, , , lengths, total, cos, sin, , , , , , {q_scale}, k_scale)"
    )


def explicit(epsilons: tuple[float, float]) -> onnx.ModelProto:
    """The same with a node for each norm."""
    norms = "".join(
        f"{x}_heads = Reshape({x}, heads) "
        f"{x}_normed = SimplifiedLayerNormalization <epsilon = {e:f}> ({x}_heads, {x}_scale) "
        f"{x}_whole = Reshape({x}_normed, merged) "
        for x, e in zip("qk", epsilons, strict=True)
    )
    attention = "com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2, do_rotary = 1>"
    return model(f"{norms} y = {attention} (q_whole, k_whole, v, , , lengths, total, cos, sin)")


def feeds() -> dict[str, Any]:
    random = np.random.default_rng(0)
    shapes = {"q": (2, 3, 64), "k": (2, 3, 32), "v": (2, 3, 32), "cos": (4, 8), "sin": (4, 8)}
    shapes |= {"q_scale": (16,), "k_scale": (16,)}
    floats = {n: random.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    return {**floats, "lengths": np.array([2, 2], np.int32), "total": np.array(3, np.int32)}


@pytest.mark.parametrize("attributes", EPSILONS)
def test_norms_are_those_of_each_head_before_the_rotation(attributes: str) -> None:
    serialized = explicit(EPSILONS[attributes]).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(serialized, options)
    (want,) = session.run(None, feeds())
    got = OnnxModule(fused(attributes))(**{n: torch.from_numpy(x) for n, x in feeds().items()})
    torch.testing.assert_close(got, torch.from_numpy(want))


def test_one_norm_alone_is_refused() -> None:
    with pytest.raises(NodeError, match="must be given together"):
        OnnxModule(fused("", ""))(**{n: torch.from_numpy(x) for n, x in feeds().items()})

#!/usr/bin/env bash
# onnxruntime 1.32.0 (CPU, onnx 1.23.2, numpy 2.3.5): QMoE normalizes the routing weights of the chosen
# experts whatever its attribute `normalize_routing_weights` says; MoE, of the same schema, obeys it.
#
# With two experts, k = 1 and router logits 1 and 0, the first expert has the probability 0.731.
# Expected with normalize_routing_weights=0, the default: 0.731 times the result of that expert, in
# both operators. QMoE returns the expert's result itself. A model that is quantized from MoE to QMoE
# with the attribute at 0 changes by this factor.
#
# Output seen (times the result of the expert):
#   normalize_routing_weights=0: MoE 0.7311, QMoE 1.0000
#   normalize_routing_weights=1: MoE 1.0000, QMoE 1.0000
#
# Exit status 0: as described; anything else: onnxruntime behaves differently.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnx==1.23.2 onnxruntime==1.32.0 numpy==2.3.5
"$folder/venv/bin/python" - <<'PROGRAM'
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper


def run(op_type, inputs, constants, attributes):
    """The first output of one node of com.microsoft, without optimisation."""
    names = [*inputs, *constants]
    node = helper.make_node(op_type, [n.strip("_") for n in names], ["y"], domain="com.microsoft", **attributes)
    infos = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for n, x in inputs.items()
    ]
    tensors = [numpy_helper.from_array(x, n) for n, x in constants.items() if x is not None]
    graph = helper.make_graph(
        [node], "g", infos, [helper.make_empty_tensor_value_info("y")], tensors
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)[0]

random = np.random.default_rng(0)
packed = [random.integers(0, 256, (2, 64, 32)).astype(np.uint8) for _ in range(2)]
floats = [
    np.stack([p & 15, p >> 4], -1).reshape(2, 64, 64).astype(np.float32) / 10 - np.float32(0.8)
    for p in packed
]
scales = np.full((2, 64), 0.1, np.float32)
x = random.standard_normal((1, 64)).astype(np.float32)
expert = np.maximum(x @ floats[0][0].T, 0) @ floats[1][0].T
inputs = {"x": x, "router": np.array([[1, 0]], np.float32)}
for normalize, expected in ((0, (1 / (1 + np.exp(-1)), 1)), (1, (1, 1))):
    attributes = {"k": 1, "activation_type": "relu", "normalize_routing_weights": normalize}
    plain = {"w1": floats[0], "_": None, "w2": floats[1]}
    moe = run("MoE", inputs, plain, attributes)
    quantized = {"w1": packed[0], "s1": scales, "_": None, "w2": packed[1], "s2": scales}
    qmoe = run("QMoE", inputs, quantized, {**attributes, "expert_weight_bits": 4})
    ratios = [float((y * expert).sum() / (expert * expert).sum()) for y in (moe, qmoe)]
    print(f"normalize_routing_weights={normalize}: MoE {ratios[0]:.4f}, QMoE {ratios[1]:.4f}")
    np.testing.assert_allclose(ratios, expected, rtol=1e-4)
PROGRAM

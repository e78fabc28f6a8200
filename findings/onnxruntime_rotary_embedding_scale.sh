#!/usr/bin/env bash
# onnxruntime 1.32.0 (CPU, onnx 1.23.2, numpy 2.3.5): RotaryEmbedding of com.microsoft accepts the
# attribute `scale` and ignores it.
#
# The schema says "Custom scale will be used if specified". Expected: another result for scale 0.5
# than for 1 (be it of the angles or of the numbers), or an error that it is not implemented. The
# results are equal bit for bit.
#
# Output seen:
#   scale 1.0 [-1.1311124563217163, 0.6598162651062012, -0.8488724827766418, 1.2508567571640015]
#   scale 0.5 [-1.1311124563217163, 0.6598162651062012, -0.8488724827766418, 1.2508567571640015]
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

angles = np.outer(np.arange(8), [1, 0.1])
inputs = {
    "x": np.ones((1, 1, 1, 4), np.float32),
    "position_ids": np.array([[3]], np.int64),
    "cos": np.cos(angles).astype(np.float32),
    "sin": np.sin(angles).astype(np.float32),
}
one, half = (run("RotaryEmbedding", inputs, {}, {"scale": scale}).ravel() for scale in (1.0, 0.5))
print("scale 1.0", one.tolist())
print("scale 0.5", half.tolist())
np.testing.assert_array_equal(one, half)
PROGRAM

#!/usr/bin/env bash
# onnxruntime 1.32.0 (CPU, onnx 1.23.2, numpy 2.3.5): QLinearSoftmax is one step too low for output
# scales that are not one over an integer that float32 holds below, such as 1/255.
#
# By its documentation the result is the softmax of the dequantized input, quantized by y_scale.
# Expected for y_scale 1/255: round(p * 255), here 212 for p * 255 = 211.89. The result is 211, although
# 211.89 is not near a tie; for y_scale 1/256 all elements are right. Quantizers that choose the scale
# from the observed range 0 to 1 in 255 steps write exactly this scale.
#
# Output seen:
#   y_scale 1/256: [4, 11, 29, 213], expected [4, 11, 29, 213]
#   y_scale 1/255: [4, 11, 29, 211], expected [4, 11, 29, 212]
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

x = np.array([[0, 50, 100, 200]], np.uint8)
p = np.exp(x * 0.02) / np.exp(x * 0.02).sum()
zero, scale = np.array(0, np.uint8), np.array(0.02, np.float32)
for steps, seen in ((256, [4, 11, 29, 213]), (255, [4, 11, 29, 211])):
    constants = {"xs": scale, "xz": zero, "ys": np.array(1 / steps, np.float32), "yz": zero}
    y = run("QLinearSoftmax", {"x": x}, constants, {"axis": -1, "opset": 13}).ravel()
    expected = np.rint(p * steps).astype(int).ravel()
    print(f"y_scale 1/{steps}: {y.tolist()}, expected {expected.tolist()}")
    assert y.tolist() == seen
    assert abs(p * steps - np.floor(p * steps) - 0.5).min() > 0.04, "no element is near a tie"
PROGRAM

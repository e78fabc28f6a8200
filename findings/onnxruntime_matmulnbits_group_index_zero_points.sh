#!/usr/bin/env bash
# onnxruntime 1.32.0 (CPU, onnx 1.23.2, numpy 2.3.5): MatMulNBits ignores packed zero points where the
# input g_idx is given, even a g_idx that changes nothing.
#
# The input g_idx names the block of each row of the weight; files that GPTQ tools wrote have it (the
# schema calls it deprecated, and the kernel honours it for scales). Here it is the order that holds
# without it: block 0 for the first 32 rows, block 1 for the rest. Expected: the same result with and
# without. All weights are 9, the scales are 1 and 10, the zero points 5 and 2: 4 and 70. With g_idx
# the kernel subtracts the default zero point 8 in both blocks. Zero points in floating point are
# honoured in both cases.
#
# Output seen:
#   without g_idx [4.0, 70.0]
#   with g_idx    [1.0, 10.0]
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

A = np.zeros((2, 64), np.float32)
A[0, 0] = A[1, 63] = 1
constants = {
    "B": np.full((1, 2, 16), 0x99, np.uint8),
    "scales": np.array([1, 10], np.float32),
    "zero_points": np.array([0x25], np.uint8),
}
attributes = {"K": 64, "N": 1, "bits": 4, "block_size": 32}
plain = run("MatMulNBits", {"A": A}, constants, attributes).ravel()
constants["g_idx"] = np.repeat(np.arange(2, dtype=np.int32), 32)
grouped = run("MatMulNBits", {"A": A}, constants, attributes).ravel()
print("without g_idx", plain.tolist())
print("with g_idx   ", grouped.tolist())
np.testing.assert_array_equal(plain, [4, 70])
np.testing.assert_array_equal(grouped, [1, 10])
PROGRAM

#!/usr/bin/env bash
# onnxruntime 1.32.0 (CPU, onnx 1.23.2, onnx-ir 1.1.0, numpy 2.3.5): the RTN and k-quant algorithms of its 4-bit quantizer
# write models that use the domain com.microsoft without importing it.
#
# ONNX requires an opset_import for each domain that a model uses. Expected: as for the default
# algorithm, an import of com.microsoft is added along with the MatMulNBits nodes. The models of the
# other two have none. onnxruntime loads them all the same; onnx.checker refuses them, and so may
# every other reader.
#
# Output seen:
#   Default imports ['', 'com.microsoft'], onnx.checker accepts it
#   RTN     imports [''], onnx.checker refuses it
#   KQuant  imports [''], onnx.checker refuses it
#
# Exit status 0: as described; anything else: onnxruntime behaves differently.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnx==1.23.2 onnxruntime==1.32.0 numpy==2.3.5 onnx-ir==1.1.0
"$folder/venv/bin/python" - <<'PROGRAM'
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from onnxruntime.quantization import matmul_nbits_quantizer as quantizer

random = np.random.default_rng(0)
weight = numpy_helper.from_array(random.standard_normal((256, 64)).astype(np.float32), "w")
graph = helper.make_graph(
    [helper.make_node("MatMul", ["x", "w"], ["y"])],
    "g",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 256])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])],
    [weight],
)
plain = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
seen = {}
for name in ("Default", "RTN", "KQuant"):
    config = getattr(quantizer, f"{name}WeightOnlyQuantConfig")()
    model = onnx.ModelProto.FromString(plain.SerializeToString())
    tool = quantizer.MatMulNBitsQuantizer(model, algo_config=config)
    tool.process()
    made = tool.model.model
    assert [n.op_type for n in made.graph.node] == ["MatMulNBits"]
    ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    try:
        onnx.checker.check_model(made)
        verdict = "accepts"
    except onnx.checker.ValidationError:
        verdict = "refuses"
    imports = [o.domain for o in made.opset_import]
    print(f"\n{name:7} imports {imports}, onnx.checker {verdict} it")
    seen[name] = imports, verdict
assert seen["Default"] == (["", "com.microsoft"], "accepts")
assert seen["RTN"] == seen["KQuant"] == ([""], "refuses")
PROGRAM

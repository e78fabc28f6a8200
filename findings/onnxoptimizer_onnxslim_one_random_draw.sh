#!/usr/bin/env bash
# onnxoptimizer 0.4.2 and onnxslim 0.1.98 (onnx 1.23.2, numpy 2.3.5): two random tensors become one.
#
# Each RandomUniformLike draws its own numbers. The elimination of common subexpressions of both tools merges two
# nodes with equal attributes and inputs, and the operators that draw numbers are no exception: two independent
# draws are the same afterwards. The difference of two uniform numbers, a triangle between -1 and 1, is 0 then.
# Guess before the run: both leave random operators alone.
#
# Output seen (whether any two of 1000 differences differ from 0):
#   original       True
#   onnxoptimizer  False
#   onnxslim       False
#
# Exit status 0: as described; anything else: one of the tools behaves differently.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnxoptimizer==0.4.2 onnxslim==0.1.98 onnx==1.23.2 numpy==2.3.5
"$folder/venv/bin/python" - <<'PROGRAM'
import numpy as np
import onnx
import onnxoptimizer
import onnxslim
from onnx.reference import ReferenceEvaluator

model = onnx.parser.parse_model("""
<ir_version: 8, opset_import: ["": 18]>
g (float[1000] x) => (float[1000] y) {
    a = RandomUniformLike(x)
    b = RandomUniformLike(x)
    y = Sub(a, b)
}""")
onnx.checker.check_model(model, full_check=True)
models = {
    "original": model,
    "onnxoptimizer": onnxoptimizer.optimize(model, ["eliminate_common_subexpression"]),
    "onnxslim": onnxslim.slim(model),
}
x = np.zeros(1000, np.float32)
for name, candidate in models.items():
    random = sum(node.op_type == "RandomUniformLike" for node in candidate.graph.node)
    differs = bool(ReferenceEvaluator(candidate).run(None, {"x": x})[0].any()) and random == 2
    print(f"{name:14} {differs}")
    assert differs == (name == "original"), name
PROGRAM

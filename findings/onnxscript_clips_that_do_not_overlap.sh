#!/usr/bin/env bash
# onnxscript 0.7.2 (onnx 1.23.2, onnx-ir 1.1.0, numpy 2.3.5): its optimizer joins two Clips whose ranges do not
# overlap into one with the wrong bound.
#
# Clip to [-1, 1] and then to [2, 3] gives 2 for every number, as all results of the first are below the second.
# The rule for Clip behind Clip takes the larger of the lower bounds and the smaller of the upper ones: [2, 1].
# ONNX defines a Clip with min above max: the result is max, here 1. With the ranges in the other order, the
# result is the 1 that the rule gives. Guess before the run: both orders are right.
#
# Output seen, for any x:
#   [-1, 1], then [2, 3]  original 2.0  optimized 1.0
#   [2, 3], then [-1, 1]  original 1.0  optimized 1.0
#
# Exit status 0: as described; anything else: onnxscript behaves differently.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnxscript==0.7.2 onnx==1.23.2 onnx-ir==1.1.0 numpy==2.3.5
"$folder/venv/bin/python" - <<'PROGRAM'
import numpy as np
import onnx
import onnxscript.optimizer
from onnx.reference import ReferenceEvaluator

x = np.linspace(-5, 5, 4, dtype=np.float32)
for first, second, changes in (((-1, 1), (2, 3), True), ((2, 3), (-1, 1), False)):
    model = onnx.parser.parse_model(f"""
    <ir_version: 8, opset_import: ["": 18]>
    g (float[4] x) => (float[4] y)
    <float a = {{{first[0]}}}, float b = {{{first[1]}}}, float c = {{{second[0]}}}, float d = {{{second[1]}}}> {{
        h = Clip(x, a, b)
        y = Clip(h, c, d)
    }}""")
    onnx.checker.check_model(model, full_check=True)
    want = np.clip(np.clip(x, *first), *second)
    assert np.array_equal(ReferenceEvaluator(model).run(None, {"x": x})[0], want)
    optimized = onnxscript.optimizer.optimize(model)
    assert [node.op_type for node in optimized.graph.node] == ["Clip"], optimized.graph.node
    (bound,) = set(ReferenceEvaluator(optimized).run(None, {"x": x})[0].tolist())
    first, second = list(first), list(second)
    print(f"{first}, then {second}  original {want[0]}  optimized {bound}")
    assert (want[0] != bound) == changes, bound
PROGRAM

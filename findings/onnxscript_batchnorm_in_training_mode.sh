#!/usr/bin/env bash
# onnxscript 0.7.2 (onnx 1.23.2, onnx-ir 1.1.0, numpy 2.3.5): its optimizer folds a BatchNormalization in training
# mode into the convolution before it, with the running statistics.
#
# With training_mode=1, BatchNormalization normalizes by the mean and the variance of the batch, and returns new
# running statistics. The rule that folds it into a Conv looks at neither: it multiplies the weight by the scale
# over the deviation that the file has, as in inference. Where the statistics are read, they are an error; where
# they are not, the numbers change without a warning. Guess before the run: it leaves training mode alone.
#
# Output seen (magnitude of the mean, and deviation, of the result):
#   training_mode=1  original 0.00 1.00  optimized 1.99 5.60  nodes: Conv
#   training_mode=0  original 1.99 5.60  optimized 1.99 5.60  nodes: Conv
#
# Exit status 0: as described; anything else: onnxscript behaves differently.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnxscript==0.7.2 onnx-ir==1.1.0 onnx==1.23.2 numpy==2.3.5
"$folder/venv/bin/python" - <<'PROGRAM'
import numpy as np
import onnx
import onnxscript.optimizer
from onnx.reference import ReferenceEvaluator

x = np.random.default_rng(0).standard_normal((8, 1, 4, 4)).astype(np.float32)
for mode in (1, 0):
    outputs = "y, m, v" if mode else "y"
    model = onnx.parser.parse_model(f"""
    <ir_version: 8, opset_import: ["": 18]>
    g (float[8, 1, 4, 4] x) => (float[8, 1, 4, 4] y)
    <float[1, 1, 1, 1] w = {{3}}, float[1] one = {{1}}, float[1] zero = {{0}}, float[1] mean = {{1.2}},
     float[1] var = {{0.26}}> {{
        h = Conv(x, w)
        {outputs} = BatchNormalization<training_mode={mode}>(h, one, zero, mean, var)
    }}""")
    onnx.checker.check_model(model, full_check=True)
    optimized = onnxscript.optimizer.optimize(model)
    nodes = ", ".join(node.op_type for node in optimized.graph.node)
    want, got = (ReferenceEvaluator(m).run(["y"], {"x": x})[0] for m in (model, optimized))
    numbers = [f"{abs(v.mean()):.2f} {v.std():.2f}" for v in (want, got)]
    print(f"training_mode={mode}  original {numbers[0]}  optimized {numbers[1]}  nodes: {nodes}")
    assert nodes == "Conv", nodes
    assert np.allclose(want, got, atol=1e-4) == (mode == 0)
PROGRAM

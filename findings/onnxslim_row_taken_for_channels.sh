#!/usr/bin/env bash
# onnxslim 0.1.98 (onnx 1.23.2, numpy 2.3.5): a product of a convolution with a row of numbers is folded into its
# weight as if the row were a column of channels.
#
# A vector of six numbers broadcasts along the last axis: each column of the image has its own factor. onnxslim
# folds a Mul behind a Conv into the weight of the Conv if the factor has as many elements as there are output
# channels, whatever its shape is. Where the image is as wide as there are channels, the numbers change and the
# shapes do not: nothing warns. A factor [6, 1, 1], which does stand for channels, is right.
# Guess before the run: it looks at the shape of the factor.
#
# Output seen:
#   factor of shape [6]        nodes: Conv  largest error 5.0
#   factor of shape [6, 1, 1]  nodes: Conv  largest error 0.0
#
# Exit status 0: as described; anything else: onnxslim behaves differently.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnxslim==0.1.98 onnx==1.23.2 numpy==2.3.5
"$folder/venv/bin/python" - <<'PROGRAM'
import numpy as np
import onnx
import onnxslim
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

x = np.ones((1, 1, 6, 6), np.float32)
for shape, changes in (("6", True), ("6, 1, 1", False)):
    model = onnx.parser.parse_model(f"""
    <ir_version: 8, opset_import: ["": 18]>
    g (float[1, 1, 6, 6] x) => (float[1, 6, 6, 6] y) <float[{shape}] factor = {{1, 2, 3, 4, 5, 6}}> {{
        h = Conv(x, w)
        y = Mul(h, factor)
    }}""")
    model.graph.initializer.append(
        numpy_helper.from_array(np.ones((6, 1, 1, 1), np.float32), "w")
    )
    onnx.checker.check_model(model, full_check=True)
    want = ReferenceEvaluator(model).run(None, {"x": x})[0]
    slim = onnxslim.slim(model)
    got = ReferenceEvaluator(slim).run(None, {"x": x})[0]
    error = np.abs(got - want).max()
    nodes = ", ".join(node.op_type for node in slim.graph.node)
    print(f"factor of shape {f'[{shape}]':10} nodes: {nodes}  largest error {error:.1f}")
    assert nodes == "Conv", nodes
    assert (error > 1) == changes, error
PROGRAM

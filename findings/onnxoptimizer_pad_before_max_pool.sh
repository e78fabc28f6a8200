#!/usr/bin/env bash
# onnxoptimizer 0.4.2 (onnx 1.23.2, numpy 2.3.5): a Pad of zeros before MaxPool becomes padding of MaxPool, which
# is not zero; before AveragePool it ends as padding that is left out of the average.
#
# Pad puts zeros around its input. MaxPool pads with minus infinity: at the border, the maximum of negative
# numbers is 0 with Pad and negative with `pads`. AveragePool divides by the number of elements without its own
# padding, unless count_include_pad is 1; zeros of Pad are elements like any other. The pass fuse_pad_into_pool
# moves the one into the other; where AveragePool has pads of its own, its divisor changes.
# Guess before the run: wrong for AveragePool alone.
#
# Output seen (a row in the middle, of minus ones; the optimized model has no Pad):
#   MaxPool                    original [0.0, -1.0, -1.0, 0.0]  optimized [-1.0, -1.0, -1.0, -1.0]
#   AveragePool                original [-0.67, -1.0, -1.0, -0.67]  optimized [-0.67, -1.0, -1.0, -0.67]
#   AveragePool, pads of 1     original [-0.5, -0.67, -1.0, -1.0, -0.67, -0.5]  optimized [-0.33, -0.67, -1.0, -1.0, -0.67, -0.33]
#
# Exit status 0: as described; anything else: onnxoptimizer behaves differently.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnxoptimizer==0.4.2 onnx==1.23.2 numpy==2.3.5
"$folder/venv/bin/python" - <<'PROGRAM'
import numpy as np
import onnx
import onnxoptimizer
from onnx.reference import ReferenceEvaluator

CASES = [  # name, operator behind the Pad, whether the result changes
    ("MaxPool", "MaxPool<kernel_shape=[3, 3]>", True),
    ("AveragePool", "AveragePool<kernel_shape=[3, 3]>", False),
    ("AveragePool, pads of 1", "AveragePool<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>", True),
]
x = -np.ones((1, 1, 4, 4), np.float32)


def run(model):
    y = ReferenceEvaluator(model).run(None, {"x": x})[0]
    return [round(v, 2) for v in y[0, 0, y.shape[2] // 2].tolist()]


for name, operator, changes in CASES:
    model = onnx.parser.parse_model(f"""
    <ir_version: 8, opset_import: ["": 18]>
    g (float[1, 1, 4, 4] x) => (float[1, 1, n, n] y) <int64[8] pads = {{0, 0, 1, 1, 0, 0, 1, 1}}> {{
        padded = Pad(x, pads)
        y = {operator}(padded)
    }}""")
    onnx.checker.check_model(model, full_check=True)
    optimized = onnxoptimizer.optimize(model, ["fuse_pad_into_pool"])
    assert [node.op_type for node in optimized.graph.node] == [operator.split("<")[0]], optimized
    want, got = run(model), run(optimized)
    print(f"{name:26} original {want}  optimized {got}")
    assert (want != got) == changes, name
PROGRAM

#!/usr/bin/env bash
# onnxoptimizer 0.4.2 (onnx 1.23.2, numpy 2.3.5): of two Reshapes in a row the first is removed, also where the
# second copies sizes from it.
#
# In the shape of a Reshape, 0 stands for the size that the input has at this place. The input of the second
# Reshape is the result of the first; without the first, its zeros mean other sizes. With
# get_fuse_and_elimination_passes(), the first one is removed whatever the second one's shape is. The result has
# another shape, without a warning.
# Guess before the run: it keeps the first Reshape where there is a 0 in the second.
#
# Output seen, for x of shape [2, 3, 4] that is reshaped to [4, 3, 2] first:
#   then [0, 0, -1]  original [4, 3, 2]  optimized [2, 3, 4]
#   then [0, -1]     original [4, 6]  optimized [2, 12]
#   then [6, -1]     original [6, 4]  optimized [6, 4]
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

x = np.zeros((2, 3, 4), np.float32)
for shape, changes in (([0, 0, -1], True), ([0, -1], True), ([6, -1], False)):
    sizes = ", ".join("abc"[: len(shape)])
    model = onnx.parser.parse_model(f"""
    <ir_version: 8, opset_import: ["": 18]>
    g (float[2, 3, 4] x) => (float[{sizes}] y)
    <int64[3] first = {{4, 3, 2}}, int64[{len(shape)}] second = {{{str(shape)[1:-1]}}}> {{
        h = Reshape(x, first)
        y = Reshape(h, second)
    }}""")
    onnx.checker.check_model(model)
    optimized = onnxoptimizer.optimize(model, onnxoptimizer.get_fuse_and_elimination_passes())
    assert len(optimized.graph.node) == 1, optimized.graph.node
    want, got = (list(ReferenceEvaluator(m).run(None, {"x": x})[0].shape) for m in (model, optimized))
    print(f"then {shape!s:11} original {want}  optimized {got}")
    assert (want != got) == changes, shape
PROGRAM

#!/usr/bin/env bash
# onnxoptimizer 0.4.2 (onnx 1.23.2, numpy 2.3.5): a Slice of a Shape with `start` is computed from the whole shape.
#
# Since opset 15, Shape has the attributes `start` and `end`. The pass eliminate_slice_after_shape replaces Shape
# and Slice by the sizes that the Slice takes, but counts from the first axis and not from `start`. The numbers of
# other axes come out, without a warning. Guess before the run: the pass leaves a Shape with `start` alone.
#
# Output seen, for x of shape [2, 3, 4] and the first element of the shape:
#   Shape(x)           original [2]  optimized [2]
#   Shape<start=1>(x)  original [3]  optimized [2]
#   Shape<start=-2>(x) original [3]  optimized [2]
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
for shape, changes in (("Shape(x)", False), ("Shape<start=1>(x)", True), ("Shape<start=-2>(x)", True)):
    model = onnx.parser.parse_model(f"""
    <ir_version: 8, opset_import: ["": 18]>
    g (float[2, 3, 4] x) => (int64[1] y) <int64[1] zero = {{0}}, int64[1] one = {{1}}> {{
        shape = {shape}
        first = Slice(shape, zero, one)
        y = Add(first, zero)
    }}""")
    onnx.checker.check_model(model, full_check=True)
    optimized = onnxoptimizer.optimize(model, ["eliminate_slice_after_shape"])
    assert "Slice" not in [node.op_type for node in optimized.graph.node], optimized
    want, got = (ReferenceEvaluator(m).run(None, {"x": x})[0].tolist() for m in (model, optimized))
    print(f"{shape:18} original {want}  optimized {got}")
    assert (want != got) == changes, shape
PROGRAM

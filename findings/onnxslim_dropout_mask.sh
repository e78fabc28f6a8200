#!/usr/bin/env bash
# onnxslim 0.1.98 (onnx 1.23.2, numpy 2.3.5): where the mask of a Dropout is read, the mask becomes the input.
#
# Dropout in inference returns its input and, as a second output, a mask of `true` everywhere. onnxslim removes
# the node and puts its input in the place of its outputs, of the mask, too. A sum of the two is 2x then instead
# of x + 1. Guess before the run: it keeps a Dropout whose mask is read.
#
# Output seen, for x = [5, 7]:
#   original   [6.0, 8.0]
#   optimized  [10.0, 14.0]
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
from onnx.reference import ReferenceEvaluator

x = np.array([5, 7], np.float32)
model = onnx.parser.parse_model("""
<ir_version: 8, opset_import: ["": 18]>
g (float[2] x) => (float[2] y) {
    h, mask = Dropout(x)
    m = Cast<to=1>(mask)
    y = Add(h, m)
}""")
onnx.checker.check_model(model, full_check=True)
want, got = (ReferenceEvaluator(m).run(None, {"x": x})[0].tolist() for m in (model, onnxslim.slim(model)))
print("original  ", want)
print("optimized ", got)
assert want == [6, 8], want
assert got == [10, 14], got
PROGRAM

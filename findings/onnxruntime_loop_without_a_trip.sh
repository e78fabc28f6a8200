#!/usr/bin/env bash
# onnxruntime 1.32.0 (CPU, onnx 1.23.2, numpy 2.3.5): the rank of a Loop's scan output depends on the number
# of trips, unless the body declares the shape of what the loop carries.
#
# Each model runs a body `trips` times and collects row = Relu(v), where v is the value that the loop
# carries: float[2, 3], passed in with that shape and never changed. With two trips the result is
# [2, 2, 3] in both models. With no trip there is no row to take a shape from; onnxruntime then uses the
# shape that shape inference found for the body's output. Inference does not pass the shape of the initial
# value on to the body, so the result is [0] where the body declares `float v` and [0, 2, 3] where it declares
# `float[2,3] v`. Code that concatenates results over calls fails on the former. Optimization changes
# nothing. Guess before the run: [0, 2, 3] in both, as the shape of v is known in the main graph.
#
# Output seen:
#   float v       two trips (2, 2, 3)  no trip (0,)
#   float[2,3] v  two trips (2, 2, 3)  no trip (0, 2, 3)
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

TEXT = """
<ir_version: 10, opset_import: ["": 21]>
g (int64 trips, float[2,3] x) => (float[2,3] y, float[n,a,b] rows) {
    yes = Constant <value = bool {1}> ()
    y, rows = Loop (trips, yes, x) <body = body (int64 i, bool go, STATE) => (bool more, float next, float row) {
        more = Identity (go)
        next = Identity (v)
        row = Relu (v)
    }>
}"""
x = np.ones((2, 3), np.float32)
levels = ort.GraphOptimizationLevel
for level in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_ALL):
    for state, empty in (("float v", (0,)), ("float[2,3] v", (0, 2, 3))):
        model = onnx.parser.parse_model(TEXT.replace("STATE", state))
        body = model.graph.node[1].attribute[0].g
        for info in [*body.output[1:], *(body.input[2:] if state == "float v" else ())]:
            info.type.tensor_type.ClearField("shape")  # not declared, which is not rank 0
        onnx.checker.check_model(model)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = level
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        two, none = (session.run(["rows"], {"trips": np.array(n), "x": x})[0] for n in (2, 0))
        print(f"{state:13} two trips {two.shape}  no trip {none.shape}")
        assert two.shape == (2, 2, 3), two.shape
        assert none.shape == empty, none.shape
PROGRAM

#!/usr/bin/env bash
# openvino 2026.4.1 (CPU, onnx 1.23.2, numpy 2.3.5): integers beyond 2**24 are compared, divided with remainder
# and reduced as float32, even those of int32; integers of int64 wrap around at 32 bits, even unread ones.
#
# OpenVINO's documentation names i32 as the integer type in which its CPU device computes. That holds for Add,
# Sub, Mul, Max and TopK. Equal, Greater, Mod and ReduceMax compute with float32 instead, which has 24 bits:
# 16777217 and 16777216 are equal, the remainder of their division is 0, and the greatest of three numbers is
# one that is not among them. Of int64, the compiled model declares 64-bit inputs and outputs, but a model that
# only returns its input changes 3000000000 to a negative number. Nothing warns. This hits hashes, identifiers
# and times. Guess before the run: int32 is exact in all operators; Identity keeps int64, arithmetic does not.
#
# Output seen, for x = [5, 16777217, 16777219] and z = [6, 16777216, 16777218]:
#   int32 Sub(x, z)       right  [-1, 1, 1]
#   int32 Max(x, z)       right  [6, 16777217, 16777219]
#   int32 Equal(x, z)     wrong  [False, True, False]  ONNX: [False, False, False]
#   int32 Greater(x, z)   wrong  [False, False, True]  ONNX: [False, True, True]
#   int32 Mod(x, z)       wrong  [5, 0, 2]  ONNX: [5, 1, 1]
#   int32 ReduceMax(x)    wrong  [16777220]  ONNX: [16777219]
# for x = [5, 2147483647, 3000000000] and z = [1, 1, 1]:
#   int64 Identity(x)     wrong  [5, 2147483647, -1294967296]  ONNX: [5, 2147483647, 3000000000]
#   int64 Add(x, z)       wrong  [6, -2147483648, -1294967295]  ONNX: [6, 2147483648, 3000000001]
#
# Exit status 0: as described; anything else: OpenVINO behaves differently. It is checked on x86-64 only, as
# OpenVINO has other kernels elsewhere; there the script says so. The hint of the inference precision is float32,
# so that processors with bfloat16 compute the same.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openvino==2026.4.1 onnx==1.23.2 numpy==2.3.5
"$folder/venv/bin/python" - "$folder/model.onnx" <<'PROGRAM'
import platform
import sys

import numpy as np
import onnx
import openvino as ov
from onnx.reference import ReferenceEvaluator

if platform.machine() not in ("x86_64", "AMD64"):
    print("not checked: OpenVINO has other kernels on this processor")
    sys.exit()

SMALL = [5, 2**24 + 1, 2**24 + 3], [6, 2**24, 2**24 + 2]
LARGE = [5, 2**31 - 1, 3_000_000_000], [1, 1, 1]
# type, call, type of the result, inputs, result of OpenVINO (None: the right one)
CASES = [
    ("int32", "Sub(x, z)", "int32[3]", SMALL, None),
    ("int32", "Max(x, z)", "int32[3]", SMALL, None),
    ("int32", "Equal(x, z)", "bool[3]", SMALL, [False, True, False]),
    ("int32", "Greater(x, z)", "bool[3]", SMALL, [False, False, True]),
    ("int32", "Mod(x, z)", "int32[3]", SMALL, [5, 0, 2]),
    ("int32", "ReduceMax(x)", "int32[1]", SMALL, [2**24 + 4]),
    ("int64", "Identity(x)", "int64[3]", LARGE, [5, 2**31 - 1, 3_000_000_000 - 2**32]),
    ("int64", "Add(x, z)", "int64[3]", LARGE, [6, -(2**31), 3_000_000_001 - 2**32]),
]


def run(dtype: str, call: str, result: str, inputs) -> tuple[np.ndarray, np.ndarray]:
    """The results of OpenVINO and of ONNX's reference."""
    model = onnx.parser.parse_model(f"""
    <ir_version: 8, opset_import: ["": 17]>
    g ({dtype}[3] x, {dtype}[3] z) => ({result} y) {{ y = {call} }}""")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, sys.argv[1])
    fed = {name: np.array(values, dtype) for name, values in zip("xz", inputs)}
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov.Core().compile_model(sys.argv[1], "CPU", hint)
    return compiled(fed)[0], ReferenceEvaluator(model).run(None, fed)[0]


for dtype, call, result, inputs, seen in CASES:
    values, want = run(dtype, call, result, inputs)
    right = values.tolist() == want.tolist()
    end = "" if right else f"  ONNX: {want.tolist()}"
    print(f"{dtype} {call:15} {'right' if right else 'wrong'}  {values.tolist()}{end}")
    assert values.dtype == want.dtype, values.dtype
    assert values.tolist() == (want.tolist() if seen is None else seen), values
PROGRAM

#!/usr/bin/env bash
# torch 2.14.1 (CPU, numpy 2.3.5): torch.ops.onednn.qlinear_pointwise takes more than a thousand times as long
# with int8 activations as with uint8, on processors with AVX512_VNNI.
#
# The same numbers are multiplied by the same prepacked weights, once as uint8 with zero point 128, once as
# int8 with zero point 0. Both results are right. qlinear_prepack is not told the type of the activations and
# packs for uint8; for this layout oneDNN has no kernel that takes int8, and it runs its reference kernel, which
# is a thousand times slower even than the product of floats. Nothing warns: only ONEDNN_VERBOSE=1 shows the kernel.
# torch._int_mm, of two int8 matrices, is not slow. Guess before the run: int8 takes up to four times as long.
#
# Output seen (one thread, minima of 5 calls, a processor with AVX512_VNNI and without AMX):
#   uint8, zero point 128  brg_matmul     0.06 ms
#   int8, zero point 0     ref_int8     178.65 ms
#   float32, F.linear                     0.17 ms
#   torch._int_mm of int8                 0.04 ms
#
# Exit status 0: as described, with a ratio of the first two above 50; anything else: torch behaves
# differently. oneDNN is limited to AVX512_CORE_VNNI, as AMX may have other kernels. On processors without
# AVX512_VNNI the script says so and checks nothing; with AVX2 alone, it was not seen.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset DNNL_MAX_CPU_ISA ATEN_CPU_CAPABILITY
export ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.3.5
cat >"$folder/program.py" <<'PROGRAM'
import os
import subprocess
import sys
import time

import torch
from torch.nn.functional import linear

torch.manual_seed(0)
torch.set_num_threads(1)
numbers = torch.randint(-128, 128, (128, 256))
weights = torch.randint(-127, 128, (256, 256), dtype=torch.int8)
packed = torch.ops.onednn.qlinear_prepack(weights, list(numbers.shape))
scales, zeros = torch.full((256,), 0.01), torch.zeros(256, dtype=torch.int64)
ACTIVATIONS = {"uint8": ((numbers + 128).to(torch.uint8), 128), "int8": (numbers.to(torch.int8), 0)}


def product(kind: str) -> torch.Tensor:
    x, zero = ACTIVATIONS[kind]
    return torch.ops.onednn.qlinear_pointwise(
        x, 0.02, zero, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )


def milliseconds(function) -> float:
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best * 1e3


def kernel(kind: str) -> str:
    """The kernel of oneDNN, from a run in a process of its own."""
    command = [sys.executable, __file__, kind]
    verbose = {**os.environ, "ONEDNN_VERBOSE": "1"}
    lines = subprocess.run(command, env=verbose, check=True, capture_output=True, text=True).stdout
    (line,) = [li for li in lines.splitlines() if ",exec,cpu,matmul," in li]
    return line.split(",matmul,")[1].split(":")[0]


if len(sys.argv) > 1:
    product(sys.argv[1])
    sys.exit()
if not torch.cpu._is_vnni_supported():
    print("not checked: the processor has no AVX512_VNNI")
    sys.exit()
want = linear(numbers.double() * 0.02, weights.double() * 0.01)
times, kernels = {}, {}
for kind, (_, zero) in ACTIVATIONS.items():
    torch.testing.assert_close(product(kind).double(), want, rtol=1e-4, atol=1e-3)
    times[kind], kernels[kind] = milliseconds(lambda: product(kind)), kernel(kind)
    label = f"{kind}, zero point {zero}"
    print(f"{label:22} {kernels[kind]:10} {times[kind]:8.2f} ms")
x, w = numbers.float() * 0.02, weights.float() * 0.01
left, right = numbers.to(torch.int8), weights.t().contiguous()
print(f"{'float32, F.linear':33} {milliseconds(lambda: linear(x, w)):8.2f} ms")
print(f"{'torch._int_mm of int8':33} {milliseconds(lambda: torch._int_mm(left, right)):8.2f} ms")
assert kernels == {"uint8": "brg_matmul", "int8": "ref_int8"}, kernels
assert times["int8"] > 50 * times["uint8"], times
PROGRAM
"$folder/venv/bin/python" "$folder/program.py"

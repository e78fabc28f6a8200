#!/usr/bin/env bash
# torch 2.14.1 (CPU, numpy 2.3.5): torch._int_mm gives wrong sums, without a warning, when ONEDNN_MAX_CPU_ISA
# excludes the VNNI instructions that the processor has.
#
# torch._int_mm multiplies 8-bit integers and returns int32. Without VNNI, oneDNN adds two products in 16 bits
# and saturates; torch therefore uses a kernel of its own on processors without AVX512_VNNI. But it asks the
# processor, not oneDNN: where ONEDNN_MAX_CPU_ISA=AVX2 or AVX512_CORE (set to reproduce the results of older
# machines, or to compare) takes VNNI away, torch still calls oneDNN. A sum of 64 products 127 * 127 is then
# 8160 instead of 1032256, as signed inputs are shifted by 128 first. ATEN_CPU_CAPABILITY=avx2, which limits
# torch's own kernels, changes nothing. Guess before the run: exact in all, as nothing has to be rounded.
#
# Output seen:
#   no limit                               uint8 2072640  int8 1032256  exact
#   ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI    uint8 2072640  int8 1032256  exact
#   ONEDNN_MAX_CPU_ISA=AVX512_CORE         uint8 1048544  int8    8160  wrong
#   ONEDNN_MAX_CPU_ISA=AVX2                uint8 1048544  int8    8160  wrong
#   ATEN_CPU_CAPABILITY=avx2               uint8 2072640  int8 1032256  exact
#
# Exit status 0: as described; anything else: torch behaves differently. It needs an x86-64 processor with
# AVX512_VNNI; on others the script says so and checks nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset ONEDNN_MAX_CPU_ISA DNNL_MAX_CPU_ISA ATEN_CPU_CAPABILITY
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.3.5
if ! "$folder/venv/bin/python" -c 'import sys, torch; sys.exit(not torch.cpu._is_vnni_supported())'; then
    echo "not checked: the processor has no AVX512_VNNI"
    exit 0
fi
cat >"$folder/program.py" <<'PROGRAM'
import sys

import torch

weights = torch.full((64, 32), 127, dtype=torch.int8)
unsigned = torch._int_mm(torch.full((32, 64), 255, dtype=torch.uint8), weights)
signed = torch._int_mm(torch.full((32, 64), 127, dtype=torch.int8), weights)
exact = bool((unsigned == 64 * 255 * 127).all() and (signed == 64 * 127 * 127).all())
limit, want = sys.argv[1:]
word = "exact" if exact else "wrong"
print(f"{limit:38} uint8 {unsigned[0, 0]:7}  int8 {signed[0, 0]:7}  {word}")
assert word == want, (unsigned, signed)
if not exact:
    assert unsigned[0, 0] == 32 * 32767, unsigned
    assert signed[0, 0] == 32 * 32767 - 64 * 128 * 127, signed
PROGRAM
check() {
    if [ "$1" = "no limit" ]; then
        "$folder/venv/bin/python" "$folder/program.py" "$1" "$2"
    else
        env "$1" "$folder/venv/bin/python" "$folder/program.py" "$1" "$2"
    fi
}
check "no limit" exact
check ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI exact
check ONEDNN_MAX_CPU_ISA=AVX512_CORE wrong
check ONEDNN_MAX_CPU_ISA=AVX2 wrong
check ATEN_CPU_CAPABILITY=avx2 exact

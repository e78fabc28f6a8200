#!/usr/bin/env bash
# torch 2.14.1 (CPU, numpy 2.3.5): scaled_dot_product_attention with is_causal=True and a negative scale
# returns nan for every query that must not see all keys.
#
# The documentation defines is_causal by a mask whose hidden scores are -inf, added after the product
# is scaled. Expected: the result of the same mask given as attn_mask. The fused kernel of the CPU
# hides keys before it scales: -inf times a negative scale is inf, and its softmax nan. The math
# backend, and attn_mask in the fused kernel, are right. Models that subtract scores are rare, but a
# negative scale is valid in Attention of com.microsoft and in calls of torch.
#
# Output seen (the first channel of three queries):
#   is_causal=True   [nan, nan, 0.1309...]
#   attn_mask        [1.5409..., 1.3946..., 0.1309...]
#   math backend     [1.5409..., 1.3946..., 0.1309...]
#
# Exit status 0: as described; anything else: torch behaves differently. Checked on x86-64.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.3.5
"$folder/venv/bin/python" - <<'PROGRAM'
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as attention

q = torch.randn(1, 1, 3, 4, generator=torch.Generator().manual_seed(0))
mask = torch.ones(3, 3, dtype=torch.bool).tril()
causal = attention(q, q, q, is_causal=True, scale=-0.5)[0, 0]
masked = attention(q, q, q, attn_mask=mask, scale=-0.5)[0, 0]
with sdpa_kernel(SDPBackend.MATH):
    math = attention(q, q, q, is_causal=True, scale=-0.5)[0, 0]
for name, y in (("is_causal=True", causal), ("attn_mask", masked), ("math backend", math)):
    print(f"{name:16}", y[:, 0].tolist())
expected = ((q @ q.mT * -0.5).masked_fill(~mask, -torch.inf).softmax(-1) @ q)[0, 0]
torch.testing.assert_close(masked, expected)
torch.testing.assert_close(math, expected)
assert causal[:2].isnan().all()
torch.testing.assert_close(causal[2], expected[2])
PROGRAM

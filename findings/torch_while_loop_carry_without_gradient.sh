#!/usr/bin/env bash
# torch 2.14.1: the gradient of a compiled while_loop loses what flows through a carried value that needs none at first.
#
# torch.while_loop is what an ONNX Loop becomes in a graph whose trip count is data. The body here halves x and adds
# it to a sum, which begins as zeros, without a gradient. The sum after three trips is (1/2 + 1/4 + 1/8) x, so its
# gradient is 0.875. The result is right. The gradient is that of the last trip alone: 0.125. Guess before the run:
# 0.875, since the body's gradients by both carried values are known. With zeros that depend on x, they are right.
#
# Output seen:
#   trips  sum    gradient  gradient of zeros that depend on x
#   1      0.5    0.5       0.5
#   2      0.75   0.25      0.75
#   3      0.875  0.125     0.875
#
# Exit status 0: as described; anything else: torch behaves differently.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PROGRAM'
import warnings

import torch
from torch._higher_order_ops import while_loop

warnings.simplefilter("ignore")


def halved(x, zeros, trips):
    start = (torch.zeros((), dtype=torch.int64), x.clone(), zeros)
    return while_loop(lambda i, v, s: i < trips, lambda i, v, s: (i + 1, v / 2, s + v / 2), start)[2]


def plain(x, trips):
    return halved(x, torch.zeros(1), trips)


def dependent(x, trips):
    return halved(x, torch.zeros(1) - x[:0].sum(), trips)


def run(function, trips):
    x = torch.ones(1, requires_grad=True)
    y = function(x, torch.tensor(trips))
    y.sum().backward()
    return float(y), float(x.grad)


functions = [torch.compile(f, backend="aot_eager", fullgraph=True) for f in (plain, dependent)]
seen = {}
for trips in (1, 2, 3):
    (result, gradient), (same, right) = [run(function, trips) for function in functions]
    assert result == same == 1 - 0.5**trips, trips
    seen[trips] = result, gradient, right
print("trips  sum    gradient  gradient of zeros that depend on x")
for trips, (result, gradient, right) in seen.items():
    print(f"{trips:<7}{result:<7}{gradient:<10}{right}")
assert seen == {1: (0.5, 0.5, 0.5), 2: (0.75, 0.25, 0.75), 3: (0.875, 0.125, 0.875)}, seen
PROGRAM

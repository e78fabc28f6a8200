#!/usr/bin/env bash
# torch 2.14.1: the gradient of a compiled while_loop that makes no trip is that of one trip.
#
# torch.while_loop is what an ONNX Loop becomes in a graph whose trip count is data. The body here negates the
# carried value, so the gradient of the result is -1 after an odd number of trips and 1 after an even one. The
# result of no trip is right: the value itself. Its gradient is -1. Guess before the run: 1, as for two trips.
# Under torch.cond, which runs the loop only where it makes a trip, all gradients are right.
#
# Output seen:
#   trips  result  gradient  gradient under cond
#   0      1       -1        1
#   1      -1      -1        -1
#   2      1       1         1
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


def negated(x, trips):
    start = (torch.zeros((), dtype=torch.int64), x.clone())
    return while_loop(lambda i, v: i < trips, lambda i, v: (i + 1, -v), start)[1]


def guarded(x, trips):
    return torch.cond(trips > 0, lambda: negated(x, trips), lambda: x.clone())


def run(function, trips):
    x = torch.ones(1, requires_grad=True)
    y = function(x, torch.tensor(trips))
    y.sum().backward()
    return int(y), int(x.grad)


functions = [torch.compile(f, backend="aot_eager", fullgraph=True) for f in (negated, guarded)]
seen = {}
for trips in (1, 0, 2):  # compiled for one trip, which is no different from the others
    (result, gradient), (same, right) = [run(function, trips) for function in functions]
    assert result == same, trips
    seen[trips] = result, gradient, right
print("trips  result  gradient  gradient under cond")
for trips, (result, gradient, right) in sorted(seen.items()):
    print(f"{trips:<7}{result:<8}{gradient:<10}{right}")
assert seen == {0: (1, -1, 1), 1: (-1, -1, -1), 2: (1, 1, 1)}, seen
PROGRAM

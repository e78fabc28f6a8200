#!/usr/bin/env bash
# torch 2.14.1 (CPU, numpy 2.3.5): with torch.jit.enable_onednn_fusion(True), a frozen graph gives wrong numbers
# for a value that is a summand of a fused sum and is read once more after it.
#
# Each model computes e = a(x) and f = e + b(x), where a and b are layers, and joins e and f. From the second
# call of the frozen graph on, when oneDNN has compiled its parts, e is equal to f, bit for bit: the sum, which
# is fused into the layer b, seems to be written to the memory of e, although torch.cat still reads e. Nothing
# warns. It happens after tracing and scripting, with convolutions and with linear layers, in either order; it
# is the residual connection of many detectors, whose blocks concatenate what they have summed. The same graph
# without fusion is right, and so is the model that returns e and f instead of joining them.
# Guess before the run: fused and unfused results differ by less than 1e-4.
#
# Output seen (the largest error, of the first call and of the fourth):
#   convolutions  cat([e, f])  traced     fusion: 0.0 2.3  e is f: True   without: 0.0 0.0
#   convolutions  cat([f, e])  traced     fusion: 0.0 2.3  e is f: True   without: 0.0 0.0
#   convolutions  e, f         traced     fusion: 0.0 0.0  e is f: False  without: 0.0 0.0
#   convolutions  cat([e, f])  scripted   fusion: 0.0 2.3  e is f: True   without: 0.0 0.0
#   linears       cat([e, f])  traced     fusion: 0.0 1.6  e is f: True   without: 0.0 0.0
#
# Exit status 0: as described; anything else: torch behaves differently. torch has this fusion on x86-64 only;
# on other processors the script says so and checks nothing. The instruction set does not matter: the same was
# seen with ONEDNN_MAX_CPU_ISA=SSE41 and AVX2.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy==2.3.5
cat >"$folder/program.py" <<'PROGRAM'
import platform
import sys
import warnings

import torch
from torch import nn

warnings.simplefilter("ignore")
if platform.machine() not in ("x86_64", "AMD64"):
    print("not checked: torch has this fusion on x86-64 only")
    sys.exit()


class Block(nn.Module):
    def __init__(self, a: nn.Module, b: nn.Module) -> None:
        super().__init__()
        self.a, self.b = a, b


class Joined(Block):
    def forward(self, x):
        e = self.a(x)
        return torch.cat([e, e + self.b(x)], 1)


class JoinedSwapped(Block):
    def forward(self, x):
        e = self.a(x)
        return torch.cat([e + self.b(x), e], 1)


class Apart(Block):
    def forward(self, x):
        e = self.a(x)
        return e, e + self.b(x)


def joined(result) -> torch.Tensor:
    return torch.cat(result, 1) if isinstance(result, tuple) else result


def run(model: nn.Module, x: torch.Tensor, scripted: bool, fusion: bool):
    """Errors of the first and the fourth call, and whether both halves of the fourth are equal."""
    before = torch.jit.onednn_fusion_enabled()
    torch.jit.enable_onednn_fusion(fusion)
    try:
        graph = torch.jit.script(model) if scripted else torch.jit.trace(model, x)
        graph = torch.jit.freeze(graph)
        results = [joined(graph(x)) for _ in range(4)]
    finally:
        torch.jit.enable_onednn_fusion(before)
    want = joined(model(x))
    errors = [(results[i] - want).abs().max().item() for i in (0, 3)]
    return errors, torch.equal(*results[3].chunk(2, 1))


def layers(kind: str) -> tuple[nn.Module, nn.Module]:
    if kind == "linears":
        return nn.Linear(16, 16), nn.Linear(16, 16)
    return nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)


inputs = {"convolutions": (1, 8, 20, 20), "linears": (4, 16)}
cases = [
    ("convolutions", Joined, "cat([e, f])", False),
    ("convolutions", JoinedSwapped, "cat([f, e])", False),
    ("convolutions", Apart, "e, f", False),
    ("convolutions", Joined, "cat([e, f])", True),
    ("linears", Joined, "cat([e, f])", False),
]
with torch.no_grad():
    for kind, block, text, scripted in cases:
        torch.manual_seed(0)
        model, x = block(*layers(kind)).eval(), torch.randn(inputs[kind])
        fused, same = run(model, x, scripted, True)
        unfused, _ = run(model, x, scripted, False)
        how = "scripted" if scripted else "traced"
        print(
            f"{kind:13} {text:12} {how:10} fusion: {fused[0]:.1f} {fused[1]:.1f}  e is f: {same!s:6}"
            f" without: {unfused[0]:.1f} {unfused[1]:.1f}"
        )
        assert max(unfused) < 1e-4 and fused[0] < 1e-4, (unfused, fused)
        if block is Apart:
            assert fused[1] < 1e-4 and not same, fused
        else:
            assert fused[1] > 0.5 and same, fused
PROGRAM
"$folder/venv/bin/python" "$folder/program.py"

#!/usr/bin/env bash
# torch 2.14.1 (CPU, onnx 1.23.2, onnxscript 0.7.2, numpy 2.3.5): the module scopes in an exported file do not
# say which call of a module a node belongs to.
#
# Two models compute the same: one calls its block twice, the other calls it once, and the block repeats its
# layers twice inside. torch.export tells them apart: the keys of `nn_module_stack` number the calls
# (`block@1`). torch.onnx.export(dynamo=True) writes the values of these entries without the keys, so
# `pkg.torch.onnx.name_scopes` is the same in both, with and without optimization. The two files are even
# equal byte by byte (the models are of the same classes, so stack traces agree too): no importer can restore
# the calls of modules from the file. This matters for a model with a shared encoder or recurrent block.
# Guess before the run: as seen, once an embedding that is called twice had shown equal scopes.
#
# Output seen:
#   torch.export, block called twice  block block block@1 block@1
#   torch.export, block called once   block block block block
#   ONNX, block called twice          block block block block
#   ONNX, block called once           block block block block
#   files are equal: True
#   (the last three lines are printed twice, for optimize=True and for optimize=False)
#
# Exit status 0: as described; anything else: torch behaves differently.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 onnx==1.23.2 onnxscript==0.7.2 numpy==2.3.5
cd "$folder"
cat > program.py <<'PROGRAM'
import ast
import logging
from pathlib import Path

import onnx
import torch
from torch import nn

logging.disable(logging.WARNING)  # that torchvision is not installed


class Block(nn.Module):
    def __init__(self, repeats):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.repeats = repeats

    def forward(self, x):
        for _ in range(self.repeats):
            x = self.linear(x).relu()
        return x


class Net(nn.Module):
    def __init__(self, calls):
        super().__init__()
        self.block = Block(repeats=2 // calls)
        self.calls = calls

    def forward(self, x):
        for _ in range(self.calls):
            x = self.block(x)
        return x


def exported(net):
    graph = torch.export.export(net, (x,)).graph
    stacks = [list(n.meta["nn_module_stack"]) for n in graph.nodes if n.op == "call_function"]
    return [stack[1].removeprefix("L__self__") for stack in stacks]


def noted(path):
    notes = [{e.key: e.value for e in n.metadata_props} for n in onnx.load(path).graph.node]
    return [ast.literal_eval(note["pkg.torch.onnx.name_scopes"])[1] for note in notes]


x = torch.rand(1, 3)
nets = {"twice": Net(calls=2).eval(), "once": Net(calls=1).eval()}
nets["once"].load_state_dict(nets["twice"].state_dict())
torch.testing.assert_close(nets["once"](x), nets["twice"](x))
for name, expected in (("twice", "@1"), ("once", "")):
    scopes = exported(nets[name])
    print(f"torch.export, block called {name:6}", *scopes)
    assert scopes == ["block", "block", f"block{expected}", f"block{expected}"], scopes
for optimize in (True, False):
    for name, net in nets.items():
        path = f"{name}.onnx"
        torch.onnx.export(net, (x,), path, dynamo=True, optimize=optimize, verbose=False)
        scopes = noted(path)
        print(f"ONNX, block called {name:14}", *scopes)
        assert set(scopes) == {"block"}, scopes
    equal = Path("once.onnx").read_bytes() == Path("twice.onnx").read_bytes()
    print("files are equal:", equal)
    assert equal
PROGRAM
"$folder/venv/bin/python" -W ignore program.py

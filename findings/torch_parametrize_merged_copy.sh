#!/usr/bin/env bash
# torch 2.14.1 (CPU, onnx 1.23.2, onnxscript 0.7.2, numpy 2.3.5): merging LoRA in a deep copy, for example to
# export it, breaks the model that was copied.
#
# LoRA is written as a parametrization of `weight` (torch.nn.utils.parametrize). To export a checkpoint with
# plain weights while the training goes on, one merges a copy: copy.deepcopy, remove_parametrizations, then
# torch.onnx.export. The copy and its file are right. But the copied layer has the same dynamic class
# as the original layer, and remove_parametrizations deletes the property `weight` from that class: the next
# forward of the original raises AttributeError, although its state dict is complete and is_parametrized
# still returns True. A model that was built anew and loaded with the state dict has classes of its own;
# merging that one is safe. Guess before the run: as seen, since a deep copy keeps the class of its original.
#
# Output seen:
#   merge of a model built anew  file: 0.bias 0.weight 2.bias 2.weight  original runs: True
#   merge of a deep copy         file: 0.bias 0.weight 2.bias 2.weight  original runs: False
#   AttributeError: 'ParametrizedLinear' object has no attribute 'weight'
#
# Exit status 0: as described; anything else: torch behaves differently.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 onnx==1.23.2 onnxscript==0.7.2 numpy==2.3.5
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PROGRAM'
import copy
import logging

import onnx
import torch
from torch import nn
from torch.nn.utils import parametrize

logging.disable(logging.WARNING)  # that torchvision is not installed


class Lora(nn.Module):
    def __init__(self, rows, columns, rank=2):
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, columns))
        self.up = nn.Parameter(torch.randn(rows, rank))

    def forward(self, weight):
        return weight + self.up @ self.down


def build():
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    for layer in (net[0], net[2]):
        parametrize.register_parametrization(layer, "weight", Lora(*layer.weight.shape))
    return net


def merge_and_export(net):
    for layer in (net[0], net[2]):
        parametrize.remove_parametrizations(layer, "weight")
    torch.testing.assert_close(net(x), expected)
    torch.onnx.export(net.eval(), (x,), "net.onnx", dynamo=True, verbose=False)
    return sorted(tensor.name for tensor in onnx.load("net.onnx").graph.initializer)


x = torch.rand(2, 4)
original = build()
expected = original(x)
rebuilt = build()
rebuilt.load_state_dict(original.state_dict())
names = merge_and_export(rebuilt)
torch.testing.assert_close(original(x), expected)
print("merge of a model built anew  file:", *names, " original runs: True")
before = set(original.state_dict())
names = merge_and_export(copy.deepcopy(original))
assert set(original.state_dict()) == before
assert parametrize.is_parametrized(original[0], "weight")
try:
    original(x)
except AttributeError as error:
    print("merge of a deep copy         file:", *names, " original runs: False")
    print(f"AttributeError: {error}")
else:
    raise SystemExit("the original runs: a deep copy is independent of it")
PROGRAM

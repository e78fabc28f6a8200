#!/usr/bin/env bash
# torch 2.14.1 (CPU, onnx 1.23.2, onnxscript 0.7.2, numpy 2.3.5): a convolution with a folded BatchNorm has
# the names of the convolution's parameters and the scopes of the BatchNorm module.
#
# torch.onnx.export(dynamo=True) folds the BatchNorm behind a convolution into its weight and bias. In the
# file, the folded tensors are still named `conv.weight` and `conv.bias`, although their values are others,
# and the metadata of the Conv node says that it is a call of the module `norm`. Two consequences:
#   - Tensors that are read from the file by name load into the original model without a complaint about
#     them (strict=False skips the missing ones of `norm`), and the BatchNorm is then applied twice.
#   - A tool that groups nodes by `pkg.torch.onnx.name_scopes` finds no call of `conv`.
# That a rule has fused nodes is only in the metadata `pkg.onnxscript.rewriter.rule_name`. With optimize=False
# names, values and scopes agree. The older exporter (dynamo=False) folds too, but renames what it changes.
# Guess before the run: the Conv node keeps the scopes of `conv` (wrong); loading by name goes wrong (right).
#
# Output seen:
#   optimize=True   scopes of Conv: norm  names: conv.bias, conv.weight  error after loading by name: 7.9
#   optimize=False  scopes of Conv: conv  names: all of the model  error after loading by name: 0.0
#   dynamo=False    names: onnx::Conv_11, onnx::Conv_12
#
# Exit status 0: as described; anything else: torch or onnxscript behaves differently.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 onnx==1.23.2 onnxscript==0.7.2 numpy==2.3.5
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PROGRAM'
import ast
import copy
import logging

import onnx
import torch
from torch import nn

logging.disable(logging.WARNING)  # that torchvision is not installed


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x):
        return self.norm(self.conv(x))


def export(**options):
    torch.onnx.export(net, (x,), "net.onnx", verbose=False, **options)
    graph = onnx.load("net.onnx").graph
    tensors = {t.name: torch.tensor(onnx.numpy_helper.to_array(t)) for t in graph.initializer}
    return graph.node[0], tensors


torch.manual_seed(0)
net = Net()
x = torch.rand(4, 1, 5, 5)
with torch.no_grad():
    net.norm.weight.copy_(torch.tensor([0.5, 2.0]))
    for _ in range(20):
        net(x)  # running statistics of the data, not 0 and 1
net.eval()
for optimize in (True, False):
    node, tensors = export(dynamo=True, optimize=optimize)
    assert node.op_type == "Conv", node.op_type
    notes = {entry.key: entry.value for entry in node.metadata_props}
    module = ast.literal_eval(notes["pkg.torch.onnx.name_scopes"])[1]
    loaded = copy.deepcopy(net)
    missing, unexpected = loaded.load_state_dict(tensors, strict=False)
    assert not unexpected, unexpected
    error = (loaded(x) - net(x)).abs().max().item()
    names = ", ".join(sorted(tensors)) if missing else "all of the model"
    print(f"optimize={optimize!s:6} scopes of Conv: {module}  names: {names}", end="  ")
    print(f"error after loading by name: {error:.1f}")
    if optimize:
        assert module == "norm", module
        assert set(tensors) == {"conv.weight", "conv.bias"}, tensors
        assert not torch.allclose(tensors["conv.weight"], net.conv.weight)
        assert error > 0.5, error
        assert "pkg.onnxscript.rewriter.rule_name" in notes, notes
    else:
        assert module == "conv", module
        assert not missing, missing
        assert error == 0, error
_, tensors = export(dynamo=False)
print(f"dynamo=False    names: {', '.join(sorted(tensors))}")
assert not set(tensors) & set(net.state_dict()), tensors
PROGRAM

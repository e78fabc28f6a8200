#!/usr/bin/env bash
# torch 2.14.1 (onnx 1.23.2, onnxscript 0.7.2, onnxruntime 1.32.0): without the optimizer, the newer exporter
# writes a convolution over three dimensions that has no bias with a bias of the wrong size.
#
# torch.onnx.export(dynamo=True, optimize=False) is the way to keep parameters as they are for training. A
# convolution without bias gets one of zeros then: Shape of the weight, its first size, Expand. nn.Conv1d and
# nn.Conv2d get one zero for each output channel. nn.Conv3d gets zeros of the shape [output channels, 2]: the
# file passes onnx.checker with full_check, but onnxruntime cannot run it. With the optimizer, no bias is
# written and the file runs. Guess before the run: all three run, with the optimizer and without.
#
# Output seen:
#   Conv1d  optimize=False runs           optimize=True runs
#   Conv2d  optimize=False runs           optimize=True runs
#   Conv3d  optimize=False refused: bias  optimize=True runs
#
# Exit status 0: as described; anything else: torch or onnxruntime behaves differently.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PROGRAM'
import warnings

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import nn

warnings.simplefilter("ignore")
ort.set_default_logger_severity(4)


def outcome(dimensions: int, optimize: bool) -> str:
    layer = getattr(nn, f"Conv{dimensions}d")(3, 4, 3, bias=False).eval()
    x = torch.randn(2, 3, *[5] * dimensions)
    program = torch.onnx.export(layer, (x,), dynamo=True, optimize=optimize, verbose=False)
    model = program.model_proto
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString())
    try:
        (y,) = session.run(None, {model.graph.input[0].name: x.numpy()})
    except Exception as error:
        assert "bias must be a 1D tensor" in str(error), error
        return "refused: bias"
    np.testing.assert_allclose(y, layer(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    return "runs"


seen = {(d, o): outcome(d, o) for d in (1, 2, 3) for o in (False, True)}
for d in (1, 2, 3):
    print(f"Conv{d}d  optimize=False {seen[d, False]:14} optimize=True {seen[d, True]}")
want = {key: "refused: bias" if key == (3, False) else "runs" for key in seen}
assert seen == want, seen
PROGRAM

"""Saving takes no second copy of the weights: the peak of what is allocated beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.processes import Fork
from tests.saving.models import sum_of, write_external

TENSORS, MEGABYTES = 10, 4  # each
PROGRAM = """
import torch
from onnxinterp import OnnxModule
source, target, kind, result = arguments
def status(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024
module = OnnxModule(source)
if kind == "double":
    module.double()
with torch.no_grad():
    for weight in module.weights.values():
        weight.add_(1)
module.save_onnx(target, **({"like": source} if kind == "like" else {}))  # code is loaded, too
with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")  # the peak starts anew
before = status("VmRSS:")
with torch.no_grad():
    for weight in module.weights.values():
        weight.add_(1)
module.save_onnx(target, **({"like": source} if kind == "like" else {}))
with open(result, "w") as file:
    file.write(str(status("VmHWM:") - before))
"""


# raw data of like= are mapped, and the system counts pages of the file around each that is read
@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ("raw", "plain"),
        ("raw", "double"),
        ("external", "plain"),
        ("external", "double"),
        ("external", "like"),
    ],
)
def test_a_save_needs_less_than_one_tensor_and_some_blocks(
    form: str, kind: str, fork: Fork, tmp_path: Path
) -> None:
    """In a process of its own; files that are mapped count too, while pages of them are read."""
    array = np.zeros(MEGABYTES * 2**18, np.float32)
    names = [f"w{i}" for i in range(TENSORS)]
    model = sum_of(*(numpy_helper.from_array(array, name) for name in names))
    path = tmp_path / "m.onnx"
    if form == "external":
        write_external(model, path, *names)
    else:
        onnx.save(model, path)
    (tmp_path / "out").mkdir()
    fork(PROGRAM, path, tmp_path / "out" / "n.onnx", kind, tmp_path / "peak")
    assert float((tmp_path / "peak").read_text()) < 24, "of 40 MB"

"""Training that goes on in another process is the training that was never interrupted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from onnxinterp import OnnxModule
from tests.processes import Fork
from tests.saving.test_exports import export

TRAIN = """
import torch
from onnxinterp import OnnxModule, checkpoints
form, folder, start, stop = arguments
if int(start) and form == "checkpoint":
    module = checkpoints.load(f"{folder}/{start}.pth").train()
else:
    name = start if form == "onnx" and int(start) else "m"
    module = OnnxModule(f"{folder}/{name}.onnx").train()
optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
if int(start):
    if form == "safetensors":
        module.load_safetensors(f"{folder}/{start}.safetensors")
    elif form == "state_dict":
        module.load_state_dict(torch.load(f"{folder}/{start}.state", weights_only=True))
    optimizer.load_state_dict(torch.load(f"{folder}/{start}.optimizer", weights_only=True))
for step in range(int(start), int(stop)):
    x = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(step))
    optimizer.zero_grad()
    (module(x) - x.mean((1, 2, 3))[:, None]).square().mean().backward()
    optimizer.step()
module.save_safetensors(f"{folder}/{stop}.safetensors")
module.save_onnx(f"{folder}/{stop}.onnx")
checkpoints.save(f"{folder}/m.onnx", f"{folder}/{stop}.pth", module=module)
torch.save(module.state_dict(), f"{folder}/{stop}.state")
torch.save(optimizer.state_dict(), f"{folder}/{stop}.optimizer")
"""


def test_training_goes_on_bit_for_bit(fork: Fork, tmp_path: Path) -> None:
    """Twenty steps of Adam at once, and ten, then ten in another process."""
    export("convolutions", tmp_path / "m.onnx")
    fork(TRAIN, "", tmp_path, 0, 20)
    want = load_file(tmp_path / "20.safetensors")
    start = OnnxModule(tmp_path / "m.onnx").weights
    moved = [n for n, w in start.items() if w.is_floating_point() and not w.equal(want[n])]
    assert len(moved) >= 8, "weights and statistics"
    fork(TRAIN, "", tmp_path, 0, 10)
    for form in ("safetensors", "state_dict", "onnx", "checkpoint"):
        (tmp_path / "20.safetensors").unlink()
        fork(TRAIN, form, tmp_path, 10, 20)
        got = load_file(tmp_path / "20.safetensors")
        assert got.keys() == want.keys()
        assert all(np.array_equal(got[n].numpy(), want[n].numpy()) for n in want)

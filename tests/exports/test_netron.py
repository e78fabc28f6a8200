"""Netron's own parser reads an exported program: it draws each operator of the graph."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from onnxinterp import OnnxModule

PARSER = Path(__file__).with_name("netron_nodes.mjs")


def drawn(path: Path) -> list[list[str]]:
    """Name and type of each node."""
    spec = find_spec("netron")
    node = shutil.which("node")
    if spec is None or spec.origin is None or node is None:
        pytest.skip("needs the package netron, and node to run its parser")
    command = [node, str(PARSER), str(Path(spec.origin).parent), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.capture
@pytest.mark.parametrize("opened", ["the import", "a linear layer"])
def test_netron_draws_each_operator(opened: str, tmp_path: Path) -> None:
    digits = opened == "the import"
    example = torch.rand(2, 1, 8, 8) if digits else torch.rand(2, 3)
    module = (
        OnnxModule(str(files("onnxinterp") / "data" / "digits.onnx"))
        if digits
        else torch.nn.Linear(3, 4)
    )
    program = torch.export.export(module, (example,))
    torch.export.save(program, tmp_path / "m.pt2")
    nodes = [n for n in program.graph.nodes if n.op == "call_function"]
    assert [name for name, _ in drawn(tmp_path / "m.pt2")] == [n.name for n in nodes]
    kinds = {kind for _, kind in drawn(tmp_path / "m.pt2")}
    assert kinds >= ({"conv2d", "batch_norm", "linear"} if digits else {"linear"})

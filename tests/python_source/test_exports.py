"""Exported networks as Python source: values, gradients, layout, and their way back to ONNX."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from onnxinterp import OnnxModule
from tests.exports.case import Case
from tests.exports.conftest import OLDEST_AND_NEWEST
from tests.exports.exporting import export
from tests.exports.modules import CASES
from tests.exports.test_gradients import backward
from tests.python_source.writing import assert_same, load

BLOCKED = """import sys
sys.modules["onnxinterp"] = sys.modules["onnx"] = None
import runpy, torch
net = runpy.run_path(sys.argv[1])["load"]()
torch.save(net(*torch.load(sys.argv[2])), sys.argv[3])"""
MAX_LINES_A_NODE = 1.5
SHORT = ("encoder", "decoder", "sequence_to_sequence", "speech")
"""A resize is many calls, and a small network has as many lines around it as in it."""
Written = tuple[Case, OnnxModule, Path]


@pytest.fixture(params=OLDEST_AND_NEWEST, scope="module")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A network, its module, and the source of that."""
    case, how = request.param
    module = OnnxModule(export(case, how))
    path = tmp_path_factory.mktemp("source") / "net.py"
    return case, module, module.to_python(path, *case.arguments(case.sizes[0]))


def test_values_and_gradients_are_those_of_the_module(case: Written) -> None:
    network, module, path = case
    net = load(path)
    for sizes in (*network.sizes, *network.edges):
        if all(sizes.values()):
            assert_same(net, module, *network.arguments(sizes))
    inputs = network.arguments(network.sizes[0])
    backward(net, inputs)
    backward(module, inputs)
    found = {name: p.grad for name, p in net.named_parameters()}
    shared = [name for name, _ in module.named_parameters() if name in found]
    assert len(shared) >= len(found) / 2
    for name in shared:
        wanted = module.get_parameter(name).grad
        largest = float(wanted.abs().max())
        torch.testing.assert_close(found[name], wanted, rtol=1e-3, atol=1e-5 + 1e-4 * largest)


def test_the_source_is_formatted_and_short(case: Written) -> None:
    network, module, path = case
    for command in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--isolated", "--quiet", path]
        subprocess.run(ruff, check=True)
    n_nodes = len(module.onnx_graph.nodes)
    if network.name in SHORT:
        assert len(path.read_text().splitlines()) <= MAX_LINES_A_NODE * n_nodes


def test_it_needs_torch_alone(tmp_path: Path) -> None:
    encoder = next(c for c in CASES if c.name == "encoder")
    module = OnnxModule(export(encoder, encoder.exports()[-1]))
    inputs = encoder.arguments(encoder.sizes[0])
    path = module.to_python(tmp_path / "net.py", *inputs)
    torch.save(inputs, tmp_path / "inputs.pt")
    files = [path, tmp_path / "inputs.pt", tmp_path / "outputs.pt"]
    subprocess.run([sys.executable, "-I", "-c", BLOCKED, *files], check=True, cwd=tmp_path)
    got = torch.load(tmp_path / "outputs.pt")
    with torch.no_grad():
        torch.testing.assert_close(got, module(*inputs), rtol=1e-4, atol=1e-5)

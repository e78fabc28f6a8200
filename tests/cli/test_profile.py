"""`onnxinterp profile`: tables of operators, modules and nodes, and a page."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from onnxinterp.cli import main

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _same_threads() -> object:
    """`--threads` is a setting of the process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_operators_and_slowest_nodes_are_shown(digits: Path, capsys: Captured) -> None:
    assert main(["profile", str(digits), "--runs", "2", "--first", "1"]) == 0
    out = capsys.readouterr().out
    assert "batch = 1" in out
    operators, _, nodes = out.partition("slowest nodes")
    assert "Conv" in operators
    assert "FLOPs" in operators
    assert "onnxruntime" not in out
    assert len(nodes.strip().splitlines()) == 3


def test_modules_are_shown_with_their_nodes(digits: Path, capsys: Captured) -> None:
    assert main(["profile", str(digits), "--runs", "1", "--by", "layer", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert "1 thread, minima of 1 runs" in out
    assert "slowest nodes" not in out
    assert "modules and the nodes outside of them" in out


def test_inputs_and_shapes_are_used(two_inputs: Path, capsys: Captured) -> None:
    inputs = two_inputs.with_suffix(".npz")
    np.savez(inputs, x=np.ones((5, 3), np.float32), y=np.ones((5, 2), np.float32))
    assert main(["profile", str(two_inputs), "--inputs", str(inputs), "--runs", "1"]) == 0
    assert f"{2 * 5 * 3 * 2:,} FLOPs" in capsys.readouterr().out
    shapes = ["--input_shape", "x:7,3", "y:7,2", "--runs", "1"]
    assert main(["profile", str(two_inputs), *shapes]) == 0
    assert f"{2 * 7 * 3 * 2:,} FLOPs" in capsys.readouterr().out
    assert main(["profile", str(two_inputs), "--inputs", str(inputs), *shapes]) == 2
    assert "cannot be combined" in capsys.readouterr().err


def test_times_of_onnxruntime_are_beside(
    digits: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.html"
    arguments = ["profile", str(digits), "--runs", "2", "--onnxruntime", "--html", str(page)]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "onnxruntime ms" in out
    assert f"wrote {page}" in out
    assert "onnxruntime ms" in page.read_text()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(arguments) == 2
    assert "pip install onnxinterp[verify]" in capsys.readouterr().err

"""A simplified model has the same answers, or is not written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxoptimizer
import pytest
from onnx import numpy_helper

from onnxinterp import deploy
from onnxinterp.cli import main


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    """An optimizer that changes one weight by a tenth."""
    right = onnxoptimizer.optimize

    def optimize(*args: Any, **options: Any) -> onnx.ModelProto:
        model = right(*args, **options)
        tensor = next(t for t in model.graph.initializer if t.name == "fc.weight")
        array = np.array(numpy_helper.to_array(tensor))
        array[0, 0] *= 1.1
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        return model

    monkeypatch.setattr(onnxoptimizer, "optimize", optimize)


@pytest.mark.parametrize("judge", ["onnxruntime", "onnxinterp"])
def test_the_same_answers(
    judge: str, net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if judge == "onnxinterp":
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = deploy.simplify(net, tmp_path / "simple.onnx")
    assert (found.before, found.after, found.changed, found.judge) == (4, 3, (), judge)
    assert len(onnx.load(tmp_path / "simple.onnx").graph.node) == 3


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize("judge", ["onnxruntime", "onnxinterp"])
def test_changed_answers_are_not_written_unless_that_is_allowed(
    judge: str, net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if judge == "onnxinterp":
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    target = tmp_path / "simple.onnx"
    with pytest.raises(deploy.ChangedAnswersError, match="scores: differs by up to"):
        deploy.simplify(net, target)
    assert not target.exists()
    found = deploy.simplify(net, target, allow_changed_answers=True)
    assert {c.name for c in found.changed} >= {"scores"}
    assert target.exists()


@pytest.mark.usefixtures("faulty")
def test_the_command_refuses_changed_answers(
    net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    simple, out = tmp_path / "simple.onnx", tmp_path / "out.pth"
    command = ["convert", str(net), str(out), "--simplify_path", str(simple)]
    assert main(command) == 1
    assert "--allow_changed_answers writes it all the same" in capsys.readouterr().err
    assert not simple.exists()
    assert not out.exists()
    assert main([*command, "--allow-changed-answers"]) == 1  # the result differs from the source
    assert "its answers DIFFER in onnxruntime" in capsys.readouterr().out
    assert simple.exists()
    assert out.exists()

"""`onnxinterp demo`: the model classifies digits, and learns to classify rotated ones."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from onnxinterp import OnnxModule
from onnxinterp.cli import demo, main
from onnxinterp.verify import verify

Captured = pytest.CaptureFixture[str]


def test_the_data_files_are_small_and_valid(digits: Path) -> None:
    data = digits.with_suffix(".npz")
    assert digits.stat().st_size < 60_000
    assert data.stat().st_size < 60_000
    with np.load(data, allow_pickle=False) as arrays:
        assert all(a.dtype == np.uint8 for a in arrays.values())
        train, test = arrays["train_images"], arrays["test_images"]
    assert not set(map(bytes, train)) & set(map(bytes, test)), "no test image is trained on"
    assert b".py" not in digits.read_bytes(), "no stack trace of the machine that made it"


def test_the_model_is_accurate() -> None:
    model, _, test = demo.load()
    assert demo.accuracy(OnnxModule(model), test) > 0.97


def test_the_demo_restores_accuracy(tmp_path: Path, capsys: Captured) -> None:
    saved = tmp_path / "rotated.onnx"
    assert main(["demo", "--epochs", "3", "--save", str(saved)]) == 0
    out = capsys.readouterr().out
    for text in (
        "rotated by 90 degrees",
        "MSE against onnxruntime",
        "trained 6186 of 6282 parameters",
    ):
        assert text in out
    _, _, test = demo.load()
    assert demo.accuracy(OnnxModule(saved), test.rotated()) > 0.9
    assert verify(saved, [test.images]).ok


def test_without_onnxruntime_it_still_trains(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["demo", "--epochs", "1"]) == 0
    out = capsys.readouterr().out
    assert "not compared: this needs onnxruntime: pip install onnxinterp[verify]" in out

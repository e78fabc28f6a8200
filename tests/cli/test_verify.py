"""`onnxinterp verify`: the verdict, the first node that differs, and the smallest submodel."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from onnxinterp.cli import main
from onnxinterp.registry import KERNELS, lookup

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def noisy_gemm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add ten percent of noise to the weight of every Gemm."""
    kernel = lookup("Gemm", 20)
    assert kernel is not None
    right = kernel.function

    def noisy(
        A: Tensor,
        B: Tensor,
        C: Tensor | None = None,
        *,
        alpha: float = 1.0,
        beta: float = 1.0,
        transA: int = 0,
        transB: int = 0,
    ) -> Tensor:
        noise = torch.randn(B.shape, generator=torch.Generator().manual_seed(0))
        answer: Tensor = right(
            A, B * (1 + 0.1 * noise), C, alpha=alpha, beta=beta, transA=transA, transB=transB
        )
        return answer

    wrong = dataclasses.replace(kernel, function=noisy)
    monkeypatch.setitem(KERNELS["", "Gemm"], kernel.since, wrong)


def test_a_correct_model_exits_0(digits: Path, capsys: Captured) -> None:
    assert main(["verify", str(digits), "--per-node"]) == 0
    out = capsys.readouterr().out
    assert "batch = 1" in out
    assert "logits" in out
    assert "agrees (MSE < 1e-07" in out
    assert "nodes agree" in out


@pytest.mark.usefixtures("noisy_gemm")
def test_a_wrong_model_exits_1(digits: Path, capsys: Captured) -> None:
    assert main(["verify", str(digits)]) == 1
    assert "DIFFERS" in capsys.readouterr().out


@pytest.mark.usefixtures("noisy_gemm")
def test_the_submodel_reproduces_the_difference(
    digits: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "part.onnx"
    arguments = ["verify", str(digits), "--input_shape", "image:2,1,8,8"]
    assert main([*arguments, "--per-node", "--submodel", str(out)]) == 1
    assert "Gemm" in capsys.readouterr().out
    part = onnx.load(out)
    assert [n.op_type for n in part.graph.node] == ["Gemm"]
    again = ["verify", str(out), "--inputs", str(tmp_path / "part.npz"), "--unoptimized"]
    assert main(again) == 1
    assert "logits float32 2x10" in " ".join(capsys.readouterr().out.split())


def test_inputs_and_shapes_are_used(two_inputs: Path, capsys: Captured) -> None:
    inputs = two_inputs.with_suffix(".npz")
    np.savez(inputs, x=np.ones((5, 3), np.float32), y=np.ones((5, 2), np.float32))
    assert main(["verify", str(two_inputs), "--inputs", str(inputs)]) == 0
    assert "5x2" in capsys.readouterr().out
    assert main(["verify", str(two_inputs), "--input_shape", "x:4,3"]) == 0
    out = capsys.readouterr().out
    assert "4x2" in out, "both inputs share the size n"
    assert "assumed" not in out


def test_the_tolerance_decides(digits: Path, capsys: Captured) -> None:
    assert main(["verify", str(digits), "--mse", "0"]) == 1
    assert "MSE < 0" in capsys.readouterr().out

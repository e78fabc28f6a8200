"""Every script in examples/ runs and prints the expected results."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import onnx
import pytest
import torch

from onnxinterp import OnnxModule
from onnxinterp.cli.demo import load
from tests.exporting import expected_warnings

FOLDER = Path(__file__).parents[2] / "examples"
Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def a_folder_and_a_generator_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    fastpath = torch.backends.mha.get_fastpath_enabled()
    with torch.random.fork_rng(), expected_warnings():
        yield
    torch.backends.mha.set_fastpath_enabled(fastpath)


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"examples.{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_is_short_and_tested_here() -> None:
    scripts = {p.stem: p.read_text() for p in FOLDER.glob("*.py")}
    assert set(scripts) == {"new_classes", "text_labels", "int8", "lora", "lora_4bit"}
    assert all(len(text.splitlines()) <= 80 for text in scripts.values())
    assert all(f"python examples/{name}.py [EPOCHS]" in text for name, text in scripts.items())


def test_new_classes(capsys: Captured) -> None:
    head_only, everything = script("new_classes").main(epochs=1)
    assert 0.8 < head_only < everything
    assert OnnxModule("holes.onnx").weights["head.weight"].shape == (3, 128)
    assert "MSE against onnxruntime" in capsys.readouterr().out


def test_text_labels(capsys: Captured) -> None:
    right = script("text_labels").main(epochs=8)
    assert right > 0.7
    assert OnnxModule("praise.onnx").weights["head.weight"].shape == (2, 32)
    assert "192 sentences" in capsys.readouterr().out


def test_int8(capsys: Captured) -> None:
    pytest.importorskip("onnxruntime")
    before, after = script("int8").main(epochs=2)
    assert before < 0.2
    assert after > 0.8
    old, new = onnx.load("int8.onnx").graph, onnx.load("tuned.onnx").graph
    assert old.node == new.node
    scales = [
        {t.name: onnx.numpy_helper.to_array(t) for t in g.initializer if t.name.endswith("_scale")}
        for g in (old, new)
    ]
    assert any((scales[0][name] != scales[1][name]).any() for name in scales[0])
    assert "by onnxruntime on tuned.onnx" in capsys.readouterr().out


def test_lora(capsys: Captured) -> None:
    before, after = script("lora").main(epochs=4, rank=2)
    assert before < 0.2
    assert after > 0.6
    merged, old = OnnxModule("adapted.onnx"), OnnxModule(load()[0])
    change = merged.weights["head.weight"] - old.weights["head.weight"]
    assert torch.linalg.matrix_rank(change, rtol=1e-4) == 2
    assert torch.equal(merged.weights["head.bias"], old.weights["head.bias"])
    assert (
        "rank 2: 678 trainable parameters, the 6186 of the model are frozen"
        in capsys.readouterr().out
    )


def test_lora_4bit() -> None:
    pytest.importorskip("onnxruntime")
    before, beside, merged = script("lora_4bit").main(epochs=9)
    assert before < 0.2
    assert 0.7 < beside == pytest.approx(merged, abs=0.01)
    packed, adapted = (
        {t.name: t for t in onnx.load(f"{name}.onnx").graph.initializer}
        for name in ("packed", "adapted")
    )
    assert all(adapted[name] == tensor for name, tensor in packed.items())
    operators = [n.op_type for n in onnx.load("merged.onnx").graph.node]
    assert "MatMulNBits" not in operators
    assert operators.count("MatMul") == 2

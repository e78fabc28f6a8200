"""A valid model is judged right where onnxruntime's optimiser changes it or cannot run it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch

from onnxinterp import OnnxModule
from onnxinterp.cli import main
from onnxinterp.verify import Tolerance, levels, verify
from onnxinterp.verify.levels import eight_bit_product
from onnxinterp.verify.reference import LEVELS, Reference, ReferenceFailedError

HEAD = '<ir_version: 10, opset_import: ["": 21]> g '
TWO_PAIRS = """(float[4] x) => (float[4] y)
    <float s = {0.1}, uint8 z = {128}, float t = {0.03}, uint8 w = {100}> {
        a = QuantizeLinear (x, s, z) b = DequantizeLinear (a, s, z)
        c = QuantizeLinear (b, t, w) y = DequantizeLinear (c, t, w)
    }"""
CAST_AND_ONE = """(float[4] x) => (float[4] y) {
        h = Constant <value = float {1}> () one = Cast <to = 10> (h)
        a = Cast <to = 10> (x) b = Mul (a, one) y = Cast <to = 1> (b)
    }"""
PRODUCTS = """(uint8[1, 4] a, int8[4, 16] b) => (int32[1, 16] y) { y = MatMulInteger (a, b) }"""
X = {"x": np.array([-1.3, 0.2, 0.77, 5.1], np.float32)}


def model(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(HEAD + text)


def at(level: str, text: str) -> torch.Tensor:
    answer: torch.Tensor = Reference(model(text), level=level)(
        {name: torch.from_numpy(value) for name, value in X.items()}
    )["y"]
    return answer


def test_a_model_that_the_optimiser_changes_is_judged_by_the_graph_as_written() -> None:
    """Of two QuantizeLinear and DequantizeLinear pairs in a row, it drops the first rounding."""
    assert (at("disabled", TWO_PAIRS) - at("basic", TWO_PAIRS)).abs().max() > 0.02
    report = verify(model(TWO_PAIRS), X)
    assert report.ok
    assert report.level == "disabled"
    assert report.notes == (
        "onnxruntime's own results differ between optimisation levels: max |difference| 0.03 in "
        "'y' (basic/extended/all)",
    )


def test_a_model_that_only_the_optimiser_runs_as_written_is_judged_by_that() -> None:
    """Without optimisation, a cast to float16 and back around a product by one is left out."""
    x = torch.from_numpy(X["x"])
    rounded = x.half().float()
    assert torch.equal(at("disabled", CAST_AND_ONE), x)
    assert torch.equal(at("basic", CAST_AND_ONE), rounded)
    exact = {"rtol": 0.0, "atol": 0.0, "mse": 1e-12}
    report = verify(model(CAST_AND_ONE), X, **exact)
    assert report.ok
    assert report.level == "basic"
    assert "differ between optimisation levels" in report.notes[0]
    assert report.notes[1] == "the outputs agree with onnxruntime's at optimisation level 'basic'"


@pytest.mark.parametrize("text", [TWO_PAIRS, CAST_AND_ONE], ids=["pairs", "one"])
def test_a_wrong_result_differs_from_every_level(text: str) -> None:
    module = OnnxModule(model(text))
    report = verify(model(text), X, module=lambda x: module(x) + 0.05)
    assert not report.ok
    assert report.level == "disabled"


def test_without_optimisation_there_is_one_judge_and_no_note() -> None:
    report = verify(model(CAST_AND_ONE), X, rtol=0.0, atol=0.0, mse=1e-12, optimize=False)
    assert not report.ok
    assert report.notes == ()


def failing(*failed: str) -> Any:
    """A Reference whose sessions cannot open at some levels."""

    def opened(source: Any, outputs: Any = None, *, level: str = "all") -> Reference:
        if level in failed:
            raise ReferenceFailedError(f"onnxruntime cannot open the model: no {level}")
        return Reference(source, outputs, level=level)

    return opened


def test_an_optimiser_that_fails_is_not_a_failure_of_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(levels, "Reference", failing("extended", "all"))
    report = verify(model("(float[4] x) => (float[4] y) { y = Neg (x) }"), X)
    assert report.ok
    assert report.level == "disabled"
    assert [note.split(":")[0] for note in report.notes] == [
        "at optimisation level 'extended'",
        "at optimisation level 'all'",
    ]


def test_a_graph_that_only_runs_optimised_is_judged_by_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(levels, "Reference", failing("disabled"))
    report = verify(model("(float[4] x) => (float[4] y) { y = Neg (x) }"), X)
    assert report.ok
    assert report.level == "basic"
    assert report.notes[0].startswith("at optimisation level 'disabled': onnxruntime cannot open")


def test_where_every_level_fails_there_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "Reference", failing(*LEVELS))
    with pytest.raises(ReferenceFailedError, match="no disabled"):
        verify(model("(float[4] x) => (float[4] y) { y = Neg (x) }"), X)


def test_saturating_products_are_named_where_the_processor_has_them() -> None:
    """Ours are exact; onnxruntime's saturate without instructions for 8-bit products."""
    a, b = np.full((1, 4), 255, np.uint8), np.full((4, 16), 127, np.int8)
    report = verify(model(PRODUCTS), {"a": a, "b": b})
    right, found = eight_bit_product()
    saturates = any("8-bit products saturate" in note for note in report.notes)
    assert report.ok == (right == found)
    assert saturates == (right != found)


@pytest.mark.parametrize(("found", "noted"), [(129_540, False), (65_534, True)])
def test_saturation_is_measured(found: int, noted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "eight_bit_product", lambda: (129_540, found))
    a, b = np.full((1, 4), 1, np.uint8), np.full((4, 16), 1, np.int8)
    wrong = verify(model(PRODUCTS), {"a": a, "b": b}, module=lambda a, b: (a + b.T)[:1].int())
    assert not wrong.ok
    assert any("129,540, and it returns 65,534" in note for note in wrong.notes) == noted
    assert not verify(model(PRODUCTS), {"a": a, "b": b}).notes
    unrelated = verify(model("(float[4] x) => (float[4] y) { y = Neg (x) }"), X, module=lambda x: x)
    assert not unrelated.ok
    assert not unrelated.notes


def test_the_command_prints_the_notes(tmp_path: Any, capsys: Any) -> None:
    onnx.save(model(TWO_PAIRS), tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", **X)
    assert main(["verify", str(tmp_path / "m.onnx"), "--inputs", str(tmp_path / "x.npz")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "agrees (" in printed
    assert "note: onnxruntime's own results differ between optimisation levels" in printed


def test_levels_are_compared_by_the_tolerance() -> None:
    report = verify(model(TWO_PAIRS), X, rtol=1.0, atol=1.0, mse=1.0)
    assert report.tolerance == Tolerance(1.0, 1.0, 1.0)
    assert report.notes == ()

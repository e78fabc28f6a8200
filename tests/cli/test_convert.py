"""`onnxinterp convert`: a module loaded from any format has the same outputs."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import load_file

from onnxinterp import Limits, OnnxModule, checkpoints, deploy
from onnxinterp.cli import main

Captured = pytest.CaptureFixture[str]


def convert(source: Path, target: Path, *more: str) -> int:
    return main(["convert", "--onnx_path", str(source), "--pytorch_path", str(target), *more])


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_state_dict_round_trip(
    suffix: str, two_inputs: Path, tmp_path: Path, capsys: Captured
) -> None:
    target = tmp_path / f"pair{suffix}"
    assert convert(two_inputs, target, "--input_shape", "x:4,3", "y:4,2") == 0
    out = capsys.readouterr().out
    assert f'checkpoints.load("{target}")' in out
    assert "agrees" in out
    assert set(torch.load(target, weights_only=True)) >= {"w"}
    inputs = torch.randn(2, 3), torch.randn(2, 2)
    for ours, want in zip(
        checkpoints.load(target)(*inputs), OnnxModule(two_inputs)(*inputs), strict=True
    ):
        assert torch.equal(ours, want)


def test_weights_only(two_inputs: Path, tmp_path: Path, capsys: Captured) -> None:
    target = tmp_path / "pair.safetensors"
    assert convert(two_inputs, target) == 0
    out = capsys.readouterr().out
    assert f'OnnxModule("{two_inputs}"); module.load_safetensors("{target}")' in out
    assert "agrees" in out
    assert load_file(target).keys() == OnnxModule(two_inputs).weights.keys()


def test_exported_program_keeps_dynamic_sizes(
    two_inputs: Path, tmp_path: Path, capsys: Captured
) -> None:
    target = tmp_path / "pair.pt2"
    assert convert(two_inputs, target) == 0
    assert "n = 2" in capsys.readouterr().out
    module = torch.export.load(target).module()
    for n in (2, 5):
        inputs = torch.randn(n, 3), torch.randn(n, 2)
        for ours, want in zip(module(*inputs), OnnxModule(two_inputs)(*inputs), strict=True):
            torch.testing.assert_close(ours, want)


def test_exported_program_fixes_given_shapes(two_inputs: Path, tmp_path: Path) -> None:
    target = tmp_path / "pair.pt2"
    assert convert(two_inputs, target, "--input_shape", "x:1,3", "y:1,2") == 0
    module = torch.export.load(target).module()
    assert module(torch.ones(1, 3), torch.ones(1, 2))[0].shape == (1, 2)
    with pytest.raises(AssertionError, match="Guard failed"):
        module(torch.ones(2, 3), torch.ones(2, 2))


def test_simplified_model_is_written_and_converted(
    two_inputs: Path, tmp_path: Path, capsys: Captured
) -> None:
    simple = tmp_path / "simple.onnx"
    assert convert(two_inputs, tmp_path / "m.pth", "--simplify_path", str(simple)) == 0
    assert f"wrote {simple}: 5 nodes, 9 before" in capsys.readouterr().out
    kinds = {n.op_type for n in onnx.load(simple).graph.node}
    assert kinds == {"MatMul", "Add", "Relu"}
    module = checkpoints.load(tmp_path / "m.pth")
    assert {n.op_type for n in module.onnx_graph.nodes} == kinds
    assert module.output_names == ("sum", "same")


def test_a_tuned_checkpoint_becomes_the_onnx_model_again(
    two_inputs: Path, tmp_path: Path, capsys: Captured
) -> None:
    module = OnnxModule(two_inputs)
    with torch.no_grad():
        module.weights["w"].mul_(2)
    checkpoints.save(two_inputs, tmp_path / "tuned.pth", module=module)
    assert convert(tmp_path / "tuned.pth", tmp_path / "tuned.onnx") == 0
    out = capsys.readouterr().out
    assert f"wrote {tmp_path / 'tuned.onnx'}" in out
    assert "tuned.pth against onnxruntime on tuned.onnx" in out
    assert "agrees" in out
    want = onnx.load(two_inputs)
    doubled = [2.0 * n for n in want.graph.initializer[0].float_data]
    want.graph.initializer[0].float_data[:] = doubled
    assert onnx.load(tmp_path / "tuned.onnx") == want


def test_an_onnx_model_is_written_from_a_checkpoint_only(
    two_inputs: Path, tmp_path: Path, capsys: Captured
) -> None:
    assert convert(two_inputs, tmp_path / "m.onnx") == 2
    assert "must be a .pth or .pt file to write an .onnx, got " in capsys.readouterr().err
    checkpoints.save(two_inputs, tmp_path / "m.pth")
    simple = ("--simplify_path", str(tmp_path / "simple.onnx"))
    assert convert(tmp_path / "m.pth", tmp_path / "m.onnx", *simple) == 2
    assert "--simplify_path cannot be used when an .onnx is written" in capsys.readouterr().err
    assert not (tmp_path / "m.onnx").exists()


def test_without_onnxruntime_it_converts_without_comparison(
    two_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert convert(two_inputs, tmp_path / "m.pth") == 0
    assert "not compared: this needs onnxruntime: pip install" in capsys.readouterr().out
    assert checkpoints.load(tmp_path / "m.pth").input_names == ("x", "y")


def test_torch_export_requires_tensor_inputs(tmp_path: Path, capsys: Captured) -> None:
    text = """
        <ir_version: 8, opset_import: ["": 17]>
        g (string[2] x) => (string[2] y) { y = Identity(x) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "words.onnx")
    assert convert(tmp_path / "words.onnx", tmp_path / "words.pt2") == 2
    assert "inputs must be tensors for torch.export, got x: string[2]" in capsys.readouterr().err


def test_positional_arguments_and_the_names_of_dynamic_dimensions(
    two_inputs: Path, tmp_path: Path, capsys: Captured
) -> None:
    assert main(["convert", str(two_inputs), str(tmp_path / "pair.pt2")]) == 0
    out = capsys.readouterr().out
    assert "dynamic dimensions: x axis 0 (n), y axis 0 (n)" in out
    assert out.count("agrees (") == 2


def test_an_argument_has_one_spelling_at_a_time(two_inputs: Path, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["convert", str(two_inputs), "m.pth", "--output", "n.pth"])
    assert exit_.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


def test_help_has_the_table_of_formats(capsys: Captured) -> None:
    with pytest.raises(SystemExit):
        main(["convert", "-h"])
    table = capsys.readouterr().out.partition("formats, and how to load each:\n")[2]
    for form in deploy.FORMATS:
        assert f"  {', '.join(form.suffixes)} " in table
        assert form.summary in table


def test_another_opset_is_compared_with_the_source(
    two_inputs: Path, tmp_path: Path, capsys: Captured
) -> None:
    target = tmp_path / "newer.onnx"
    assert main(["convert", str(two_inputs), str(target), "--opset", "20"]) == 0
    assert "newer.onnx against onnxruntime on pair.onnx" in capsys.readouterr().out
    assert onnx.load(target).opset_import[0].version == 20


def test_limits_reach_the_source(
    two_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    small = replace(Limits(), model_bytes=10)
    monkeypatch.setattr(Limits, "untrusted", staticmethod(lambda: small))
    command = ["convert", str(two_inputs), str(tmp_path / "m.pth")]
    assert main([*command, "--untrusted"]) == 2
    assert "more than 10 bytes" in capsys.readouterr().err
    assert main(command) == 0

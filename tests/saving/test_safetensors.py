"""Weights in .safetensors files: their own, and those of the torch model that was exported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file, save_model

from onnxinterp import InvalidModelError, OnnxModule, SaveError
from onnxinterp.extras import MissingExtraError
from tests.saving.models import HEADER, LARGE, parse, raw, sum_of, tune
from tests.saving.test_exports import export, network
from tests.training.merged import IDS, Twins, torchscript


def test_a_file_has_the_weights_under_their_onnx_names(tmp_path: Path) -> None:
    names = ["half", "a.b", "a", "layer1.0.weight"]
    model, path = sum_of(*(raw(n, 3, seed=i) for i, n in enumerate(names))), tmp_path / "m.st"
    module = OnnxModule(model)
    tune(module)
    module.save_safetensors(path)
    assert [p.name for p in tmp_path.iterdir()] == ["m.st"]
    tensors = load_file(path)
    assert tensors.keys() == set(names)
    assert all(torch.equal(tensors[n], module.weights[n]) for n in names)
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt", "onnxinterp.graph": "sum"}
    again = OnnxModule(model)
    before = dict(again.weights.items())
    assert again.load_safetensors(path) == ((), ())
    assert all(again.weights[n] is before[n] for n in names), "in place"
    assert torch.equal(again(torch.ones(3)), module(torch.ones(3)))


def test_constants_are_taken_over(tmp_path: Path) -> None:
    model = parse(f"""{HEADER} g (float[2,3] x) => (float[n] y) <int64[1] s = {{6}}>
        {{ y = Reshape(x, s) }}""")
    module = OnnxModule(model)
    save_file({"s": torch.tensor([-1])}, tmp_path / "m.st")
    module.load_safetensors(tmp_path / "m.st")
    assert module(torch.ones(2, 5)).shape == (10,)


def test_what_is_one_in_memory_is_stored_once(tmp_path: Path) -> None:
    model, path = sum_of(raw("a", LARGE), raw("b", LARGE), raw("c", LARGE // 2 * 2)), tmp_path / "m"
    module = OnnxModule(model)
    module.weights["b"] = module.weights["a"]
    module.weights["c"] = torch.nn.Parameter(module.weights["a"].detach()[:LARGE])
    with torch.no_grad():
        module.weights["a"].fill_(7)
    module.save_safetensors(path)
    assert path.stat().st_size < 1.5 * 4 * LARGE
    again = OnnxModule(model)
    again.load_safetensors(path)
    assert all((w == 7).all() for w in again.weights.values())
    module.weights["c"] = torch.nn.Parameter(module.weights["a"].detach()[1:])
    module.save_safetensors(path)
    assert load_file(path)["c"].shape == (LARGE - 1,), "a part is a tensor of its own"


def test_the_files_of_the_original(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    x = export("convolutions", path)
    original, _ = network("convolutions")
    for tensor in original.parameters():
        torch.nn.init.normal_(tensor)
    save_model(original, str(tmp_path / "m.st"))
    module = OnnxModule(path)
    module.load_safetensors(tmp_path / "m.st")
    torch.testing.assert_close(module(x), original(x))


def test_the_tied_weights_of_the_original(tmp_path: Path) -> None:
    """Its file has one of the names; the other is in the metadata."""
    torch.manual_seed(0)
    module, original = OnnxModule(torchscript(Twins(), IDS)), Twins()
    for tensor in original.parameters():
        torch.nn.init.normal_(tensor)
    save_model(original, str(tmp_path / "m.st"))
    unmatched = module.load_safetensors(tmp_path / "m.st", strict=False)
    assert unmatched.unexpected == ()
    assert "embedding.weight" in module.weights
    copies = [n for n in unmatched.missing if "MatMul" not in n]
    assert copies == [], "but for a transposed copy that the exporter has made"
    assert torch.equal(module.weights["embedding.weight"], original.embedding.weight)
    assert torch.equal(module.weights["layers.1.weight"], original.get_parameter("layers.1.weight"))


def test_what_does_not_fit_is_listed_and_changes_nothing(tmp_path: Path) -> None:
    module, path = OnnxModule(sum_of(*(raw(n, 3) for n in "abcd"))), tmp_path / "m.st"
    before = {n: w.detach().clone() for n, w in module.weights.items()}
    fits = torch.ones(3)
    save_file(
        {"a": fits, "b": torch.ones(2), "c": torch.ones(3, dtype=torch.int32), "e": -fits}, path
    )
    message = (
        r"m\.st do not fit:\n  b must have the shape \[3\], got \[2\]\n"
        r"  c must be torch\.float32, got torch\.int32\n  missing: d\n  not in the model: e$"
    )
    with pytest.raises(InvalidModelError, match=message):
        module.load_safetensors(path)
    with pytest.raises(InvalidModelError, match="b must have the shape"):
        module.load_safetensors(path, strict=False)
    assert all(torch.equal(before[n], w) for n, w in module.weights.items())
    save_file({"a": fits.half(), "e": fits}, path)
    assert module.load_safetensors(path, strict=False) == (("b", "c", "d"), ("e",))
    assert module.weights["a"].tolist() == [1, 1, 1]
    assert module.weights["a"].dtype == torch.float32


def test_a_parametrized_weight_is_no_place(tmp_path: Path) -> None:
    module = OnnxModule(sum_of(raw("a.w", 3)))
    module.save_safetensors(tmp_path / "m.st")
    torch.nn.utils.parametrize.register_parametrization(
        module.weights.get_submodule("a"), "w", torch.nn.Identity()
    )
    with pytest.raises(InvalidModelError, match=r"a\.w is parametrized"):
        module.load_safetensors(tmp_path / "m.st")


def test_files_that_are_none(tmp_path: Path) -> None:
    module = OnnxModule(sum_of(raw("a", 3)))
    with pytest.raises(FileNotFoundError):
        module.load_safetensors(tmp_path / "m.st")
    (tmp_path / "m.st").write_bytes(b"no tensors" * 9)
    with pytest.raises(InvalidModelError, match=r"m\.st is not a \.safetensors file"):
        module.load_safetensors(tmp_path / "m.st")
    module.to("meta")
    with pytest.raises(SaveError, match="meta device"):
        module.save_safetensors(tmp_path / "n.st")
    assert not (tmp_path / "n.st").exists()


def test_without_the_package_the_command_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.delitem(sys.modules, "safetensors.torch")
    module = OnnxModule(sum_of(raw("a", 3)))
    for call in (module.save_safetensors, module.load_safetensors):
        with pytest.raises(MissingExtraError, match=r"pip install onnxinterp\[safetensors\]"):
            call(tmp_path / "m.st")

"""Adapters in copies, state dicts and files: files have the sums, the module keeps its adapters."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from onnxinterp import OnnxModule, checkpoints
from tests.saving.models import changed, mean_square_error, run
from tests.training.adapters import (
    IDS,
    MATRICES,
    adapted,
    check,
    original,
    randomize,
    trained,
    written,
)

ACTIONS: dict[str, Callable[[OnnxModule], Any]] = {
    "refresh": lambda m: m.refresh(),
    "cast": lambda m: m.double().float(),
    "load_state_dict": lambda m: m.load_state_dict(m.state_dict()),
    "train": lambda m: m.train(),
    "eval": lambda m: m.train().eval(),
    "call": lambda m: [m(IDS) for _ in range(3)],
    "freeze": lambda m: m.freeze(),
    "save_onnx": lambda m: m.save_onnx("m.onnx"),
    "save_safetensors": lambda m: m.save_safetensors("m.safetensors"),
}


@pytest.mark.parametrize("action", ACTIONS)
def test_adapters_are_read_at_every_call(
    action: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module = adapted()
    ACTIONS[action](module)
    check(module, randomize(module, 1))


def through_torch(module: OnnxModule) -> OnnxModule:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    loaded: OnnxModule = torch.load(file, weights_only=False)
    return loaded


COPIES: dict[str, Callable[[OnnxModule], OnnxModule]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "torch.save": through_torch,
}


@pytest.mark.parametrize("way", COPIES)
def test_copies_have_adapters_of_their_own(way: str) -> None:
    module = adapted()
    matrices = randomize(module)
    twin = COPIES[way](COPIES[way](module))
    check(twin, matrices)
    others = randomize(twin, 1)
    check(twin, others)
    check(module, matrices)
    assert twin.merge_lora() == MATRICES
    check(twin, others)
    check(module, matrices)
    check(module, randomize(module, 2))


@pytest.mark.parametrize("end", ["merge_lora", "remove_lora"])
def test_merging_keeps_the_outputs_and_removing_undoes(end: str) -> None:
    module, plain = adapted(), OnnxModule(written())
    matrices = randomize(module)
    for frozen in (module, plain):
        frozen.freeze()  # torch's linear may round elsewhere where its weight trains
    want = module(IDS) if end == "merge_lora" else plain(IDS)
    assert getattr(module, end)() == MATRICES
    assert torch.equal(module(IDS), want)
    if end == "merge_lora":
        check(module, matrices)
    assert module.state_dict().keys() == plain.state_dict().keys()
    assert {type(m) for m in module.modules()} == {type(m) for m in plain.modules()}
    assert not trained(module)
    assert module.lora_state_dict() == {}
    assert getattr(module, end)() == ()
    module.refresh()
    assert torch.equal(module(IDS), want)
    assert module.add_lora("*") == MATRICES, "again"


def test_saved_files_have_the_sums_and_the_module_keeps_its_adapters(tmp_path: Path) -> None:
    module = adapted()
    matrices = randomize(module)
    module.save_onnx(tmp_path / "m.onnx")
    initializers = {t.name for t in onnx.load(tmp_path / "m.onnx").graph.initializer}
    assert initializers == {t.name for t in written().graph.initializer}
    assert set(changed(written(), tmp_path / "m.onnx")) == {
        f"/graph/initializer:{name}" for name in MATRICES
    }
    want = original(matrices)
    assert mean_square_error(want, run(tmp_path / "m.onnx", IDS)) < 1e-9
    onnx.save(written(), tmp_path / "source.onnx")
    assert mean_square_error(want, run(tmp_path / "source.onnx", IDS)) > 0.1
    check(OnnxModule(tmp_path / "m.onnx"), matrices)
    check(module, randomize(module, 1))


def test_safetensors_have_the_sums(tmp_path: Path) -> None:
    module, plain = adapted(), OnnxModule(written())
    module.save_safetensors(tmp_path / "m.safetensors")
    plain.load_safetensors(tmp_path / "m.safetensors")
    check(plain, module.lora_state_dict())


def test_checkpoints_have_the_sums(tmp_path: Path) -> None:
    module = adapted()
    module.unfreeze("*.bias")
    matrices = randomize(module)
    checkpoints.save(written(), tmp_path / "m.pth", module=module)
    loaded = checkpoints.load(tmp_path / "m.pth")
    check(loaded, matrices)
    check(module, matrices)
    plain = OnnxModule(written())
    assert loaded.state_dict().keys() == plain.state_dict().keys()
    assert torch.load(tmp_path / "m.pth").keys() == plain.state_dict().keys()
    assert [n for n, w in loaded.weights.items() if w.requires_grad] == ["conv.bias", "out.bias"]


def test_the_state_dict_has_weights_and_adapters() -> None:
    module, other = adapted(), adapted()
    matrices = randomize(module, 1)
    with torch.no_grad():
        assert not torch.allclose(other(IDS), module(IDS))
    other.load_state_dict(module.state_dict())
    check(other, matrices)


def test_the_lora_state_dict_has_the_adapters_alone() -> None:
    module, other = adapted(), adapted()
    matrices = randomize(module, 1)
    state = module.lora_state_dict()
    assert list(state) == [f"{name}.lora_{m}" for name in MATRICES for m in "AB"]
    assert not any(tensor.requires_grad for tensor in state.values())
    parameters = [p for p in other.parameters() if p.requires_grad]
    other.load_lora_state_dict({name: matrix.double() for name, matrix in state.items()})
    check(other, matrices)
    assert trained(other) == {id(p) for p in parameters}, "optimizers stay valid"


def test_another_lora_state_dict_changes_nothing() -> None:
    module = adapted()
    matrices = randomize(module)
    state = {n: torch.zeros_like(m) for n, m in matrices.items()}
    del state["conv.weight.lora_B"]
    state |= {"out.weight.lora_A": torch.zeros(4, 8), "fc.lora_A": torch.zeros(1)}
    message = (
        r"the same adapters: call add_lora with the same arguments first\n"
        r"  missing: conv\.weight\.lora_B\n  not in the module: fc\.lora_A\n"
        r"  out\.weight\.lora_A must be \[2, 8\], got \[4, 8\]$"
    )
    with pytest.raises(ValueError, match=message):
        module.load_lora_state_dict(state)
    check(module, matrices)
    with pytest.raises(ValueError, match="not in the module: conv"):
        OnnxModule(written()).load_lora_state_dict(matrices)

"""An export is made once: again only when something changes that it depends on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests import exporting
from tests.exports.modules import ENCODER, TAGGER

X = torch.ones(2, 3)
OPTIONS: dict[str, Any] = {"dynamo": False, "opset_version": 17}


class Layers(nn.Module):
    """Two layers and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.register_buffer("shift", torch.zeros(3), persistent=False)
        self.factor = 2.0

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x) * self.factor + self.shift)


def layers() -> Layers:
    torch.manual_seed(0)
    return Layers().eval()


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The exports that were made and not taken from the cache, which is empty at the start."""
    made: list[Path] = []
    run = torch.onnx.export

    def note(network: nn.Module, inputs: Any, path: Path, **options: Any) -> None:
        made.append(path)
        run(network, inputs, path, **options)

    monkeypatch.setattr(exporting, "FOLDER", tmp_path)
    monkeypatch.setattr(torch.onnx, "export", note)
    return made


def test_the_same_is_exported_once(runs: list[Path]) -> None:
    files = [exporting.export_file(layers(), (X,), **OPTIONS) for _ in range(3)]
    assert len(set(files)) == 1
    assert len(runs) == 1
    model = exporting.export(layers(), (X,), **OPTIONS)
    assert len(runs) == 1
    assert model.SerializeToString() == files[0].read_bytes()
    (weight,) = (i for i in model.graph.initializer if i.name == "first.weight")
    assert weight.raw_data == layers().first.weight.detach().numpy().tobytes()


CHANGES: dict[str, Callable[[Layers], object]] = {
    "a weight": lambda n: n.first.weight.data[0, 0].add_(1e-3),
    "a buffer": lambda n: n.get_buffer("shift").add_(1e-3),
    "an attribute": lambda n: setattr(n, "factor", 3.0),
    "the mode of a part": lambda n: n.second.train(),
    "a layer": lambda n: setattr(n, "second", nn.Identity()),
    "what trains": lambda n: n.first.weight.requires_grad_(False),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_network_is_another_export(change: str, runs: list[Path]) -> None:
    before = exporting.export_file(layers(), (X,), **OPTIONS)
    network = layers()
    CHANGES[change](network)
    assert exporting.export_file(network, (X,), **OPTIONS) != before
    assert len(runs) == 2


def test_ties_are_part_of_the_network(runs: list[Path]) -> None:
    apart, tied = layers(), layers()
    with torch.no_grad():
        apart.second.weight.copy_(apart.first.weight)
    tied.second.weight = tied.first.weight
    assert len({exporting.export_file(n, (X,), **OPTIONS) for n in (apart, tied)}) == 2


@pytest.mark.parametrize(
    "call",
    [
        ((X + 1,), OPTIONS),
        ((torch.ones(4, 3),), OPTIONS),
        ((X,), {**OPTIONS, "opset_version": 18}),
        ((X,), {**OPTIONS, "dynamic_axes": {"x": {0: "n"}}, "input_names": ["x"]}),
        ((X,), {**OPTIONS, "do_constant_folding": False}),
    ],
)
def test_another_call_is_another_export(call: Any, runs: list[Path]) -> None:
    before = exporting.export_file(layers(), (X,), **OPTIONS)
    inputs, options = call
    assert exporting.export_file(layers(), inputs, **options) != before
    assert len(runs) == 2


def test_versions_are_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = exporting.export_file(layers(), (X,), **OPTIONS)
    monkeypatch.setattr(exporting, "_versions", lambda: ("another torch",))
    assert exporting.export_file(layers(), (X,), **OPTIONS) != before


def test_the_source_and_what_it_imports_are_part_of_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {file.relative_to(exporting.ROOT).as_posix() for file in exporting.sources(__name__)}
    assert "tests/exports/test_cache.py" in names
    assert "tests/exports/modules/encoder.py" in names
    assert "tests/exports/seeding.py" in names, "which the encoder's case imports"
    changed = tmp_path / "changed.py"
    keys = []
    for text in ("WIDTH = 1", "WIDTH = 2"):
        changed.write_text(text)
        monkeypatch.setattr(exporting, "sources", lambda _: frozenset({changed}))
        keys.append(exporting.export_file(layers(), (X,), **OPTIONS))
    assert keys[0] != keys[1]


def test_what_cannot_be_told_is_not_kept(runs: list[Path], tmp_path: Path) -> None:
    class Local(Layers):
        pass

    hooked, secret = layers(), layers()
    hooked.register_forward_hook(lambda *_: None)
    secret.factor = object()  # type: ignore[assignment]
    torch.manual_seed(0)
    for network in (Local().eval(), hooked, secret):
        assert exporting._key(network, (X,), OPTIONS) is None
        with pytest.raises(ValueError, match="cannot be cached"):
            exporting.export_file(network, (X,), **OPTIONS)
    for _ in range(2):
        exporting.export(Local().eval(), (X,), **OPTIONS)
    assert len(runs) == 2
    assert list(tmp_path.iterdir()) == []


def test_what_fails_leaves_nothing(runs: list[Path], tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(TypeError):
            exporting.export_file(layers(), (X, X, X), **OPTIONS)
    assert len(runs) == 2
    assert [p.suffix for p in tmp_path.iterdir()] == [".lock"]


def test_other_processes_find_the_same_key(tmp_path: Path) -> None:
    """Their strings have other hashes, their objects other addresses."""
    code = f"""if True:
        from tests.exporting import _key
        from tests.exports.modules import ENCODER, TAGGER
        for case in (ENCODER, TAGGER):
            print(_key(case.module(), case.arguments(case.sizes[0]), {OPTIONS!r}))"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=exporting.ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [
        exporting._key(case.module(), case.arguments(case.sizes[0]), OPTIONS)
        for case in (ENCODER, TAGGER)
    ]

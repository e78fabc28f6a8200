"""Hostile checkpoints are refused, whatever entry is wrong; what is saved is what is computed.

Each is an honest one with one thing changed.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import numpy_helper

from onnxinterp import (
    InvalidModelError,
    Limits,
    OnnxError,
    OnnxModule,
    UnsafeModelError,
    checkpoints,
)
from tests.faults.hostile_checkpoints import (
    HOSTILE,
    NESTED,
    REFUSED,
    WOULD_HANG,
    State,
    cut,
    external,
    in_pieces,
    metadata_of,
    model_of,
    model_with,
    with_entries,
    with_template,
)
from tests.faults.hostile_checkpoints import honest as honest
from tests.processes import Fork
from tests.processes import fork as fork
from tests.saving.models import LARGE, raw, sum_of


@pytest.mark.parametrize("name", [name for name in HOSTILE if name not in WOULD_HANG])
def test_what_lies_is_refused(name: str, honest: Callable[[], State], tmp_path: Path) -> None:
    change, error, message = HOSTILE[name]
    torch.save(change(honest()), tmp_path / "m.pth")
    with pytest.raises(error, match=message) as caught:
        checkpoints.load(tmp_path / "m.pth")
    assert str(caught.value).isprintable()
    assert isinstance(caught.value, UnsafeModelError) == (error is UnsafeModelError)


def test_what_would_hang_or_need_all_memory_is_refused(
    honest: Callable[[], State], tmp_path: Path, fork: Fork
) -> None:
    """In a process of its own, which ends after 20 seconds."""
    for number, name in enumerate(WOULD_HANG):
        torch.save(HOSTILE[name][0](honest()), tmp_path / f"{number}.pth")
    packed = {
        "deflated": _archive(b"", {"data/0": bytes(2**28)}, compression=zipfile.ZIP_DEFLATED),
        "keys": _archive(b"}" + NESTED + b"K\x01s."),
        "set": _archive(b"c__builtin__\nset\n]" + NESTED + b"a\x85R."),
        "array": _archive(b"cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR."),
        "memo": _archive(b"]r\xff\xff\xff\x7f."),
    }
    for name, data in packed.items():
        (tmp_path / f"{name}.pth").write_bytes(data)
    files = sorted(tmp_path.iterdir())
    assert len(files) == len(WOULD_HANG) + len(packed)
    assert fork(REFUSED, *files) == 0


def _archive(program: bytes, entries: dict[str, bytes] | None = None, **keywords: Any) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", **keywords) as archive:
        for name, data in {"data.pkl": program, **(entries or {})}.items():
            archive.writestr(f"m/{name}", data)
    return out.getvalue()


def test_a_tensor_does_not_reach_beyond_its_entry(
    honest: Callable[[], State], tmp_path: Path
) -> None:
    """The pickle says how long a storage is; the archive knows."""
    path = tmp_path / "m.pth"
    torch.save(honest(), path)
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].partition("/")[0]
        held = {n.removeprefix(f"{root}/"): archive.read(n) for n in archive.namelist()}
    path.write_bytes(_archive(held.pop("data.pkl"), {**held, "data/0": held["data/0"][:-4]}))
    with pytest.raises(UnsafeModelError, match="larger than their bytes"):
        checkpoints.load(path)


def test_damaged_bytes_are_refused(honest: Callable[[], State], tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    torch.save(honest(), path)
    data = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        at = int(torch.randint(len(data), (1,), generator=generator))
        bit = int(torch.randint(8, (1,), generator=generator))
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
        try:
            checkpoints.load(path)
        except OnnxError:
            continue
    for at in range(0, len(data), len(data) // 50):
        path.write_bytes(data[:at])
        with pytest.raises(InvalidModelError):
            checkpoints.load(path)


def test_limits_and_allowed_operators_hold(honest: Callable[[], State], tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    torch.save(honest(), path)
    assert checkpoints.load(path, limits=Limits.untrusted(), allowed_ops={"Add"}).input_names
    with pytest.raises(UnsafeModelError, match="Add"):
        checkpoints.load(path, allowed_ops={"Sub"})
    for limits in (Limits(weight_bytes=100), Limits(nodes=0), Limits(model_bytes=10)):
        with pytest.raises(UnsafeModelError):
            checkpoints.load(path, limits=limits)


OTHER: dict[str, tuple[Callable[[State], Any], onnx.ModelProto]] = {
    "another node": (with_template(model_of("Sub")), model_of("Sub")),
    "another version": (with_template(model_with(opset=13)), model_with(opset=13)),
    "another input type": (with_template(model_with("Mul")), model_with("Mul")),
    "a hole": (cut(model_of("Sub")), model_of("Sub")),
    "external data": (with_template(external("a", 0, "Sub")), model_of("Sub")),
}


@pytest.mark.parametrize("name", OTHER)
def test_what_is_saved_is_what_is_computed(
    name: str, honest: Callable[[], State], tmp_path: Path
) -> None:
    """A checkpoint holds one model: one that somebody has put there is computed as it is saved."""
    change, model = OTHER[name]
    torch.save(change(honest()), tmp_path / "m.pth")
    module = checkpoints.load(tmp_path / "m.pth")
    x = torch.rand(300)
    assert torch.equal(module(x), OnnxModule(model)(x))
    module.save_onnx(tmp_path / "m.onnx")
    saved = onnx.load(tmp_path / "m.onnx")
    assert saved.opset_import == model.opset_import
    assert saved.graph.node == model.graph.node
    assert numpy_helper.to_array(saved.graph.initializer[0]).tolist() == 300 * [1]
    assert torch.equal(OnnxModule(tmp_path / "m.onnx")(x), module(x))


def test_a_tensor_in_pieces_is_not_saved(honest: Callable[[], State], tmp_path: Path) -> None:
    """There is no one place for what the pieces hold together."""
    state = with_entries(places={"w": [7, 0, 1, 1, 5, 0, 5, 0]})(cut(in_pieces())(honest()))
    torch.save(state, tmp_path / "m.pth")
    module = checkpoints.load(tmp_path / "m.pth")
    assert torch.equal(module(torch.zeros(300)), torch.ones(300))
    with pytest.raises(InvalidModelError, match="in several pieces"):
        module.save_onnx(tmp_path / "m.onnx")


def test_a_wrong_place_changes_nothing(tmp_path: Path) -> None:
    """Weights have the tensors of their names, wherever the file says that they belong."""
    model = sum_of(raw("w", LARGE), raw("v", LARGE, seed=1))
    checkpoints.save(model, tmp_path / "m.pth")
    state = torch.load(tmp_path / "m.pth", weights_only=True)
    places = metadata_of(state)["places"]
    places["w"], places["v"] = places["v"], places["w"]
    torch.save(state, tmp_path / "m.pth")
    module = checkpoints.load(tmp_path / "m.pth")
    for name, tensor in OnnxModule(model).weights.items():
        assert torch.equal(module.weights[name], tensor)
    module.save_onnx(tmp_path / "m.onnx")
    assert onnx.load(tmp_path / "m.onnx") == model


@pytest.mark.parametrize("location", ["conftest.py", ".github/x.yml", "w.bin"])
def test_a_checkpoint_names_no_file(
    location: str, honest: Callable[[], State], tmp_path: Path
) -> None:
    torch.save(with_template(external(location, 0))(honest()), tmp_path / "m.pth")
    module = checkpoints.load(tmp_path / "m.pth")
    folder = tmp_path / "out"
    folder.mkdir()
    for _ in range(2):  # over a model that has data of its own, too
        module.save_onnx(folder / "m.onnx")
        assert {p.name for p in folder.rglob("*")} == {"m.onnx", "m.onnx.data"}
        x = torch.rand(300)
        assert torch.equal(OnnxModule(folder / "m.onnx")(x), module(x))


def test_weights_of_every_layout_come_back(tmp_path: Path) -> None:
    """Transposed, on one storage, and trained apart from each other."""
    model = sum_of(raw("w", 20, LARGE), raw("v", 20, LARGE, seed=1))
    module = OnnxModule(model)
    with torch.no_grad():
        module.weights["w"] = torch.nn.Parameter(torch.rand(LARGE, 20).T)
        module.weights["v"] = torch.nn.Parameter(module.weights["w"][:])
    checkpoints.save(model, tmp_path / "m.pth", module=module)
    again = checkpoints.load(tmp_path / "m.pth")
    assert again.weights["w"].stride() == (1, 20)
    assert again.weights["w"].data_ptr() == again.weights["v"].data_ptr()
    assert torch.equal(again.weights["w"], module.weights["w"])

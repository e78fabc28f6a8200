"""A module saves without its source; where it cannot, it says so, and takes another: like=."""

from __future__ import annotations

import copy
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from onnxinterp import ChangedFileError, OnnxModule, SaveError, checkpoints
from onnxinterp.reading import source as loading
from tests.saving.models import LARGE, differences, raw, saved, sum_of, tune, write_external


def _torch_saved(module: OnnxModule) -> OnnxModule:
    buffer = io.BytesIO()
    torch.save(module, buffer)
    again: OnnxModule = torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    return again


COPIES: dict[str, Callable[[OnnxModule], OnnxModule]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "torch.save": _torch_saved,
}


@pytest.mark.parametrize("how", COPIES)
def test_copies_save_without_the_file(how: str, tmp_path: Path) -> None:
    data = sum_of(raw("w", LARGE), raw("v", LARGE, seed=1)).SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data)
    module = COPIES[how](OnnxModule(tmp_path / "m.onnx"))
    (tmp_path / "m.onnx").unlink()
    assert saved(module, tmp_path / "n.onnx") == data
    tune(module)
    saved(module, tmp_path / "n.onnx")
    assert torch.equal(OnnxModule(tmp_path / "n.onnx").weights["w"], module.weights["w"])


def test_a_pickle_does_not_hold_the_weights_twice() -> None:
    module = OnnxModule(sum_of(raw("w", 100 * LARGE)))
    assert len(pickle.dumps(module)) < 1.2 * 4 * 100 * LARGE


@pytest.mark.parametrize("external", [False, True])
def test_a_checkpoint_saves_without_the_file(external: bool, tmp_path: Path) -> None:
    model = sum_of(raw("w", LARGE), raw("v", LARGE, seed=1))
    path = write_external(model, tmp_path / "a" / "m.onnx", *("wv" if external else ""))
    data, beside = path.read_bytes(), (path.parent / "w.bin").read_bytes()
    checkpoints.save(path, tmp_path / "m.pth")
    path.unlink()
    (path.parent / "w.bin").unlink()
    module = checkpoints.load(tmp_path / "m.pth")
    (tmp_path / "b").mkdir()
    out = saved(module, tmp_path / "b" / "m.onnx")
    if external:  # one file does not choose the names of others
        got = (tmp_path / "b" / "m.onnx.data").read_bytes()
        renamed = onnx.load_from_string(out)
        for tensor in renamed.graph.initializer:
            assert tensor.external_data[0].value == "m.onnx.data"
            tensor.external_data[0].value = "w.bin"
        assert renamed == onnx.load_from_string(data)
        assert len(got) == len(beside)
        weights = raw("w", LARGE).raw_data + raw("v", LARGE, seed=1).raw_data
        assert got.replace(b"\0" * 64, b"").count(b"\x5a") == weights.count(b"\x5a"), (
            "what no tensor has is zero"
        )
        assert OnnxModule(tmp_path / "b" / "m.onnx").weights["v"].equal(module.weights["v"])
    else:
        assert out == data


def test_external_data_that_the_module_does_not_hold_are_asked_for(tmp_path: Path) -> None:
    model = sum_of(raw("w", LARGE), raw("v", LARGE))
    path = write_external(model, tmp_path / "a" / "m.onnx", "w", "v")
    module = OnnxModule(path, outputs=["sum1"])
    tune(module)
    moved = (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "c").mkdir()
    with pytest.raises(SaveError, match=r"'w\.bin' of the source are gone.*'v'.*like="):
        module.save_onnx(tmp_path / "c" / "m.onnx")
    assert list((tmp_path / "c").iterdir()) == []
    module.save_onnx(tmp_path / "c" / "m.onnx", like=moved / "m.onnx")
    got = OnnxModule(tmp_path / "c" / "m.onnx")
    assert torch.equal(got.weights["w"], module.weights["w"])
    assert torch.equal(got.weights["v"], OnnxModule(moved / "m.onnx").weights["v"])
    apart = copy.deepcopy(module)  # its weights lie in no file, but the rest of the data does
    with (tmp_path / "b" / "w.bin").open("ab") as file:
        file.write(b"more")
    (tmp_path / "b").rename(tmp_path / "a")
    with pytest.raises(SaveError, match="have changed since they were read"):
        apart.save_onnx(tmp_path / "c" / "m.onnx")
    with pytest.raises(ChangedFileError, match=r"w\.bin' were changed since they were mapped"):
        module.save_onnx(tmp_path / "c" / "m.onnx")


@pytest.mark.parametrize("kind", ["path", "bytes", "file", "proto"])
def test_another_file_of_the_graph_is_filled(kind: str, tmp_path: Path) -> None:
    """Its storage counts: here typed fields, in the source raw data."""
    module = OnnxModule(sum_of(raw("w", LARGE), raw("v", LARGE, seed=1)))
    tune(module)
    like = sum_of(raw("w", LARGE, seed=7), raw("v", LARGE, seed=8))
    for tensor in like.graph.initializer:
        tensor.ClearField("raw_data")
        tensor.float_data.extend([0.0] * LARGE)
    like.graph.doc_string = "another"
    data = like.SerializeToString()
    (tmp_path / "like.onnx").write_bytes(data)
    given = {"path": tmp_path / "like.onnx", "bytes": data, "file": io.BytesIO(data), "proto": like}
    saved(module, tmp_path / "m.onnx", like=given[kind])
    got = onnx.load(tmp_path / "m.onnx")
    assert got.graph.doc_string == "another"
    assert len(got.graph.initializer[0].float_data) == LARGE
    again = OnnxModule(got)
    for name in "wv":
        assert torch.equal(again.weights[name], module.weights[name])


def test_what_is_given_as_like_may_be_overwritten(tmp_path: Path) -> None:
    model = sum_of(raw("w", LARGE), raw("v", LARGE))
    path = write_external(model, tmp_path / "m.onnx", "w")
    before = path.read_bytes()
    module = OnnxModule(sum_of(raw("w", LARGE), raw("v", LARGE)))
    tune(module)
    saved(module, path, like=path)
    assert list(
        differences(onnx.load_from_string(before), onnx.load(path, load_external_data=False))
    ) == ["/graph/initializer:v"]
    again = OnnxModule(path)
    for name in "wv":
        assert torch.equal(again.weights[name], module.weights[name])


def test_another_graph_is_refused(tmp_path: Path) -> None:
    module = OnnxModule(sum_of(raw("w", 3), raw("v", 3)))
    with pytest.raises(SaveError, match=r"must be a file of the same graph, it differs at 'add w'"):
        module.save_onnx(tmp_path / "m.onnx", like=sum_of(raw("w", 3)))
    with pytest.raises(SaveError, match=r"'v' must have the shape \[1\], got \[3\]"):
        module.save_onnx(tmp_path / "m.onnx", like=sum_of(raw("w", 3), raw("v", 1)))
    other = sum_of(raw("w", 3), raw("v", 3))
    other.graph.node[1].op_type = "Sub"
    with pytest.raises(SaveError, match="differs at 'add v'"):
        module.save_onnx(tmp_path / "m.onnx", like=other)
    assert list(tmp_path.iterdir()) == []


def test_a_proto_that_no_bytes_can_hold_needs_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(model: onnx.ModelProto) -> bytes:
        raise loading.InvalidModelError("too large")

    model = sum_of(raw("w", 3))
    with monkeypatch.context() as patch:
        patch.setattr(loading, "serialized", refuse)
        module = OnnxModule(model)
    tune(module)
    with pytest.raises(SaveError, match=r"more than 2 GB.*like="):
        module.save_onnx(tmp_path / "m.onnx")
    module.save_onnx(tmp_path / "m.onnx", like=model)
    assert torch.equal(OnnxModule(tmp_path / "m.onnx").weights["w"], module.weights["w"])


def test_a_checkpoint_of_a_proto_that_no_bytes_can_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(model: onnx.ModelProto) -> bytes:
        raise loading.InvalidModelError("too large")

    model = sum_of(raw("w", LARGE), raw("v", LARGE, seed=1))
    before = model.SerializeToString()
    with monkeypatch.context() as patch:
        patch.setattr(loading, "serialized", refuse)
        module = OnnxModule(model)
    tune(module)
    checkpoints.save(model, tmp_path / "m.pth", module=module)
    assert model.SerializeToString() == before
    assert (tmp_path / "m.pth").stat().st_size < 2.5 * 4 * LARGE + 10_000
    again = checkpoints.load(tmp_path / "m.pth")
    got = OnnxModule(saved(again, tmp_path / "m.onnx"))
    for name in "wv":
        assert torch.equal(got.weights[name], module.weights[name])


def test_a_checkpoint_has_external_data_of_subgraphs(tmp_path: Path) -> None:
    branches = [
        helper.make_graph(
            [helper.make_node("Add", ["x", name], [f"{name}y"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}y", TensorProto.FLOAT, [LARGE])],
            [raw(name, LARGE, seed=seed)],
        )
        for seed, name in enumerate("wv")
    ]
    infos = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [LARGE]),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [LARGE]),
    ]
    node = helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])
    graph = helper.make_graph([node], "g", infos[:2], infos[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "a").mkdir()
    onnx.save_model(
        model, tmp_path / "a" / "m.onnx", save_as_external_data=True, size_threshold=0, location="w"
    )
    module = OnnxModule(tmp_path / "a" / "m.onnx")
    assert (tmp_path / "a" / "w").stat().st_size >= 2 * 4 * LARGE
    checkpoints.save(tmp_path / "a" / "m.onnx", tmp_path / "m.pth")
    again, x = checkpoints.load(tmp_path / "m.pth"), torch.rand(LARGE)
    again.save_onnx(tmp_path / "n.onnx")
    for condition in (torch.tensor(True), torch.tensor(False)):
        want = module(x, condition)
        assert torch.equal(again(x, condition), want)
        assert torch.equal(OnnxModule(tmp_path / "n.onnx")(x, condition), want)


def test_paths_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after the working directory has changed."""
    path = write_external(sum_of(raw("w", LARGE)), tmp_path / "a" / "m.onnx", "w")
    monkeypatch.chdir(path.parent)
    module = OnnxModule("m.onnx")
    monkeypatch.chdir(tmp_path)
    module.save_onnx("n.onnx")
    assert (tmp_path / "n.onnx").read_bytes() == path.read_bytes()
    assert (tmp_path / "w.bin").read_bytes() == (path.parent / "w.bin").read_bytes()
    assert sorted(os.listdir()) == ["a", "n.onnx", "w.bin"]

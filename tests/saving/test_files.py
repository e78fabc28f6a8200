"""Files appear whole or not at all, whatever happens, and only where they may."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import torch

from onnxinterp import OnnxModule, SaveError, UnsafeModelError
from tests.processes import Fork
from tests.saving.models import NEW, OLD, fill, saved, steps_to_the_disk, tune, version, write_three


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("external", ["", "w", "wv", "wvu"])
def test_saving_over_the_source_leaves_the_module_alone(external: str, tmp_path: Path) -> None:
    path = write_three(tmp_path, external)
    module = OnnxModule(path)
    before = everything(tmp_path)
    mode = path.stat().st_mode
    module.save_onnx(path)
    assert everything(tmp_path) == before
    for number in (NEW, 3.0):
        fill(module, number)
        module.save_onnx(path)
        assert everything(tmp_path).keys() == before.keys()
        assert version(path) == number
        assert all((w == number).all() for w in module.weights.values())
    fill(module, OLD)
    module.save_onnx(path)
    assert everything(tmp_path) == before
    assert path.stat().st_mode == mode


def test_an_old_module_still_reads_the_old_data(tmp_path: Path) -> None:
    path = write_three(tmp_path, "wvu")
    old, new = OnnxModule(path), OnnxModule(path)
    fill(new, NEW)
    new.save_onnx(path)
    assert all((w == OLD).all() for w in old.weights.values()), "pages read after the save"


def test_beside_its_source_a_model_gets_data_of_its_own(tmp_path: Path) -> None:
    path = write_three(tmp_path)
    module = OnnxModule(path)
    fill(module, NEW)
    for number in (NEW, 3.0):
        fill(module, number)
        module.save_onnx(tmp_path / "tuned.onnx")
        assert sorted(everything(tmp_path)) == ["m.onnx", "tuned.onnx", "tuned.onnx.data", "w.bin"]
        assert (version(path), version(tmp_path / "tuned.onnx")) == (OLD, number)
    (tmp_path / "other").mkdir()
    again = OnnxModule(tmp_path / "tuned.onnx")
    got = saved(again, tmp_path / "other" / "m.onnx")
    assert got == (tmp_path / "tuned.onnx").read_bytes(), "a fixed point"
    assert version(tmp_path / "other" / "m.onnx") == 3.0


def test_a_name_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    path = write_three(tmp_path / "a")
    target = tmp_path / "b" / "m.onnx"
    target.parent.mkdir()
    (target.parent / "w.bin").write_bytes(b"of somebody")
    target.with_name("m.onnx.data").write_bytes(b"of somebody else")
    OnnxModule(path).save_onnx(target)
    assert version(target) == OLD
    files = everything(target.parent)
    assert sorted(files) == ["m.onnx", "m.onnx.1.data", "m.onnx.data", "w.bin"]
    assert files["w.bin"] == b"of somebody"


def test_two_spellings_of_one_file_are_one(tmp_path: Path) -> None:
    path = write_three(tmp_path / "a")
    data = path.read_bytes()
    assert data.count(b"w.bin") == 2
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[1].external_data[0].value = "./w.bin"
    path.write_bytes(model.SerializeToString())
    module = OnnxModule(path)
    fill(module, NEW)
    (tmp_path / "b").mkdir()
    module.save_onnx(tmp_path / "b" / "m.onnx")
    assert version(tmp_path / "b" / "m.onnx") == NEW
    assert b"./w.bin" in (tmp_path / "b" / "m.onnx").read_bytes()


def test_weights_that_share_bytes_must_agree(tmp_path: Path) -> None:
    path = write_three(tmp_path)
    model = onnx.load(path, load_external_data=False)
    w, v = model.graph.initializer[:2]
    w.external_data[1].value = v.external_data[1].value
    path.write_bytes(model.SerializeToString())
    module = OnnxModule(path)
    fill(module, NEW)
    module.save_onnx(path)
    assert version(path) == NEW
    module.double()
    with torch.no_grad():
        module.weights["w"].fill_(3)
    before = everything(tmp_path)
    with pytest.raises(SaveError, match="must equal one that shares its bytes"):
        module.save_onnx(path)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("location", ["/tmp/w.bin", "../w.bin", "sub/../../w.bin"])
def test_nothing_is_written_outside_the_folder(location: str, tmp_path: Path) -> None:
    path = write_three(tmp_path / "a" / "b")
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer[:2]:
        tensor.external_data[0].value = location
    module = OnnxModule(path)
    with pytest.raises(UnsafeModelError, match="must be inside the model's folder"):
        module.save_onnx(tmp_path / "a" / "b" / "n.onnx", like=model)
    assert sorted(everything(tmp_path)) == ["a/b/m.onnx", "a/b/w.bin"]


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    path = write_three(tmp_path / "a", location="sub/w.bin")
    module = OnnxModule(path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "w.bin").write_bytes(b"precious")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "sub").symlink_to(outside)
    with pytest.raises(UnsafeModelError, match="behind a link"):
        module.save_onnx(tmp_path / "b" / "m.onnx")
    (tmp_path / "b" / "sub").unlink()
    (tmp_path / "b" / "sub").mkdir()
    (tmp_path / "b" / "sub" / "w.bin").symlink_to(outside / "w.bin")
    with pytest.raises(UnsafeModelError, match="behind a link"):
        module.save_onnx(tmp_path / "b" / "m.onnx")
    (tmp_path / "b" / "m.onnx").symlink_to(outside / "w.bin")
    (tmp_path / "b" / "sub" / "w.bin").unlink()
    module.save_onnx(tmp_path / "b" / "m.onnx")
    assert (outside / "w.bin").read_bytes() == b"precious"
    assert not (tmp_path / "b" / "m.onnx").is_symlink()
    assert version(tmp_path / "b" / "m.onnx") == OLD


def test_a_hard_link_keeps_what_it_has(tmp_path: Path) -> None:
    path = write_three(tmp_path / "a", "")
    os.link(path, tmp_path / "twin.onnx")
    module = OnnxModule(path)
    fill(module, NEW)
    module.save_onnx(path)
    assert (version(path), version(tmp_path / "twin.onnx")) == (NEW, OLD)


def test_a_folder_that_is_missing_is_not_made(tmp_path: Path) -> None:
    module = OnnxModule(write_three(tmp_path / "a"))
    with pytest.raises(FileNotFoundError):
        module.save_onnx(tmp_path / "b" / "m.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


@pytest.mark.parametrize("external", ["", "wv"])
def test_a_full_disk_leaves_the_old_files_and_no_litter(external: str, tmp_path: Path) -> None:
    """The limit on the size of a file stands for the disk: the write fails half-way."""
    path = write_three(tmp_path, external, location="sub/w.bin")
    module = OnnxModule(path)
    fill(module, NEW)
    before = everything(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for size in (0, 100, 5000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
            for target in (path, tmp_path / "new.onnx"):
                with pytest.raises(OSError, match="File too large"):
                    module.save_onnx(target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert everything(tmp_path) == before
    assert not [p for p in tmp_path.rglob("*") if p.is_dir() and p.name != "sub"]


@pytest.mark.parametrize("call", ["fsync", "replace", "copyfileobj"])
def test_any_call_that_fails_leaves_one_version(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th call fails, for each n: what is found under the name is old or new, never both."""
    owner = {"fsync": os, "replace": Path, "copyfileobj": shutil}[call]
    original = getattr(owner, call)
    for n in range(20):
        folder = tmp_path / str(n)
        path = write_three(folder)
        module = OnnxModule(path)
        fill(module, NEW)
        names = set(everything(folder))
        count = iter(range(100))

        def failing(*args: object, count: Iterator[int] = count, n: int = n) -> object:
            if next(count) == n:
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(*args)

        with monkeypatch.context() as patch:
            patch.setattr(owner, call, failing)
            try:
                module.save_onnx(path)
            except OSError:
                failed = True
            else:
                failed = False
        assert not list(folder.rglob("*.part"))
        assert version(path) in (OLD, NEW)
        if not failed:
            assert next(count) <= n
            assert set(everything(folder)) == names
            assert version(path) == NEW
            return
    raise AssertionError("it never came through")


SAVE_AND_DIE = f"""
import os, pathlib, shutil, signal
import torch
from onnxinterp import OnnxModule
path, n = arguments[0], int(arguments[1])
module = OnnxModule(path)
with torch.no_grad():
    for weight in module.weights.values():
        weight.fill_({NEW})
count = 0
def fatal(owner, name):
    original = getattr(owner, name)
    def call(*args, **keywords):
        global count
        for moment in ("before", "after"):
            if count == n:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            if moment == "before":
                result = original(*args, **keywords)
        return result
    setattr(owner, name, call)
os.fsync = lambda descriptor: None  # a kill of the process loses nothing that was written
for owner, name in ((os, "open"), (pathlib.Path, "replace"), (shutil, "copyfileobj"),
                    (pathlib.Path, "unlink")):
    fatal(owner, name)
module.save_onnx(path)
"""


@pytest.mark.parametrize(("external", "at_least"), [("", 6), ("wv", 22), ("wvu", 12)])
def test_a_kill_at_any_step_leaves_one_version(
    external: str, at_least: int, fork: Fork, tmp_path: Path
) -> None:
    """Before and after every call that opens, renames, copies or removes."""
    write_three(tmp_path / "source", external)
    versions: list[float] = []
    died = signal.SIGKILL.value
    while died:
        folder = tmp_path / str(len(versions))
        shutil.copytree(tmp_path / "source", folder)
        died = fork(SAVE_AND_DIE, folder / "m.onnx", len(versions))
        assert died in (signal.SIGKILL, 0)
        versions.append(version(folder / "m.onnx"))
    assert len(versions) > at_least
    assert versions == sorted(versions), "old, then new"
    assert {OLD, NEW} == set(versions)
    assert everything(folder).keys() == everything(tmp_path / "source").keys()


SAVE_UNTIL_THE_BELL = f"""
import signal
import torch
from onnxinterp import OnnxModule
module = OnnxModule(arguments[0])
signal.setitimer(signal.ITIMER_REAL, int(arguments[1]) / 1000)  # nothing catches this signal
while True:
    for number in ({OLD}, {NEW}):
        with torch.no_grad():
            for weight in module.weights.values():
                weight.fill_(number)
        module.save_onnx(arguments[0])
"""


@pytest.mark.parametrize("milliseconds", [3, 17, 41, 88])
def test_a_kill_at_any_time_leaves_one_version(
    milliseconds: int, fork: Fork, tmp_path: Path
) -> None:
    """Saved over and over by a child that is killed after some milliseconds."""
    path = write_three(tmp_path, "wv")
    assert fork(SAVE_UNTIL_THE_BELL, path, milliseconds) == signal.SIGALRM
    assert version(path) in (OLD, NEW)


def test_what_takes_a_name_is_on_the_disk_before(tmp_path: Path) -> None:
    path = write_three(tmp_path)
    module = OnnxModule(path)
    fill(module, NEW)
    with steps_to_the_disk() as done:
        module.save_onnx(path)
    folder = ("fsync", tmp_path.stat().st_ino)
    renames = [i for i, (what, _) in enumerate(done) if what == "replace"]
    assert len(renames) == 3, "the model, its data, the model again"
    for i in renames:
        assert ("fsync", done[i][1]) in done[:i]
        assert done[i + 1] == folder


def test_new_files_have_the_usual_rights(tmp_path: Path) -> None:
    path = write_three(tmp_path / "a")
    (tmp_path / "b").mkdir()
    mask = os.umask(0o027)
    try:
        OnnxModule(path).save_onnx(tmp_path / "b" / "m.onnx")
    finally:
        os.umask(mask)
    for name in ("m.onnx", "w.bin"):
        assert stat.S_IMODE((tmp_path / "b" / name).stat().st_mode) == 0o640


def test_tuned_external_weights_are_where_they_were(tmp_path: Path) -> None:
    path = write_three(tmp_path / "a", location="sub/w.bin")
    module = OnnxModule(path)
    tune(module)
    (tmp_path / "b").mkdir()
    saved(module, tmp_path / "b" / "m.onnx")
    ours, theirs = (
        onnx.load(tmp_path / n / "m.onnx", load_external_data=False).graph.initializer for n in "ab"
    )
    for a, b in zip(ours[:2], theirs[:2], strict=True):
        assert a == b
    sizes = [(tmp_path / n / "sub" / "w.bin").stat().st_size for n in "ab"]
    assert sizes[0] == sizes[1]
    assert torch.equal(OnnxModule(tmp_path / "b" / "m.onnx").weights["w"], module.weights["w"])

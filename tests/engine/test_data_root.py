"""`data_root=` allows symlinks within a folder, as in the caches of model hubs."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

import pytest

from onnxinterp import InvalidModelError, OnnxModule, UnsafeModelError
from tests.engine.external_data import VALUES, is_read, save
from tests.engine.external_data import way as way


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A cache of a model hub: names are links to what is kept by digest."""
    path = save(tmp_path / "made", "sub/w.bin")
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "1"
    blobs.mkdir(parents=True)
    (snapshot / "sub").mkdir(parents=True)
    shutil.move(path, blobs / "aa")
    (blobs / "bb").write_bytes(VALUES.tobytes())
    os.link(blobs / "bb", blobs / "cc")
    (snapshot / "m.onnx").symlink_to("../../blobs/aa")
    (snapshot / "sub" / "w.bin").symlink_to("../../../blobs/bb")
    return tmp_path / "hub"


@pytest.mark.usefixtures("way")
def test_data_root_allows_links_within_it(hub: Path) -> None:
    path = hub / "snapshots" / "1" / "m.onnx"
    with pytest.raises(UnsafeModelError, match="behind a link"):
        OnnxModule(path)
    assert is_read(path, data_root=hub)
    link = hub.with_name("link")
    link.symlink_to(hub)
    assert is_read(path, data_root=link)


@pytest.mark.usefixtures("way")
def test_a_link_in_a_hub_says_what_allows_it(hub: Path) -> None:
    """The value that the message gives for data_root is one that works, and no more than needed."""
    path = hub / "snapshots" / "1" / "m.onnx"
    with pytest.raises(UnsafeModelError, match="behind a link") as caught:
        OnnxModule(path)
    found = re.search(r"to '(.*)'; to allow it, set data_root='(.*)'$", str(caught.value))
    assert found is not None
    target, root = map(Path, found.groups())
    assert target == Path(os.path.realpath(hub)) / "blobs" / "bb"
    assert root == Path(os.path.realpath(hub))
    assert is_read(path, data_root=root)


def test_no_message_gives_the_whole_file_system_as_data_root(tmp_path: Path) -> None:
    path = save(tmp_path)
    (tmp_path / "w.bin").symlink_to("/dev/null")
    with pytest.raises(UnsafeModelError, match=r"is behind a link, to '/dev/null'$"):
        OnnxModule(path)


def test_a_linked_model_without_its_data_says_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "given").mkdir()
    path = save(tmp_path / "real")
    (tmp_path / "real" / "w.bin").write_bytes(VALUES.tobytes())
    link = tmp_path / "given" / "m.onnx"
    link.symlink_to(path)
    with pytest.raises(InvalidModelError, match="is missing in") as caught:
        OnnxModule(link)
    found = re.search(r"; the model is a link to '(.*)': load it from there$", str(caught.value))
    assert found is not None
    assert is_read(Path(found[1]))
    (tmp_path / "real" / "w.bin").unlink()
    with pytest.raises(InvalidModelError, match=r"given$"):
        OnnxModule(link)


@pytest.mark.usefixtures("way")
def test_a_link_that_changes_meanwhile_is_refused(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message is then without a hint: it is made by looking at names again."""

    def replaced(path: str, **_: object) -> str:
        raise OSError(errno.EINVAL, "Invalid argument", path)

    monkeypatch.setattr(os, "readlink", replaced)
    with pytest.raises(InvalidModelError):
        OnnxModule(hub / "snapshots" / "1" / "m.onnx")


@pytest.mark.parametrize("target", ["../../../../outside", "/dev/zero", "/proc/self/mem", "w.bin"])
@pytest.mark.usefixtures("way")
def test_data_root_ends_where_it_ends(target: str, hub: Path) -> None:
    (hub.parent / "outside").write_bytes(VALUES.tobytes())
    data = hub / "snapshots" / "1" / "sub" / "w.bin"
    data.unlink()
    data.symlink_to(target)
    with pytest.raises(UnsafeModelError, match=r"leads out of data_root, '.*', to '|link"):
        OnnxModule(hub / "snapshots" / "1" / "m.onnx", data_root=hub)


def test_data_root_holds_when_links_change_meanwhile(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (hub.parent / "outside").mkdir()
    (hub.parent / "outside" / "bb").write_bytes(VALUES.tobytes())
    original = os.path.realpath

    def late(path: str, **keywords: bool) -> str:
        real = original(path, **keywords)
        if str(path).endswith("w.bin"):
            (hub / "blobs").rename(hub / "gone")
            (hub / "blobs").symlink_to(hub.parent / "outside")
        return real

    monkeypatch.setattr(os.path, "realpath", late)
    with pytest.raises(UnsafeModelError, match="behind a link"):
        OnnxModule(hub / "snapshots" / "1" / "m.onnx", data_root=hub)


def test_a_module_from_a_hub_is_saved_with_its_data(hub: Path, tmp_path: Path) -> None:
    module = OnnxModule(hub / "snapshots" / "1" / "m.onnx", data_root=hub)
    (tmp_path / "out").mkdir()
    module.save_onnx(tmp_path / "out" / "m.onnx")
    assert is_read(tmp_path / "out" / "m.onnx")

"""What every way of writing a file keeps to: whole or not at all, and only where it may.

`tests/saving/test_files.py` asks `save_onnx` at each step; here are the other writers, and what
comes from outside: kills, full disks, links, rights, devices, others who write at the same time.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onnxinterp import OnnxModule, checkpoints
from onnxinterp.cli import main
from onnxinterp.format import atomic
from tests.faults.test_threads import at_once
from tests.processes import Fork
from tests.saving.models import NEW, OLD, fill, raw, steps_to_the_disk, sum_of, version, write_three

Write = Callable[[OnnxModule, Path, Path], None]  # a module, its file, the file to write


def _converted(module: OnnxModule, path: Path, target: Path) -> None:
    assert main(["convert", "--source", str(path), "--output", str(target)]) == 0


WRITERS: dict[str, Write] = {
    "save_onnx .onnx": lambda module, _, target: module.save_onnx(target),
    "save_safetensors .safetensors": lambda module, _, target: module.save_safetensors(target),
    "checkpoints.save .pth": lambda module, path, target: checkpoints.save(
        path, target, module=module
    ),
}
COMMANDS: dict[str, Write] = {
    f"convert {suffix}": _converted for suffix in (".pth", ".safetensors", ".pt2")
}


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture
def _small_files() -> Iterator[None]:
    """The limit on the size of a file stands for a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.usefixtures("_small_files")
def test_a_full_disk_leaves_what_was_there(writer: str, tmp_path: Path) -> None:
    module, path = OnnxModule(sum_of(raw("w", 2000))), tmp_path / f"n{Path(writer).suffix}"
    path.write_bytes(b"what was there")
    with pytest.raises(OSError, match="File too large") as caught:
        WRITERS[writer](module, sum_of(raw("w", 2000)), path)  # type: ignore[arg-type]
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == b"what was there"
    assert names(tmp_path) == [path.name]


@pytest.mark.parametrize("writer", {**WRITERS, **COMMANDS})
def test_rights_links_and_others_names(writer: str, tmp_path: Path) -> None:
    """One file is replaced: with its rights, never by what a link leads to, and on the disk."""
    path = write_three(tmp_path / "a", "", number=NEW)
    module, write = OnnxModule(path), {**WRITERS, **COMMANDS}[writer]
    folder, suffix = tmp_path / "b", Path(writer).suffix
    folder.mkdir()
    target, link, linked = folder / f"n{suffix}", folder / f"l{suffix}", folder / "precious"
    target.write_bytes(b"old")
    target.chmod(0o600)
    linked.write_bytes(b"precious")
    linked.chmod(0o640)
    link.symlink_to(linked)
    (folder / f"{target.name}.part").symlink_to(linked)  # what once was the name of a part
    with steps_to_the_disk() as done:
        for file in (target, link):
            write(module, path, file)
            assert version(file) == NEW
    where = ("fsync", folder.stat().st_ino)
    files = [file.stat().st_ino for file in (target, link)]
    assert done == [
        step for inode in files for step in (("fsync", inode), ("replace", inode), where)
    ]
    assert linked.read_bytes() == b"precious"
    assert not link.is_symlink()
    assert [stat.S_IMODE(f.stat().st_mode) for f in (target, link)] == [0o600, 0o640]
    mask = os.umask(0o027)
    try:
        write(module, path, folder / f"new{suffix}")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((folder / f"new{suffix}").stat().st_mode) == 0o640
    assert names(folder) == sorted(
        [target.name, link.name, linked.name, f"{target.name}.part", f"new{suffix}"]
    )


@pytest.mark.parametrize("writer", WRITERS)
def test_what_is_no_file_is_not_replaced(writer: str, tmp_path: Path) -> None:
    """As root, a device would be: /dev/null."""
    path = write_three(tmp_path / "a", "", number=NEW)
    module, suffix = OnnxModule(path), Path(writer).suffix
    folder = tmp_path / "b"
    folder.mkdir()
    os.mkfifo(folder / f"pipe{suffix}")
    (folder / f"folder{suffix}").mkdir()
    (folder / f"full{suffix}").symlink_to("/dev/full")
    before = names(folder)
    for name in before:
        with pytest.raises((FileExistsError, IsADirectoryError)):
            WRITERS[writer](module, path, folder / name)
    assert names(folder) == before
    with pytest.raises(FileNotFoundError):
        WRITERS[writer](module, path, tmp_path / "missing" / f"n{suffix}")
    (tmp_path / "link").symlink_to(folder)
    WRITERS[writer](module, path, tmp_path / "link" / f"n{suffix}")
    assert version(folder / f"n{suffix}") == NEW, "the folder itself may be a link"


def test_parts_are_new_files_of_unforeseeable_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never opened by a name that somebody else may have made; private while they are written."""
    opened: list[tuple[str, int]] = []
    system = os.open

    def note(path: str, flags: int, mode: int = 0o777, **keywords: int) -> int:
        descriptor = system(path, flags, mode, **keywords)
        if flags & os.O_CREAT:
            opened.append((os.path.basename(path), stat.S_IMODE(os.fstat(descriptor).st_mode)))
            assert flags & os.O_EXCL
        return descriptor

    path = write_three(tmp_path)
    path.chmod(0o400)
    (tmp_path / "w.bin").chmod(0o600)
    module = OnnxModule(path)
    fill(module, NEW)
    monkeypatch.setattr(os, "open", note)
    module.save_onnx(path)
    monkeypatch.undo()
    assert len(opened) == 4, "the model twice, its data, and the copy of the data"
    assert all(mode in (0o400, 0o600) for _, mode in opened)
    assert len({name for name, _ in opened}) == 4
    assert version(path) == NEW
    rights = [stat.S_IMODE((tmp_path / n).stat().st_mode) for n in ("m.onnx", "w.bin")]
    assert rights == [0o400, 0o600]


def test_names_may_be_as_long_as_the_system_lets_them(tmp_path: Path) -> None:
    path = tmp_path / ("ж" * 125 + ".onnx")
    OnnxModule(sum_of(raw("w", 3))).save_onnx(path)
    assert names(tmp_path) == [path.name]


READ_ONLY = """
import os, tempfile
from pathlib import Path
from onnxinterp import OnnxModule, checkpoints
folder = Path(arguments[0])
module = OnnxModule(folder / "m.onnx")

def writes(to):
    return (
        lambda: module.save_onnx(to / "m.onnx"),
        lambda: module.save_safetensors(to / "m.safetensors"),
        lambda: checkpoints.save(folder / "m.onnx", to / "m.pth", module=module),
    )

with tempfile.TemporaryDirectory() as elsewhere:
    for write in writes(Path(elsewhere)):
        write()  # imports what it needs, which may not be for everyone to read
os.setuid(65534)  # whom root's rights do not help
for write in writes(folder):
    try:
        write()
    except PermissionError:
        continue
    raise AssertionError("it was written")
"""


def test_a_folder_that_may_only_be_read(fork: Fork, tmp_path: Path) -> None:
    path = write_three(tmp_path / "a", "")
    for folder in (path.parent, tmp_path, tmp_path.parent):
        folder.chmod(0o755)
    path.parent.chmod(0o555)
    before = path.read_bytes()
    if os.getuid() == 0:
        assert fork(READ_ONLY, path.parent) == 0
    else:
        with pytest.raises(PermissionError):
            OnnxModule(path).save_onnx(path)
    path.parent.chmod(0o755)
    assert path.read_bytes() == before
    assert names(path.parent) == ["m.onnx", "w.bin"]


SAVE_UNTIL_THE_BELL = f"""
import os, signal
import torch
from onnxinterp import OnnxModule, checkpoints
source, target, kind, seconds = arguments
os.fsync = lambda _: None  # a kill loses nothing that was written
module = OnnxModule(source)
signal.setitimer(signal.ITIMER_REAL, float(seconds))  # nothing catches this signal
while True:
    for number in ({OLD}, {NEW}):
        with torch.no_grad():
            for weight in module.weights.values():
                weight.fill_(number)
        if kind == "onnx":
            module.save_onnx(target)
        elif kind == "safetensors":
            module.save_safetensors(target)
        else:
            checkpoints.save(source, target, module=module)
"""


@pytest.mark.parametrize(
    ("kind", "external"), [("onnx", ""), ("onnx", "wv"), ("safetensors", ""), ("pth", "")]
)
def test_kills_at_any_moment(kind: str, external: str, fork: Fork, tmp_path: Path) -> None:
    path = write_three(tmp_path / "a", external)
    folder = tmp_path / "b"
    folder.mkdir()
    target = write_three(folder, external) if kind == "onnx" else folder / f"m.{kind}"
    if kind != "onnx":
        module = OnnxModule(path)
        WRITERS["save_safetensors .safetensors" if kind != "pth" else "checkpoints.save .pth"](
            module, path, target
        )
    for n in range(10):
        seconds = 0.004 + 0.0037 * n
        assert fork(SAVE_UNTIL_THE_BELL, path, target, kind, seconds) == signal.SIGALRM
        assert version(target) in (OLD, NEW)


def test_threads_that_save_to_one_name(tmp_path: Path) -> None:
    """Weights in the model and weights in its data are those of one writer, the last."""
    path = write_three(tmp_path / "a")
    folder = tmp_path / "b"
    folder.mkdir()

    def work(thread: int) -> None:
        module = OnnxModule(path)
        for n in range(6):
            fill(module, 10.0 * thread + n)
            module.save_onnx(folder / "m.onnx")

    at_once(work, 6)
    assert version(folder / "m.onnx") % 10 == 5
    assert names(folder) == ["m.onnx", "w.bin"]


WRITE_OFTEN = """
import os
import torch
from onnxinterp import OnnxModule
path, target = arguments
children = []
for number in (0, 100):
    child = os.fork()
    if not child:
        module = OnnxModule(path)
        for n in range(15):
            with torch.no_grad():
                for weight in module.weights.values():
                    weight.fill_(number + n)
            module.save_onnx(target)
        os._exit(0)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
"""


def test_processes_that_save_to_one_name(fork: Fork, tmp_path: Path) -> None:
    path = write_three(tmp_path / "a")
    folder = tmp_path / "b"
    folder.mkdir()
    assert fork(WRITE_OFTEN, path, folder / "m.onnx") == 0
    assert version(folder / "m.onnx") in (14, 114)
    assert names(folder) == ["m.onnx", "w.bin"]


def test_a_folder_that_others_use_stays(tmp_path: Path) -> None:
    """What cannot be removed is no reason to say something else than what went wrong."""

    def fail(out: object) -> None:
        (tmp_path / "sub" / "of somebody").write_bytes(b"")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"), atomic.StagedFiles(tmp_path) as parts:
        parts.write(tmp_path / "sub" / "w.bin", fail)
    assert names(tmp_path / "sub") == ["of somebody"]


def test_folders_without_locks_or_that_cannot_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network file systems refuse both; files are whole all the same."""
    import fcntl

    path = write_three(tmp_path)
    module = OnnxModule(path)
    fill(module, NEW)
    sync = os.fsync

    def no_lock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    def no_folder(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(descriptor)

    monkeypatch.setattr(fcntl, "flock", no_lock)
    monkeypatch.setattr(os, "fsync", no_folder)
    module.save_onnx(path)
    assert version(path) == NEW

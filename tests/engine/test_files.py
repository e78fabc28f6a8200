"""What may be opened in a model's name: plain files below its folder, and nothing else.

Nothing here may wait: a pipe that nobody writes to, or a device, would hang the test.
"""

from __future__ import annotations

import gc
import io
import os
import socket
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch

from onnxinterp import InvalidModelError, OnnxModule, UnsafeModelError
from onnxinterp.format import files
from onnxinterp.format.files import Folder, parts_of
from onnxinterp.format.tensor_checks import external_of
from onnxinterp.format.tensor_reader import TensorReader
from onnxinterp.limits import Limits
from onnxinterp.reading.source import complete, content_of, read
from tests.engine.external_data import SIZE, VALUES, is_read, model_of, save
from tests.engine.external_data import way as way

LEGAL = ["w.bin", "w..bin", "...", "..w", "a b", "ü€", "sub/w.bin", "./w.bin", "a//b", "a/./b", "-"]


@pytest.mark.parametrize("location", LEGAL)
@pytest.mark.usefixtures("way")
def test_names_below_the_folder_are_opened(location: str, tmp_path: Path) -> None:
    path = save(tmp_path, location)
    (tmp_path / location).parent.mkdir(exist_ok=True)
    (tmp_path / location).write_bytes(VALUES.tobytes())
    assert is_read(path)


ILLEGAL = [
    *("", ".", "./", "./.", "..", "../w.bin", "a/../w.bin", "a/..", "/", "//", "/etc/passwd"),
    *("//server/share/w.bin", "\\\\server\\share\\w.bin", "C:", "C:w.bin", "C:/w.bin", "c:\\w.bin"),
    *("..\\w.bin", "a\\b", "w.bin/", "w.bin/.", "w.bin\0", "\0"),
]


@pytest.mark.parametrize("location", ILLEGAL)
def test_names_that_lead_elsewhere_or_are_none_are_refused(location: str, tmp_path: Path) -> None:
    with pytest.raises(UnsafeModelError):
        parts_of(location)
    (tmp_path / "w.bin").write_bytes(VALUES.tobytes())
    (tmp_path / "a").mkdir()
    with pytest.raises(UnsafeModelError):
        OnnxModule(save(tmp_path, location))


@pytest.mark.parametrize("location", ["no", "no/no", "n" * 300, "a/" * 3000 + "b"])
@pytest.mark.usefixtures("way")
def test_what_is_not_there_is_an_invalid_model(location: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match=r"missing|cannot be opened"):
        OnnxModule(save(tmp_path, location))


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(here)


def _hard_link(path: Path) -> None:
    path.with_name("other").write_bytes(VALUES.tobytes())
    os.link(path.with_name("other"), path)


STRANGE: dict[str, Callable[[Path], None]] = {
    "folder": lambda path: path.mkdir(),
    "pipe": _pipe,
    "socket": _socket,
    "link to a file": lambda path: (
        path.with_name("other").write_bytes(VALUES.tobytes()),
        path.symlink_to("other"),
    )[1],
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "link to memory": lambda path: path.symlink_to("/proc/self/mem"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "hard link": _hard_link,
}


@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.usefixtures("way")
def test_external_data_are_plain_files(kind: str, tmp_path: Path) -> None:
    if kind == "pipe" and not files.BY_DESCRIPTOR:
        kind = "folder"
    path = save(tmp_path)
    STRANGE[kind](tmp_path / "w.bin")
    with pytest.raises(UnsafeModelError, match=r"link|not a regular file"):
        OnnxModule(path)


@pytest.mark.usefixtures("way")
def test_no_folder_on_the_way_is_a_link(tmp_path: Path) -> None:
    path = save(tmp_path / "m", "sub/w.bin")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "w.bin").write_bytes(VALUES.tobytes())
    (tmp_path / "m" / "sub").symlink_to(tmp_path / "outside")
    with pytest.raises(UnsafeModelError, match="behind a link"):
        OnnxModule(path)


def test_what_was_opened_decides_not_what_a_look_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody puts a link in place between any look and the opening."""
    path = save(tmp_path)
    (tmp_path / "w.bin").write_bytes(VALUES.tobytes())
    (tmp_path / "secret").write_bytes(VALUES.tobytes())
    original = os.open

    def late(name: object, *args: object, **keywords: object) -> int:
        if name == "w.bin":
            (tmp_path / "w.bin").unlink()
            (tmp_path / "w.bin").symlink_to("secret")
        return original(name, *args, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", late)
    with pytest.raises(UnsafeModelError, match="behind a link"):
        OnnxModule(path)


def test_data_come_from_the_folder_the_model_came_from(tmp_path: Path) -> None:
    """The folder is opened once: another one under its name has no say."""
    path = save(tmp_path / "m")
    (tmp_path / "m" / "w.bin").write_bytes(VALUES.tobytes())
    proto, reader, _ = read(path)
    (tmp_path / "m").rename(tmp_path / "moved")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "w.bin").write_bytes(bytes(4 * SIZE))
    tensor = reader(proto.graph.initializer[0])
    assert torch.equal(torch.as_tensor(tensor), torch.from_numpy(VALUES.copy()))


@pytest.mark.parametrize("kind", ["folder", "pipe", "socket"])
def test_the_model_is_a_plain_file(kind: str, tmp_path: Path) -> None:
    STRANGE[kind](tmp_path / "m.onnx")
    for load in (OnnxModule, read, complete, content_of):
        with pytest.raises(UnsafeModelError, match="plain"):
            load(tmp_path / "m.onnx")


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/proc/self/mem", "/proc/self/environ"])
def test_devices_and_processes_are_no_models(path: str) -> None:
    for load in (OnnxModule, read, complete):
        with pytest.raises(InvalidModelError):
            load(path)


def test_the_users_own_path_may_be_a_link(tmp_path: Path) -> None:
    """External data are beside the path as it is given."""
    (tmp_path / "real").mkdir()
    (tmp_path / "given").mkdir()
    path = save(tmp_path / "real")
    (tmp_path / "given" / "m.onnx").symlink_to(path)
    (tmp_path / "given" / "w.bin").write_bytes(VALUES.tobytes())
    assert is_read(tmp_path / "given" / "m.onnx")
    (tmp_path / "folder").symlink_to(tmp_path / "given")
    assert is_read(tmp_path / "folder" / "m.onnx")


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({"offset": "-4"}, "must be a number of bytes"),
        ({"offset": "1_000"}, "must be a number of bytes"),
        ({"offset": " 4"}, "must be a number of bytes"),
        ({"offset": "+4"}, "must be a number of bytes"),
        ({"offset": "4.0"}, "must be a number of bytes"),
        ({"offset": "0x4"}, "must be a number of bytes"),
        ({"offset": ""}, "must be a number of bytes"),
        ({"offset": "٤"}, "must be a number of bytes"),  # a digit, but not of ours
        ({"offset": "9" * 19}, "must be a number of bytes"),
        ({"offset": "9" * 5000}, "must be a number of bytes"),
        ({"offset": str(2**63 - 1)}, "end before those of"),
        ({"offset": "4"}, "end before those of"),
        ({"length": "4092"}, "must have 4096 bytes, got 4092"),
        ({"length": "4100"}, "must have 4096 bytes, got 4100"),
        ({"length": "-4096"}, "must be a number of bytes"),
        ({"length": "0"}, "must have 4096 bytes, got 0"),
    ],
)
def test_offset_and_length_are_decimal_and_fit(
    entries: dict[str, str], text: str, tmp_path: Path
) -> None:
    (tmp_path / "w.bin").write_bytes(VALUES.tobytes())
    with pytest.raises(InvalidModelError, match=text):
        OnnxModule(save(tmp_path, **entries))


def test_what_else_external_data_say(tmp_path: Path) -> None:
    """Unknown keys and the checksum are passed over; a key given twice is refused."""
    (tmp_path / "w.bin").write_bytes(bytes(8) + VALUES.tobytes())
    entries = {"offset": "0008", "length": "4096", "checksum": "0" * 40, "mine": "?"}
    path = save(tmp_path, **entries)
    assert is_read(path)
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data.add(key="offset", value="8")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidModelError, match="two entries 'offset'"):
        OnnxModule(path)


def test_an_empty_tensor_may_have_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "w.bin").touch()
    tensor = model_of(location="w.bin", length="0").graph.initializer[0]
    tensor.dims[:] = [0, 3]
    value = TensorReader(Folder(tmp_path))(tensor)
    assert tuple(value.shape) == (0, 3)
    tensor.external_data[0].value = "../w.bin"
    with pytest.raises(UnsafeModelError):
        TensorReader(Folder(tmp_path))(tensor)


def test_any_number_of_files_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map keeps a descriptor open, so that only some files are mapped."""
    monkeypatch.setattr("onnxinterp.format.tensor_reader.MAX_MAPS", 2)
    reader = TensorReader(Folder(tmp_path))
    for i in range(4):
        (tmp_path / str(i)).write_bytes((VALUES + i).tobytes())
        tensor = model_of(location=str(i)).graph.initializer[0]
        assert torch.equal(torch.as_tensor(reader(tensor)), torch.from_numpy(VALUES + i))


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    path = save(tmp_path, "a/b/w.bin")
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "w.bin").write_bytes(VALUES.tobytes())
    proto, reader, _ = read(path)
    reader(proto.graph.initializer[0])
    gc.collect()  # what earlier tests have left
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        proto, reader, _ = read(path)
        reader(proto.graph.initializer[0])
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_complete_model_has_its_data_inside(tmp_path: Path) -> None:
    path = save(tmp_path)
    (tmp_path / "w.bin").write_bytes(VALUES.tobytes())
    tensor = complete(path).graph.initializer[0]
    assert tensor.raw_data == VALUES.tobytes()
    assert not tensor.external_data
    (tmp_path / "w.bin").unlink()
    (tmp_path / "w.bin").symlink_to("/dev/zero")
    with pytest.raises(UnsafeModelError):
        complete(path)
    with pytest.raises(InvalidModelError, match="load the model from its path"):
        complete(model_of(location="w.bin"))


def test_no_more_of_a_model_is_read_than_allowed(tmp_path: Path) -> None:
    path = save(tmp_path)
    (tmp_path / "w.bin").write_bytes(VALUES.tobytes())
    size = path.stat().st_size
    OnnxModule(path, limits=Limits(model_bytes=size))
    for source in (path, path.read_bytes(), io.BytesIO(path.read_bytes())):
        with pytest.raises(UnsafeModelError, match=r"limits\.model_bytes"):
            OnnxModule(source, limits=Limits(model_bytes=size - 1))


def test_a_stream_without_end_is_read_up_to_the_limit() -> None:
    with Path("/dev/zero").open("rb") as stream, pytest.raises(UnsafeModelError):
        OnnxModule(stream, limits=Limits(model_bytes=10**6))


def test_a_file_that_claims_terabytes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "m.onnx").open("wb") as file:
        file.truncate(2**40)
    for limits in (Limits(), Limits(model_bytes=None)):
        with pytest.raises(InvalidModelError, match="bytes"):
            OnnxModule(tmp_path / "m.onnx", limits=limits)


def test_locations_have_one_spelling() -> None:
    spelled = model_of(location="./a//b/./c").graph.initializer[0]
    assert external_of(spelled).location == "a/b/c"

"""Files that do not fit into memory are mapped; what the system says of its memory."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from onnxinterp import ChangedFileError, OnnxModule
from onnxinterp.format.available_memory import available_bytes
from onnxinterp.reading import source
from tests.models import parse

WEIGHT = np.arange(1024, dtype=np.float32).reshape(32, 32)
MEMINFO = "MemTotal:  9 kB\nMemFree:  1 kB\nMemAvailable:  8 kB\n"


def saved(path: Path, producer: str = "") -> Path:
    """A product with a weight, in one file."""
    model = parse("g (float[n, 32] x) => (float[n, 32] y) { y = MatMul(x, w) }")
    model.producer_name = producer
    model.graph.initializer.append(numpy_helper.from_array(WEIGHT, "w"))
    onnx.save(model, path)
    return path


@pytest.fixture
def _little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MIN_MAPPED_BYTES", 1)
    monkeypatch.setattr(source, "available_bytes", lambda: 5000)


def test_a_file_of_more_than_half_of_the_memory_is_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MIN_MAPPED_BYTES", 1)
    paths = [saved(tmp_path / f"{i}.onnx", "x" * i) for i in range(1, 5)]
    size = paths[0].stat().st_size
    for available, mapped in ((None, 0), (2 * size + 20, 0), (2 * size - 2, 1)):
        monkeypatch.setattr(source, "available_bytes", lambda known=available: known)
        modules = [OnnxModule(path) for path in paths]
        for module in modules:
            module._mapped.check()  # forgets maps that no weight uses
            np.testing.assert_array_equal(module(torch.eye(32)).detach(), WEIGHT)
        # at one of four offsets elements are aligned; at the others they are copied
        assert sum(bool(module._mapped) for module in modules) == mapped


def aligned(folder: Path) -> tuple[Path, OnnxModule]:
    """A file whose weight is mapped, and its module."""
    for i in range(1, 5):
        module = OnnxModule(path := saved(folder / f"{i}.onnx", "x" * i))
        module._mapped.check()
        if module._mapped:
            return path, module
    raise AssertionError("no offset is aligned")


@pytest.mark.usefixtures("_little_memory")
def test_a_mapped_file_stays_as_it_is_while_its_weights_train(tmp_path: Path) -> None:
    path, module = aligned(tmp_path)
    before = path.read_bytes()
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    module(torch.ones(1, 32)).sum().backward()
    optimizer.step()
    assert path.read_bytes() == before
    np.testing.assert_array_equal(module(torch.eye(32)).detach(), WEIGHT - 1)
    module.save_onnx(path)  # replaces the file that is mapped
    np.testing.assert_array_equal(module(torch.eye(32)).detach(), WEIGHT - 1)
    np.testing.assert_array_equal(OnnxModule(path)(torch.eye(32)).detach(), WEIGHT - 1)


@pytest.mark.usefixtures("_little_memory")
def test_a_change_of_a_mapped_file_is_noticed(tmp_path: Path) -> None:
    path, module = aligned(tmp_path)
    with path.open("r+b") as file:
        file.write(b"\x08")
    os.utime(path, ns=(1, 1))
    with pytest.raises(ChangedFileError, match="were changed since they were mapped"):
        module(torch.eye(32))


def test_external_data_may_be_larger_than_all_memory(tmp_path: Path) -> None:
    size = 2 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(size)  # without blocks on the disk
        file.seek(size - WEIGHT.nbytes)
        file.write(WEIGHT.tobytes())
    model = parse("g (float[n, 32] x) => (float[n, 32] y) { y = MatMul(x, w) }")
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=WEIGHT.shape)
    weight.data_location = TensorProto.EXTERNAL
    places = {"location": "w.bin", "offset": size - WEIGHT.nbytes, "length": WEIGHT.nbytes}
    for key, value in places.items():
        weight.external_data.add(key=key, value=str(value))
    model.graph.initializer.append(weight)
    onnx.save(model, tmp_path / "m.onnx")
    module = OnnxModule(tmp_path / "m.onnx")
    np.testing.assert_array_equal(module(torch.eye(32)).detach(), WEIGHT)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/memory"


@pytest.mark.parametrize(
    ("files", "available"),
    [
        ({}, None),
        ({"proc/meminfo": MEMINFO}, 8192),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "proc/meminfo": MEMINFO,
                f"{V2}/a/b/memory.max": "max\n",
                f"{V2}/a/b/memory.current": "10\n",
                f"{V2}/a/memory.max": "5000\n",
                f"{V2}/a/memory.current": "3000\n",
                f"{V2}/a/memory.stat": "anon 5\ninactive_file 700\n",
            },
            2700,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu,memory:/gone\n0::/\n",
                f"{V1}/memory.limit_in_bytes": "900\n",
                f"{V1}/memory.usage_in_bytes": "1000\n",
            },
            0,
        ),
    ],
)
def test_available_memory(files: dict[str, str], available: int | None, tmp_path: Path) -> None:
    assert available_bytes(write(tmp_path, files)) == available

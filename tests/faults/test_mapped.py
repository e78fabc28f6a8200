"""A file of external data that changes while a module has it mapped is no silent other answer."""

from __future__ import annotations

import copy
import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from onnxinterp import ChangedFileError, OnnxModule, checkpoints
from tests.processes import Fork
from tests.saving.models import raw, sum_of, write_external

SIZE = 5000  # elements: some pages


def mapped(folder: Path) -> Path:
    return write_external(sum_of(raw("w", SIZE), raw("v", SIZE)), folder / "m.onnx", "w", "v")


def overwrite(file: Path) -> None:
    with file.open("r+b") as data:
        data.seek(64)
        data.write(b"\1" * 100)


def grow(file: Path) -> None:
    with file.open("ab") as data:
        data.write(b"more")


def shorten(file: Path) -> None:
    os.truncate(file, 100)


def write_again(file: Path) -> None:
    """As `onnx.save` or `cp` do: the same file, from its start."""
    file.write_bytes(bytes(reversed(file.read_bytes())))


USES: dict[str, Callable[[OnnxModule, Path], object]] = {
    "forward": lambda module, _: module(torch.ones(SIZE)),
    "save_onnx": lambda module, folder: module.save_onnx(folder / "n.onnx"),
    "save_onnx over it": lambda module, folder: module.save_onnx(folder / "m.onnx"),
    "save_safetensors": lambda module, folder: module.save_safetensors(folder / "n.safetensors"),
    "state_dict": lambda module, _: module.state_dict(),
    "state_dict of one around": lambda module, _: torch.nn.Sequential(module).state_dict(),
    "deepcopy": lambda module, _: copy.deepcopy(module),
    "pickle": lambda module, _: pickle.dumps(module),
    "checkpoint": lambda module, folder: checkpoints.save(
        folder / "m.onnx", folder / "n.pth", module=module
    ),
}


@pytest.mark.parametrize("change", [overwrite, grow, shorten, write_again])
@pytest.mark.parametrize("use", USES)
def test_a_file_that_was_changed_is_told(
    change: Callable[[Path], None], use: str, tmp_path: Path
) -> None:
    module = OnnxModule(mapped(tmp_path))
    USES["forward"](module, tmp_path)
    change(tmp_path / "w.bin")
    before = sorted(p.name for p in tmp_path.iterdir())
    for _ in range(2):
        with pytest.raises(ChangedFileError, match=r"w\.bin' were changed since they were mapped"):
            USES[use](module, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_file_that_was_replaced_or_removed_is_still_read(tmp_path: Path) -> None:
    """That is how this library and good tools write; no page of it has been read before."""
    module, other = OnnxModule(mapped(tmp_path)), OnnxModule(mapped(tmp_path / "other"))
    want = other(torch.ones(SIZE))
    (tmp_path / "new").write_bytes(b"\1" * (tmp_path / "w.bin").stat().st_size)
    (tmp_path / "new").replace(tmp_path / "w.bin")
    assert torch.equal(module(torch.ones(SIZE)), want)
    (tmp_path / "w.bin").unlink()
    assert torch.equal(module(torch.ones(SIZE)), want)
    assert torch.equal(copy.deepcopy(module)(torch.ones(SIZE)), want)


def test_a_module_of_its_own_memory_needs_no_file(tmp_path: Path) -> None:
    path = mapped(tmp_path)
    x = torch.ones(SIZE)
    want = OnnxModule(path)(x)
    modules = {
        "copied": copy.deepcopy(OnnxModule(path)),
        "pickled": pickle.loads(pickle.dumps(OnnxModule(path))),
        "moved": OnnxModule(path).double().float(),
    }
    overwrite(tmp_path / "w.bin")
    assert all(torch.equal(module(x), want) for module in modules.values())


def test_training_changes_no_file_and_is_no_change_of_it(tmp_path: Path) -> None:
    module = OnnxModule(mapped(tmp_path))
    before = (tmp_path / "w.bin").read_bytes()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(3):
        module(torch.ones(SIZE)).sum().backward()
        optimizer.step()
    module.save_onnx(tmp_path / "m.onnx")
    module(torch.ones(SIZE))
    module.save_onnx(tmp_path / "m.onnx")
    assert (tmp_path / "w.bin").read_bytes() != before
    assert torch.equal(OnnxModule(tmp_path / "m.onnx").weights["w"], module.weights["w"])


TRUNCATE = """
import os, torch
from onnxinterp import OnnxModule, ChangedFileError
module = OnnxModule(arguments[0])
os.truncate(arguments[1], 0)
if arguments[2] == "module":
    try:
        module(torch.ones(5000))
    except ChangedFileError:
        os._exit(0)
    raise AssertionError
module.weights["w"].sum()  # nobody looks
"""


def test_what_looking_prevents(fork: Fork, tmp_path: Path) -> None:
    """The weights of a file cut short end the process; a call of the module says what happened."""
    for use, ends in (("module", 0), ("weights", signal.SIGBUS)):
        path = mapped(tmp_path / use)
        assert fork(TRUNCATE, path, path.parent / "w.bin", use) == ends

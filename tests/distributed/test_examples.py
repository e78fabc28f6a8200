"""Every script in examples/distributed/ runs in two processes, as torchrun starts them."""

from __future__ import annotations

import os
import runpy
import socket
import sys
from pathlib import Path

import pytest

from onnxinterp import OnnxModule
from tests.distributed.ranks import RANKS, Together
from tests.exporting import expected_warnings

FOLDER = Path(__file__).parents[2] / "examples" / "distributed"
SCRIPTS = sorted({path.stem for path in FOLDER.glob("*.py")} - {"network"})


def run(rank: int, name: str, folder: Path, port: int) -> float:
    """What `main` of a script returns."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "WORLD_SIZE": RANKS}
    os.environ.update({key: str(value) for key, value in place.items()})
    os.chdir(folder)
    sys.path.insert(0, str(FOLDER))
    with expected_warnings():
        return runpy.run_path(str(FOLDER / f"{name}.py"))["main"]()


def test_each_is_short_and_tells_how_to_run_it() -> None:
    assert SCRIPTS == ["ddp", "fsdp", "pipeline", "tensor_parallel"]
    for name in SCRIPTS:
        text = (FOLDER / f"{name}.py").read_text()
        assert len(text.splitlines()) <= 80
        assert f"torchrun --nproc-per-node 2 examples/distributed/{name}.py" in text


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_agrees_with_one_process(name: str, side_by_side: Together, tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    assert max(side_by_side(run, name, tmp_path, port)) < 1e-5
    if name == "fsdp":
        before, after = (OnnxModule(tmp_path / f"{n}.onnx") for n in ("transformer", "tuned"))
        assert (before.weights["head.weight"] - after.weights["head.weight"]).abs().max() > 1e-4

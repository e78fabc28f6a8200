"""The wheel holds the kernels, the demo model and the type marker, and needs no extra."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    build = "from hatchling.build import build_wheel; import sys; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=ROOT, check=True)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_everything(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    kernels = {f"onnxinterp/ops/{p.name}" for p in (ROOT / "ops").glob("*.py")}
    data = {f"onnxinterp/data/{p.name}" for p in (ROOT / "onnxinterp/data").iterdir()}
    assert kernels | data | {"onnxinterp/py.typed", "onnxinterp/module.py"} <= names
    assert not [n for n in names if n.startswith(("ops/", "tests/"))]


def test_only_torch_onnx_and_numpy_are_required(wheel: zipfile.ZipFile) -> None:
    (metadata,) = [n for n in wheel.namelist() if n.endswith("METADATA")]
    lines = wheel.read(metadata).decode().splitlines()
    required = [
        line.removeprefix("Requires-Dist: ")
        for line in lines
        if line.startswith("Requires-Dist") and "extra ==" not in line
    ]
    assert sorted(r.split(">")[0] for r in required) == ["numpy", "onnx", "torch"]


def test_importing_it_imports_no_extra() -> None:
    code = (
        "import sys, onnxinterp; "
        "print([m for m in ('onnxruntime', 'onnxoptimizer', 'rich', 'PIL', 're2',"
        " 'hypothesis', 'sympy', 'tokenizers')"
        " if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"

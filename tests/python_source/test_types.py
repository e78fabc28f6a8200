"""Written source passes mypy --strict."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from onnxinterp import OnnxModule
from tests.exports.exporting import export
from tests.exports.modules import DECODER, ENCODER, TAGGER


def mypy(*paths: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file="]
    return subprocess.run([*command, *paths], capture_output=True, text=True, cwd=paths[0].parent)


@pytest.mark.capture
def test_written_source_is_strictly_typed(tmp_path: Path) -> None:
    paths = []
    for case in (ENCODER, DECODER, TAGGER):
        module = OnnxModule(export(case, case.exports()[-1]))
        path = tmp_path / f"{case.name}.py"
        paths.append(module.to_python(path, *case.arguments(case.sizes[0])))
    result = mypy(*paths)
    assert result.returncode == 0, result.stdout
    wrong = tmp_path / "wrong.py"
    wrong.write_text(paths[0].read_text().replace("-> Net:", "-> int:"))
    assert mypy(wrong).returncode == 1

"""Python that a module has written, run where onnxinterp cannot be imported.

python -m tests.exports.written FILE INPUTS OUTPUTS
"""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).parents[2]


def caller(file: Path) -> Callable[..., Any]:
    """A function that runs a written file's module in a process of its own."""

    def run(*inputs: Tensor) -> Any:
        given, got = file.with_suffix(".in"), file.with_suffix(".out")
        torch.save(inputs, given)
        command = [sys.executable, str(Path(__file__)), *map(str, (file, given, got))]
        done = subprocess.run(command, capture_output=True, text=True, cwd=file.parent)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        return torch.load(got)

    return run


class Forbidden:
    """A finder that lets nobody import the package that wrote the file."""

    def find_spec(self, name: str, *_: Any) -> None:
        """Raise for onnxinterp and what is in it."""
        if name.partition(".")[0] in ("onnxinterp", "onnx"):
            raise ModuleNotFoundError(f"{name} must not be imported")


def main() -> None:
    """Load a file and its weights, call the module, save what it returns."""
    file, given, got = map(Path, sys.argv[1:])
    sys.meta_path.insert(0, Forbidden())  # type: ignore[arg-type]
    names = runpy.run_path(str(file))
    module = names["load"]() if "load" in names else names["Model"]()
    with torch.no_grad():
        torch.save(module(*torch.load(given)), got)


if __name__ == "__main__":
    main()

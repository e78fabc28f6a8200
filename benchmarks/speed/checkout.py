"""A checkout of onnxinterp in a process of its own, which runs blocks of calls on demand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

PROGRAM = """
import json, sys, time
import numpy, torch
import onnxinterp
def answer(value):
    print(json.dumps(value), flush=True)
answer(onnxinterp.__file__)
module, inputs = None, {}
for line in sys.stdin:
    request = json.loads(line)
    if "model" in request:
        torch.set_num_threads(request["threads"])
        module = onnxinterp.OnnxModule(request["model"])
        with numpy.load(request["inputs"]) as arrays:
            inputs = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        answer("ready")
        continue
    clock = getattr(time, request["clock"])
    with torch.no_grad():
        start = clock()
        for _ in range(request["repeats"]):
            module(**inputs)
        answer((clock() - start) / request["repeats"])
"""


class Checkout:
    """Runs a checkout of onnxinterp, in lockstep with this process: one of the two waits.

    Args:
        folder: has the package `onnxinterp`.

    Raises:
        ValueError: the package of the folder is not the one that is imported.
    """

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=folder,
        )
        imported = Path(str(self._answer()))
        if not imported.resolve().is_relative_to(folder.resolve()):
            self.close()
            raise ValueError(f"folder must be a checkout of onnxinterp, got {imported}")

    def _answer(self) -> object:
        assert self._process.stdout is not None, "it is a pipe"
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a checkout's process ended with status {self._process.wait()}")
        return json.loads(line)

    def _ask(self, **request: object) -> object:
        assert self._process.stdin is not None, "it is a pipe"
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def load(self, model: Path, inputs: Path, threads: int) -> None:
        """Open a model; the one before is dropped."""
        self._ask(model=str(model.resolve()), inputs=str(inputs.resolve()), threads=threads)

    def block(self, clock: str, repeats: int) -> float:
        """Run calls of the model; return seconds per call by a clock of module `time`."""
        seconds = self._ask(repeats=repeats, clock=clock)
        assert isinstance(seconds, float), "the program answers with a number"
        return seconds

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()

    def __enter__(self) -> Checkout:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.close()

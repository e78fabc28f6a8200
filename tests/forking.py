"""Programs that run in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORKS = """
import json, os, signal, sys, traceback
import torch._dynamo, onnxinterp  # optimizers import it: seconds, too
for line in sys.stdin:
    program, arguments = json.loads(line)
    child = os.fork()
    if not child:
        signal.alarm(120)  # nothing catches this signal: what hangs ends
        try:
            exec(compile(program, "child", "exec"), {"arguments": arguments})
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
"""
Fork = Callable[..., int]


@pytest.fixture(scope="session")
def fork() -> Iterator[Fork]:
    """Runs a program in a process of its own, and gives the signal that ended it, or 0.

    The process is a fork of one that has imported torch: that takes seconds.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", FORKS],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def run(program: str, *arguments: object) -> int:
            print(json.dumps([program, [*map(str, arguments)]]), file=server.stdin, flush=True)
            status = int(server.stdout.readline())
            assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "the program failed"
            return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0

        yield run
        server.stdin.close()

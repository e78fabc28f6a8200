"""Cases run in a child process, so that one that dies, or never ends, is an answer like another.

One child runs case after case; after a death, or where a case takes too long, the next one starts.
The child is this file, run with the name of a module and of a function in it: a dict from names of
cases to functions of nothing, whose answer is printed.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable

SECONDS = 20.0


class Child:
    """Runs the cases that `module.cases()` names, wherever they lead.

    Args:
        module: the name of the module.
        seconds: how long a case may take.
    """

    def __init__(self, module: str, seconds: float = SECONDS) -> None:
        self.module = module
        self.seconds = seconds
        self._process: subprocess.Popen[str] | None = None

    def run(self, name: str) -> str:
        """What came of a case: its answer, "dies: SIGFPE", or "takes too long"."""
        process = self._process or self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(name) + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], self.seconds)
        if not ready:
            self.close()
            return "takes too long"
        line = process.stdout.readline()
        if line:
            answer: str = json.loads(line)
            return answer
        code = process.wait()
        self.close()
        return f"dies: {signal.Signals(-code).name if code < 0 else f'exit {code}'}"

    def results(self, names: Iterable[str]) -> dict[str, str]:
        """Those of many cases."""
        found = {name: self.run(name) for name in names}
        self.close()
        return found

    def _started(self) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, self.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        return self._process

    def close(self) -> None:
        """End the child."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _serve(module: str) -> None:
    answers = sys.stdout
    sys.stdout = sys.stderr
    cases = importlib.import_module(module).cases()
    for line in sys.stdin:
        print(json.dumps(cases[json.loads(line)]()), file=answers, flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1])

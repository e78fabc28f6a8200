"""Children that open the files, restarted when one dies or hangs, and the verdicts."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Pipe
from pathlib import Path
from types import TracebackType

from tests.untrusted.files.case import CANARY, CANARY_NAME, Case, Lost, Report
from tests.untrusted.files.judging import Verdict, judge, wants_reference

ROOT = Path(__file__).parents[3]
HUNG_AFTER = 60.0  # seconds for one case, on a busy machine too
STARTED_WITHIN = 120.0
CHILDREN = 2


class Child:
    """A process of its own that answers cases one by one."""

    def __init__(self, role: str) -> None:
        self.role = role
        self._start()

    def _start(self) -> None:
        self.connection, theirs = Pipe()
        role = [self.role, str(theirs.fileno())]
        command = [sys.executable, "-m", f"{__package__}.child", *role]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            pass_fds=[theirs.fileno()],
            stdout=self.errors,
            stderr=self.errors,
        )
        theirs.close()
        if not self.connection.poll(STARTED_WITHIN) or self._receive() != "ready":
            raise RuntimeError(f"no child: {self.said()}")

    def _receive(self) -> object:
        try:
            return self.connection.recv()
        except (EOFError, ConnectionError):
            return None

    def said(self) -> str:
        """The end of what it wrote."""
        self.errors.seek(0)
        return self.errors.read()[-2000:].decode(errors="replace").strip()

    def ask(self, case: Case, path: Path, seconds: float = HUNG_AFTER) -> Report | Lost:
        """Its report; a child that is lost is replaced."""
        self.connection.send((case, path))
        if not self.connection.poll(seconds):
            self.stop()
            self._start()
            return Lost("hung", f"no answer within {seconds} seconds")
        report = self._receive()
        if isinstance(report, Report):
            return report
        code = self.process.wait()
        lost = Lost("crashed", f"exit status {code}: {self.said()}")
        self.stop()
        self._start()
        return lost

    def stop(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.wait()
        self.errors.close()


class Pool:
    """Tries cases in children.

    Args:
        folder: where models are written; each case gets a folder of its own in it.
        seconds: after which a case counts as hung.

    Attributes:
        seconds_of: how long each case took, by name.
    """

    def __init__(self, folder: Path, seconds: float = HUNG_AFTER) -> None:
        self.folder, self.seconds = folder, seconds
        self.seconds_of: dict[str, float] = {}
        self._count = 0
        self._lock = threading.Lock()
        self._idle: dict[str, list[Child]] = {"module": [], "oracle": []}

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None
    ) -> None:
        for child in (c for idle in self._idle.values() for c in idle):
            child.stop()

    def run(self, cases: Iterable[Case]) -> list[Verdict]:
        """The verdicts, in order."""
        with ThreadPoolExecutor(CHILDREN) as threads:
            return list(threads.map(self.judged, cases))

    def judged(self, case: Case) -> Verdict:
        """Try one case."""
        with self._lock:
            self._count += 1
            place = self.folder / str(self._count)
        path = prepared(case, place)
        start = time.perf_counter()
        report = self._ask("module", case, path)
        reference = self._ask("oracle", case, path) if wants_reference(case, report) else None
        self.seconds_of[case.name] = time.perf_counter() - start
        return judge(case, report, reference)

    def _ask(self, role: str, case: Case, path: Path) -> Report | Lost:
        with self._lock:
            child = self._idle[role].pop() if self._idle[role] else None
        child = child or Child(role)
        try:
            return child.ask(case, path, self.seconds)
        finally:
            with self._lock:
                self._idle[role].append(child)


def prepared(case: Case, place: Path) -> Path:
    """Write a case: the model in a folder of its own, the canary beside that."""
    folder = place / "model"
    folder.mkdir(parents=True)
    (place / CANARY_NAME).write_bytes(CANARY * 64)
    path = folder / "model.onnx"
    path.write_bytes(case.content)
    if case.beside is not None:
        case.beside(folder)
    return path

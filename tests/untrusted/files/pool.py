"""Children that open the files, restarted when one dies or hangs, and the verdicts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from onnxinterp.limits import GIB
from tests import processes
from tests.untrusted.files import child
from tests.untrusted.files.case import CANARY, CANARY_NAME, Case, Lost, Report
from tests.untrusted.files.judging import Verdict, judge, wants_reference

ROLES = {"module": child.module, "oracle": child.oracle}
HUNG_AFTER = 60.0  # seconds for one case, on a busy machine too
SPARE = 6 * GIB  # address space of a child beyond what the libraries take
CHILDREN = 2


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
        self._idle: dict[str, list[processes.Child]] = {"module": [], "oracle": []}

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None
    ) -> None:
        for idle in self._idle.values():
            for process in idle:
                process.close()

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
            process = self._idle[role].pop() if self._idle[role] else None
        process = process or processes.Child(ROLES[role], self.seconds, SPARE)
        try:
            answer: Report | processes.Lost = process.ask((case, path))
        finally:
            with self._lock:
                self._idle[role].append(process)
        if isinstance(answer, Report):
            return answer
        return Lost("hung" if answer.how == "hung" else "crashed", f"{answer.how}: {answer.said}")


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

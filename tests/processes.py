"""Work in processes that may die or hang, forked from one that has imported torch.

Child      requests go in, results come out in the same order; started again when it is lost
Lost       in place of the result of the request that it was lost on
results    of many requests to many children
fork       a fixture: runs the source of a program
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import pytest

GIB = 2**30
CONTEXT = multiprocessing.get_context("forkserver")  # torch is imported once, not at each start
PRELOADED = (
    "pytest",
    "torch._dynamo",  # optimizers and custom operators import it at their first call
    "tests.untrusted.files.child",
    "tests.untrusted.fuzz.oracle",
    "tests.untrusted.fuzz.victim",
)
CONTEXT.set_forkserver_preload([*PRELOADED])
STARTING = 120.0  # seconds in which a process must have imported what it needs
PROGRAM_SECONDS = 120  # in which a program must end
Fork = Callable[..., int]


@dataclass(frozen=True)
class Lost:
    """A process that gave no result: how it ended, and the last that it said."""

    how: str
    said: str = ""


def _serve(
    connection: Connection, work: Callable[[Any], Any], said: str, memory: int | None
) -> None:
    """The life of the process."""
    descriptor = os.open(said, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    if memory is not None:
        taken = int(_status("VmSize").split()[0]) * 1024
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection.send(None)
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        connection.send(work(request))


def _status(key: str) -> str:
    with open("/proc/self/status") as lines:
        return next(line.split(":")[1] for line in lines if line.startswith(key))


class Child:
    """One process that does `work`, a function it can import.

    Args:
        work: request -> result, both of what pickle knows.
        patience: seconds that one request may take.
        memory: bytes that the process may take more than at its start.
    """

    def __init__(
        self, work: Callable[[Any], Any], patience: float = 10.0, memory: int | None = 3 * GIB
    ) -> None:
        self.work, self.patience, self.memory = work, patience, memory
        self.pending: deque[Any] = deque()
        self.losses = 0
        self._said = tempfile.NamedTemporaryFile(prefix="fuzz-")  # noqa: SIM115  # lives as long
        self._process: Any = None
        self._start()

    def _start(self) -> None:
        self._said.truncate(0)
        self.connection, theirs = CONTEXT.Pipe()
        arguments = (theirs, self.work, self._said.name, self.memory)
        self._process = CONTEXT.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        if not self.connection.poll(STARTING):
            raise RuntimeError(f"the process does not start: {self._last_words()}")
        self.connection.recv()
        self._since = time.monotonic()
        for request in self.pending:
            self.connection.send(request)

    def put(self, request: Any) -> None:
        """Queue a request."""
        if not self.pending:
            self._since = time.monotonic()
        self.pending.append(request)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # `take` tells
            self.connection.send(request)

    @property
    def patience_left(self) -> float:
        """Seconds until the request in hand counts as lost."""
        return max(0.0, self._since + self.patience - time.monotonic())

    def take(self) -> tuple[Any, Any]:
        """The oldest request and its result, or `Lost`; then the process is another one."""
        result: Any
        try:
            arrived = self.connection.poll(self.patience_left)
            result = self.connection.recv() if arrived else self._lose("hung")
        except (EOFError, ConnectionResetError):
            result = self._lose("died")
        self._since = time.monotonic()
        request = self.pending.popleft()
        if isinstance(result, Lost):
            self.losses += 1
            self._start()
        return request, result

    def ask(self, request: Any) -> Any:
        """The result of one request, or `Lost`."""
        self.put(request)
        return self.take()[1]

    def _lose(self, how: str) -> Lost:
        if how == "hung":
            self._process.kill()
        self._process.join()
        code = self._process.exitcode
        if how == "died":
            how = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        return Lost(how, self._last_words())

    def _last_words(self) -> str:
        with open(self._said.name, errors="replace") as file:
            return file.read()[-300:]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self.connection.close()
        self._said.close()


def results(children: Sequence[Child], requests: Iterator[Any], ahead: int = 64) -> Iterator[Any]:
    """Requests and their results as they come, each child having some to go on with."""
    busy = {child.connection: child for child in children}
    for child in children:
        _fill(child, requests, ahead)
    while any(child.pending for child in children):
        busy = {child.connection: child for child in children if child.pending}
        ready = wait(list(busy), min(child.patience_left for child in busy.values()))
        for child in [busy[c] for c in ready] or [  # type: ignore[index]  # of connections only
            c for c in busy.values() if not c.patience_left
        ]:
            yield child.take()
            if len(child.pending) <= ahead // 2:
                _fill(child, requests, ahead)


def _fill(child: Child, requests: Iterator[Any], ahead: int) -> None:
    for request in requests:
        child.put(request)
        if len(child.pending) >= ahead:
            return


@pytest.fixture(scope="session")
def fork() -> Fork:
    """Runs a program in a new process, and returns the signal that ended it, or 0.

    The program finds in `arguments` what else is passed, as strings.
    """

    def run(program: str, *arguments: object) -> int:
        process = CONTEXT.Process(target=_execute, args=(program, [*map(str, arguments)]))
        process.start()
        process.join()
        status = process.exitcode
        assert status is not None
        assert status <= 0, "the program failed"
        return -status

    return run


def _execute(program: str, arguments: list[str]) -> None:
    warnings.simplefilter("ignore")
    signal.alarm(PROGRAM_SECONDS)  # nothing catches this signal: what hangs ends
    exec(compile(program, "child", "exec"), {"arguments": arguments})

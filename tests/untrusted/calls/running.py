"""The cases of a module in a process of their own: one that dies, or never ends, is an answer too.

`cases()` of the module returns a dict from names to functions without parameters.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from functools import cache, partial

from tests.processes import Child, Lost

SECONDS = 20.0  # that a case may take


class Cases:
    """Runs the cases of a module by name; the process starts when it is needed.

    Args:
        module: the name of the module.
        seconds: how long a case may take.
    """

    def __init__(self, module: str, seconds: float = SECONDS) -> None:
        self.module, self.seconds = module, seconds
        self._child: Child | None = None

    def run(self, name: str) -> str:
        """Return the answer of a case, or how the process was lost: "hung", "died of SIGFPE"."""
        if self._child is None:
            self._child = Child(partial(_answer, self.module), self.seconds, memory=None)
        answer: str | Lost = self._child.ask(name)
        return answer.how if isinstance(answer, Lost) else answer

    def results(self, names: Iterable[str]) -> dict[str, str]:
        """Run many cases."""
        found = {name: self.run(name) for name in names}
        self.close()
        return found

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.close()
            self._child = None


@cache
def _cases(module: str) -> dict[str, Callable[[], str]]:
    found: dict[str, Callable[[], str]] = importlib.import_module(module).cases()
    return found


def _answer(module: str, name: str) -> str:
    return _cases(module)[name]()

"""Cases that end badly, for the test of the processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable


def cases() -> dict[str, Callable[[], str]]:
    """One that dies, one that never ends, and one that is well."""
    return {"dies": _dies, "hangs": _hangs, "well": lambda: "ok"}


def _dies() -> str:
    os.abort()


def _hangs() -> str:
    time.sleep(3600)
    return "ok"

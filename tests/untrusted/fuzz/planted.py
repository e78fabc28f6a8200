"""What `campaign` must find, planted: the work of a process that does not keep the promise."""

from __future__ import annotations

import os
import time

import numpy as np

from tests.untrusted.fuzz.victim import Outcome

DIES, HANGS, RAISES = 5, 9, 13  # seeds


def broken(_path: str, seed: int) -> Outcome:
    """As `victim.of_seed`."""
    if seed == DIES:
        os.abort()
    if seed == HANGS:
        time.sleep(3600)
    if seed == RAISES:
        return Outcome("raw", "KeyError in planted.py:broken")
    return Outcome("refused", "InvalidModelError")


def echo(request: object) -> object:
    """A process that answers what it is asked, or ends."""
    if request == "die":
        os._exit(3)
    if request == "hang":
        time.sleep(3600)
    if request == "memory":
        try:
            return np.ones(2**29).nbytes
        except MemoryError:
            return "refused"
    return request

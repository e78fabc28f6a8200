"""What concerns all tests of saving."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _disk_that_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test pulls the plug: what is on the disk, and when, `test_files` asks for by itself."""
    monkeypatch.setattr(os, "fsync", lambda _: None)

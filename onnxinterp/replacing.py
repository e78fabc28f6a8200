"""Files that appear whole or not at all, also several that belong together.

A file is written beside the one it will replace and brought to the disk; then it takes its name.
What was begun and not put in place is removed, whatever happens short of a kill.
"""

from __future__ import annotations

import filecmp
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Collection
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

Write = Callable[[BinaryIO], object]


class Parts:
    """Files on their way to their names; a context, at whose end the unfinished ones are removed.

    Attributes:
        root: the folder below which folders are made where they are missing.
        litter: what to remove at the end.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.litter: list[Path] = []

    def __enter__(self) -> Parts:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for path in reversed(self.litter):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)

    def write(self, target: Path, write: Write) -> Path:
        """Write what is to take the name `target`, and bring it to the disk.

        Raises:
            OSError: the disk is full, the folder is missing, ...
        """
        self._make_folder(target.parent)
        part = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.part")
        self.litter.append(part)
        with part.open("x+b") as out:
            if target.exists() and not target.is_symlink():
                part.chmod(stat.S_IMODE(target.stat().st_mode))
            write(out)
            out.flush()
            os.fsync(out.fileno())
        return part

    def _make_folder(self, folder: Path) -> None:
        for level in reversed((folder, *folder.parents)):
            if self.root in level.parents and not level.exists():
                level.mkdir()
                self.litter.append(level)

    def copy(self, part: Path, target: Path) -> None:
        """A copy of a part under a name of its own, on the disk."""
        self.litter.append(target)
        shutil.copyfile(part, target)
        with target.open("r+b") as file:
            os.fsync(file.fileno())

    def hold(self, paths: Collection[Path]) -> None:
        """Take files from the litter: they are in use now."""
        self.litter = [path for path in self.litter if path not in paths]

    def put(self, part: Path, target: Path) -> None:
        """Give a part its name, in place of what had it."""
        part.replace(target)
        self.hold((part, *target.parents))
        bring_to_disk(target.parent)


def bring_to_disk(folder: Path) -> None:
    """Make the names in a folder last, where the system lets a folder be opened."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def differs(part: Path, target: Path) -> bool:
    """Whether a part would change what stands under its name; a link never counts as the same."""
    if target.is_symlink() or not target.exists():
        return True
    return not filecmp.cmp(part, target, shallow=False)

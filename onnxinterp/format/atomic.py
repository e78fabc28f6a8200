"""Atomic writes: a file appears whole or not at all; also several files that belong together.

    atomic_write   one file
    StagedFiles    several files, each written beside its target and then renamed
    folder_lock    one writer at a time for files that belong together

A file is written beside the one it will replace and flushed to the disk; then it is renamed. Files
that were begun and not renamed are removed, unless the process is killed.

A link under the target's name is replaced, not followed. A device, a pipe or a folder is an error.
File permissions are preserved, from the first byte on.
"""

from __future__ import annotations

import errno
import filecmp
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

Write = Callable[[BinaryIO], object]
BLOCK = 2**24  # bytes copied at once
NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


class StagedFiles:
    """Files written beside their targets; a context that removes the unfinished ones at its end.

    Attributes:
        root: the folder below which missing folders are created.
        cleanup: what to remove at the end.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cleanup: list[Path] = []

    def __enter__(self) -> StagedFiles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for path in reversed(self.cleanup):
            with suppress(OSError):  # a folder that is in use; a disk that fails
                if path.is_dir():
                    path.rmdir()
                else:
                    path.unlink(missing_ok=True)

    def write(self, target: Path, write: Write) -> Path:
        """Write a file that will replace `target`, and flush it to the disk.

        Returns:
            Its temporary name.

        Raises:
            OSError: the disk is full, the folder is missing, ...
        """
        self._make_folder(target.parent)
        readable = target.name.encode(errors="surrogateescape")[:200].decode(errors="ignore")
        part = target.with_name(f".{readable}.{secrets.token_hex(8)}.part")
        self._create(part, permissions_of(target), write)
        return part

    def _create(self, path: Path, permissions: int | None, write: Write) -> None:
        """Write a new file, never an existing one, and flush it; None: default permissions."""
        first = 0o666 if permissions is None else permissions & 0o600
        self.cleanup.append(path)
        with os.fdopen(os.open(path, NEW_FILE, first), "w+b") as out:
            if permissions is not None:
                path.chmod(permissions)
            write(out)
            out.flush()
            os.fsync(out.fileno())

    def _make_folder(self, folder: Path) -> None:
        for level in reversed((folder, *folder.parents)):
            if self.root in level.parents:
                with suppress(FileExistsError):
                    level.mkdir()
                    self.cleanup.append(level)

    def copy(self, part: Path, target: Path) -> None:
        """Copy a file with its permissions under a new name, and flush it to the disk."""
        permissions = stat.S_IMODE(part.stat().st_mode)
        with part.open("rb") as source:
            self._create(target, permissions, lambda out: shutil.copyfileobj(source, out, BLOCK))

    def keep(self, paths: Collection[Path]) -> None:
        """Do not remove these files at the end: they are in use now."""
        self.cleanup = [path for path in self.cleanup if path not in paths]

    def replace(self, part: Path, target: Path) -> None:
        """Rename a file to its target, which it replaces."""
        part.replace(target)
        self.keep((part, *target.parents))
        sync_folder(target.parent)


def atomic_write(path: str | os.PathLike[str], write: Write) -> None:
    """Write one file; it appears whole or not at all.

    Args:
        path: its name; the folder must exist.
        write: writes to the open file.

    Raises:
        OSError: the disk is full, the folder is missing, the name is that of a device, ...
    """
    target = Path(os.path.abspath(path))
    with StagedFiles(target.parent) as parts:
        parts.replace(parts.write(target, write), target)


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Wait until no other thread or process holds the lock of this folder.

    For files that belong together: two writers at once would leave some files of each.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl  # posix only

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no such locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:  # closing is not enough: a process forked meanwhile has the descriptor, too
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the system can open a folder."""
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder may be writable, and not readable
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems: names are flushed anyway
            raise
    finally:
        os.close(descriptor)


def permissions_of(target: Path) -> int | None:
    """The permissions of the file under a name; None where there is none.

    Raises:
        OSError: it is a device, a pipe or a folder, or a link to one.
    """
    try:
        mode = target.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if not stat.S_ISREG(mode):
        raise FileExistsError(errno.EEXIST, "not a regular file, not replaced", str(target))
    return stat.S_IMODE(mode)


def differs(part: Path, target: Path) -> bool:
    """Whether a file differs from its target; a link always differs."""
    if target.is_symlink() or not target.exists():
        return True
    return not filecmp.cmp(part, target, shallow=False)

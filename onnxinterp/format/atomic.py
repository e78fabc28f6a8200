"""Files that appear whole or not at all, also several that belong together.

A file is written beside the one it will replace and brought to the disk; then it takes its name.
What was begun and not put in place is removed, whatever happens short of a kill.

A link under the name is replaced, not followed: what it leads to stays as it is. A device, a pipe
or a folder is no name for a file. The new file has the rights of the old one, from its first byte.
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
    """Files on their way to their names; a context, at whose end the unfinished ones are removed.

    Attributes:
        root: the folder below which folders are made where they are missing.
        litter: what to remove at the end.
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
            with suppress(OSError):  # a folder that others use by now; a disk that fails
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
        readable = target.name.encode(errors="surrogateescape")[:200].decode(errors="ignore")
        part = target.with_name(f".{readable}.{secrets.token_hex(8)}.part")
        with self._create(part, rights_of(target)) as out:
            write(out)
            out.flush()
            os.fsync(out.fileno())
        return part

    def _create(self, path: Path, rights: int | None) -> BinaryIO:
        """A new file, never one that is there; the usual rights where none are given."""
        first = 0o666 if rights is None else rights & 0o600
        self.cleanup.append(path)
        file = os.fdopen(os.open(path, NEW_FILE, first), "w+b")
        if rights is not None:
            path.chmod(rights)
        return file

    def _make_folder(self, folder: Path) -> None:
        for level in reversed((folder, *folder.parents)):
            if self.root in level.parents:
                with suppress(FileExistsError):
                    level.mkdir()
                    self.cleanup.append(level)

    def copy(self, part: Path, target: Path) -> None:
        """A copy of a part, of the same rights, under a new name, on the disk."""
        rights = stat.S_IMODE(part.stat().st_mode)
        with part.open("rb") as source, self._create(target, rights) as out:
            shutil.copyfileobj(source, out, BLOCK)
            out.flush()
            os.fsync(out.fileno())

    def hold(self, paths: Collection[Path]) -> None:
        """Take files from the litter: they are in use now."""
        self.cleanup = [path for path in self.cleanup if path not in paths]

    def put(self, part: Path, target: Path) -> None:
        """Give a part its name, in place of what had it."""
        part.replace(target)
        self.hold((part, *target.parents))
        bring_to_disk(target.parent)


def atomic_write(path: str | os.PathLike[str], write: Write) -> None:
    """Write one file; it appears whole or not at all.

    Args:
        path: its name; the folder must be there.
        write: is given the open file.

    Raises:
        OSError: the disk is full, the folder is missing, the name is that of a device, ...
    """
    target = Path(os.path.abspath(path))
    with StagedFiles(target.parent) as parts:
        parts.put(parts.write(target, write), target)


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Wait until no other thread or process is here for this folder.

    For files that belong together: two who write them at once would leave some of each.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl  # posix only

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # file systems of some networks have no such locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:  # closing would not do: a process forked meanwhile has the descriptor, too
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def bring_to_disk(folder: Path) -> None:
    """Make the names in a folder last, where the system lets a folder be opened."""
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # one may write into it, and not list it
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # file systems of some networks: names last anyway
            raise
    finally:
        os.close(descriptor)


def rights_of(target: Path) -> int | None:
    """The rights of the file that has a name now; None where there is none.

    Raises:
        OSError: the name is that of a device, a pipe or a folder, or of a link to one.
    """
    try:
        mode = target.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if not stat.S_ISREG(mode):
        raise FileExistsError(errno.EEXIST, "no plain file, and not replaced by one", str(target))
    return stat.S_IMODE(mode)


def differs(part: Path, target: Path) -> bool:
    """Whether a part would change what stands under its name; a link never counts as the same."""
    if target.is_symlink() or not target.exists():
        return True
    return not filecmp.cmp(part, target, shallow=False)

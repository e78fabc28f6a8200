"""The files that weights are mapped from: detect when they change.

A private map shows the file until a page is written. A change of the file in place changes the
weights that were not read yet, and a file cut short kills the process at the next read. So a module
checks the size and the modification time before each call. A file that is replaced or removed does
not change for a process that has it mapped; `save_onnx` replaces files.

Not detected: a change during a call, a change that resets the time, and a change of a file that was
renamed before. Whoever can write to the files of a model must be trusted.
"""

from __future__ import annotations

import mmap
import os
import platform
import sys
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from onnxinterp.errors import ChangedFileError

USUAL_NO_RESERVE = 0x4000  # of Linux on most processors; Python names it from 3.13 on
USUAL_PROCESSORS = ("x86_64", "aarch64", "riscv64", "s390x")
NO_RESERVE: int | None = getattr(mmap, "MAP_NORESERVE", None) or (
    USUAL_NO_RESERVE if sys.platform == "linux" and platform.machine() in USUAL_PROCESSORS else None
)
"""Linux refuses to map a file larger than its memory if all pages might be written to."""


@dataclass(frozen=True)
class MappedFile:
    """The state of a file when it was mapped.

    Attributes:
        path: its name.
        pages: the map; dead when no weight uses it any more.
        identity: device and inode.
        state: size in bytes, and modification time in nanoseconds.
    """

    path: str
    pages: weakref.ref[mmap.mmap]
    identity: tuple[int, int]
    state: tuple[int, int]

    def changed(self, pages: mmap.mmap) -> bool:
        """Whether the file has changed; `pages` is the map, alive."""
        if pages.size() != self.state[0]:
            return True
        try:
            now = os.stat(self.path)
        except OSError:
            return False  # removed or moved: the map is unchanged
        same_file = (now.st_dev, now.st_ino) == self.identity
        return same_file and (now.st_size, now.st_mtime_ns) != self.state


class MappedFiles:
    """The files that the weights of one module are mapped from; a copy of the object is empty."""

    def __init__(self) -> None:
        self._files: list[MappedFile] = []

    def __bool__(self) -> bool:
        return bool(self._files)

    def __reduce__(self) -> tuple[type[MappedFiles], tuple[()]]:
        """Copies of weights, by deepcopy or pickle, are not mapped."""
        return MappedFiles, ()

    def map(self, file: BinaryIO, path: Path) -> mmap.mmap:
        """Map a file privately, copy-on-write, and remember its state.

        Args:
            file: open for reading, not empty; it may be closed afterwards.
            path: its name.
        """
        info = os.fstat(file.fileno())
        pages = _private_map(file)
        identity, state = (info.st_dev, info.st_ino), (info.st_size, info.st_mtime_ns)
        self._files.append(MappedFile(os.path.abspath(path), weakref.ref(pages), identity, state))
        return pages

    @contextmanager
    def sampled(self) -> Iterator[None]:
        """Read only the pages that are looked at, without those around them."""
        maps = [pages for file in self._files if (pages := file.pages()) is not None]
        self._advise(maps, "MADV_RANDOM")
        yield
        self._advise(maps, "MADV_NORMAL")

    @staticmethod
    def _advise(maps: Iterable[mmap.mmap], advice: str) -> None:
        if hasattr(mmap, advice):  # where the system knows it
            for pages in maps:
                pages.madvise(getattr(mmap, advice))

    def check(self) -> None:
        """Check that no file has changed; files that no weight uses any more are forgotten.

        Raises:
            ChangedFileError: one has.
        """
        gone = False
        for file in self._files:
            pages = file.pages()
            if pages is None:
                gone = True
            elif file.changed(pages):
                raise ChangedFileError(
                    f"the weights in {file.path!r} were changed since they were mapped, and "
                    "perhaps weights with them; load the model again, and replace files instead of "
                    "writing into them"
                )
        if gone:
            self._files = [file for file in self._files if file.pages() is not None]


def _private_map(file: BinaryIO) -> mmap.mmap:
    """The pages of a file; those that are written to become copies."""
    if NO_RESERVE is None:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    pages = mmap.PROT_READ | mmap.PROT_WRITE
    return mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE | NO_RESERVE, prot=pages)

"""Files that weights are mapped from, and whether they are still what they were.

A private map shows the file until a page is written to: whoever changes the file in place changes
the weights that were not touched yet, and whoever cuts it short ends the process at the next touch.
So a module looks before it answers: the size, and the time of the last change. A file that was
replaced or removed stays as it is for those who have mapped it; that is how `save_onnx` writes.

What this cannot see: a change while a call runs, one that sets back the time, and one of a file
that was first given another name. Who may write to the files of a model is to be trusted.
"""

from __future__ import annotations

import mmap
import os
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from onnxinterp.errors import ChangedFileError


@dataclass(frozen=True)
class MappedFile:
    """One file as it was when it was mapped.

    Attributes:
        path: its name.
        pages: the map; gone once no weight lies in it any more.
        identity: device and inode.
        state: size in bytes, and time of the last change in nanoseconds.
    """

    path: str
    pages: weakref.ref[mmap.mmap]
    identity: tuple[int, int]
    state: tuple[int, int]

    def changed(self, pages: mmap.mmap) -> bool:
        """Whether the file is another than it was; `pages` is the map, alive."""
        if pages.size() != self.state[0]:
            return True
        try:
            now = os.stat(self.path)
        except OSError:
            return False  # removed or moved: the map still shows what it did
        same_file = (now.st_dev, now.st_ino) == self.identity
        return same_file and (now.st_size, now.st_mtime_ns) != self.state


class MappedFiles:
    """The files that the weights of one module are mapped from; a copy of it is empty."""

    def __init__(self) -> None:
        self._files: list[MappedFile] = []

    def __bool__(self) -> bool:
        return bool(self._files)

    def __reduce__(self) -> tuple[type[MappedFiles], tuple[()]]:
        """The copies of weights, by deepcopy or pickle, lie in no file."""
        return MappedFiles, ()

    def map(self, file: BinaryIO, path: Path) -> mmap.mmap:
        """Map a file privately, copy-on-write, and remember how it is.

        Args:
            file: open for reading, not empty; it may be closed afterwards.
            path: where it stands.
        """
        info = os.fstat(file.fileno())
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        identity, state = (info.st_dev, info.st_ino), (info.st_size, info.st_mtime_ns)
        self._files.append(MappedFile(os.path.abspath(path), weakref.ref(pages), identity, state))
        return pages

    def check(self) -> None:
        """Look whether the files are as they were; those without weights are forgotten.

        Raises:
            ChangedFileError: one is not.
        """
        gone = False
        for file in self._files:
            pages = file.pages()
            if pages is None:
                gone = True
            elif file.changed(pages):
                raise ChangedFileError(
                    f"the external data {file.path!r} were changed since they were mapped: weights "
                    "that were not read yet are others now; load the model again, and replace "
                    "files instead of writing into them"
                )
        if gone:
            self._files = [file for file in self._files if file.pages() is not None]

"""Opening what a path names: the model that a user asks for, and the external data that it names.

    open_model    a regular file; where it is, is the user's choice
    Folder        a model's folder, opened once, from which its external data are opened
    parts_of      the parts of a location, as the model spells it

Whoever wrote the model chose the locations in it. They must not lead out of the folder, by no name
and no link. Names can be looked at, but what stands under a name may change between a look and the
opening. So each part of a location is opened from the folder before it, links are refused by the
opening itself, and what is asked of a file is asked of the open one. A pipe or a device is opened
without waiting, and refused.

Some layouts are made of links: model hubs keep files by their digest, and name them by links. With
`data_root`, links are followed first, as names; what they lead to is then opened in the same way,
from `data_root` downwards.
"""

from __future__ import annotations

import errno
import os
import stat
import weakref
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from onnxinterp.errors import InvalidModelError, UnsafeModelError

BY_DESCRIPTOR = os.open in os.supports_dir_fd  # not on Windows
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_FILE = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_FILE |= getattr(os, "O_BINARY", 0)  # Windows translates line ends without it
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0)
_REFUSED = (errno.ELOOP, errno.ENOTDIR, errno.EMLINK, errno.ENXIO)
"""What opening says of a link where none may be, of a part that is no folder, of a socket."""


class Folder:
    """The folder of a model, open for as long as this object lives.

    Attributes:
        path: its path, as it was given.
        data_root: the folder within which external data may be links; None where they may not.
    """

    def __init__(self, path: Path, data_root: str | os.PathLike[str] | None = None) -> None:
        self.path = path
        self._model = ""
        self.data_root = None if data_root is None else Folder(Path(os.path.realpath(data_root)))
        if BY_DESCRIPTOR:
            self._descriptor = os.open(path, _FOLDER)
            weakref.finalize(self, os.close, self._descriptor)

    def open_model(self, name: str) -> BinaryIO:
        """Open a file in the folder that the user names; it may be a link.

        Raises:
            UnsafeModelError: it is a pipe, a device or a folder.
            OSError: it is missing, ...
        """
        path, self._model = self.path / name, name
        try:
            descriptor = (
                os.open(name, _FILE, dir_fd=self._descriptor)
                if BY_DESCRIPTOR
                else os.open(path, _FILE)
            )
        except OSError as error:
            if error.errno == errno.ENXIO:  # a socket
                raise UnsafeModelError(f"the model {str(path)!r} is no plain file") from error
            error.filename = str(path)
            raise
        return _regular(descriptor, f"the model {str(path)!r}")

    def open(self, location: str) -> BinaryIO:
        """Open external data: a file of its own below the folder, behind no link.

        With `data_root` it may be behind links, and have several names, but lies below that folder.

        Raises:
            InvalidModelError: there is none, or it cannot be opened.
            UnsafeModelError: it is none of this kind.
        """
        parts, what = parts_of(location), f"the external data {location!r}"
        try:
            if self.data_root is None:
                return _regular(self._descend(parts), what, links=1)
            path = self.path.joinpath(*parts)
            path.stat()  # a chain of links without end is for the system to refuse
            real = Path(os.path.realpath(path))
            if not real.is_relative_to(self.data_root.path):
                root = str(self.data_root.path)
                raise UnsafeModelError(f"{what} leads out of data_root, {root!r}, to {str(real)!r}")
            inside = real.relative_to(self.data_root.path).parts
            if not inside:
                raise UnsafeModelError(f"{what} is no plain file")
            return _regular(self.data_root._descend(inside), what)
        except FileNotFoundError as error:
            hint = self._model_link(parts)
            raise InvalidModelError(f"{what} is missing in {self.path}{hint}") from error
        except OSError as error:
            if error.errno in _REFUSED:
                hint = self._data_link(parts) or ", or is not a regular file"
                raise UnsafeModelError(f"{what} is behind a link{hint}") from error
            raise InvalidModelError(f"{what} cannot be opened: {error.strerror}") from error
        except UnicodeError as error:
            raise InvalidModelError(f"{what} is no name in this file system") from error

    def _data_link(self, parts: Sequence[str]) -> str:
        """Where a link under external data leads, and what to do; "" where there is none."""
        if self.data_root is not None:
            return ""
        folder = Path(os.path.realpath(self.path))
        real = Path(os.path.realpath(folder.joinpath(*parts)))
        if real == folder.joinpath(*parts):
            return ""
        shared = (p for p in real.parents if folder.is_relative_to(p) and p != p.parent)
        root = next((f"; to allow it, set data_root={str(p)!r}" for p in shared), "")
        return f", to {str(real)!r}{root}"

    def _model_link(self, parts: Sequence[str]) -> str:
        """Where the model is a link and its external data are beside the target: what to do."""
        real = Path(os.path.realpath(self.path / self._model))
        beside = self.path / self._model != real and real.parent.joinpath(*parts).exists()
        return f"; the model is a link to {str(real)!r}: load it from there" if beside else ""

    def has(self, location: str) -> bool:
        """Whether external data is there.

        Raises:
            UnsafeModelError: something else is there.
        """
        try:
            self.open(location).close()
        except UnsafeModelError:
            raise
        except InvalidModelError:
            return False
        return True

    def _descend(self, parts: Sequence[str]) -> int:
        """Open a file from this folder downwards, behind no link; gives its descriptor."""
        if not BY_DESCRIPTOR:
            return _open_by_name(self.path, parts)
        *folders, name = parts
        opened = [self._descriptor]
        try:
            for part in folders:
                opened.append(os.open(part, _FOLDER | _NO_LINK, dir_fd=opened[-1]))
            return os.open(name, _FILE | _NO_LINK, dir_fd=opened[-1])
        finally:
            for descriptor in opened[1:]:
                os.close(descriptor)


def open_model(
    path: Path, data_root: str | os.PathLike[str] | None = None
) -> tuple[BinaryIO, Folder]:
    """Open a model, and the folder it is in; raises what `Folder.open_model` does."""
    folder = Folder(path.parent, data_root)
    return folder.open_model(path.name), folder


@lru_cache(maxsize=64)
def parts_of(location: object) -> tuple[str, ...]:
    """The parts of a location: a path of POSIX, relative to the model's folder.

    Raises:
        UnsafeModelError: it is empty, absolute, the name of a folder or of another file system's
            making, or goes upwards.
    """
    if not isinstance(location, str):  # protobuf gives bytes where they are no UTF-8
        raise UnsafeModelError(f"the external data {location!r} have a name that is no text")
    path, windows = PurePosixPath(location), PureWindowsPath(location)
    if path.is_absolute() or windows.drive or "\\" in location or ".." in path.parts:
        raise UnsafeModelError(f"the external data {location!r} points outside of the folder")
    if not path.parts or "\0" in location or location.endswith(("/", "/.")):
        raise UnsafeModelError(f"the external data {location!r} is no name of a file")
    return path.parts


def external_path(folder: Path, location: str) -> Path:
    """Where external data is to be written, as the model says.

    Raises:
        UnsafeModelError: outside the folder, or behind a link.
    """
    path = folder.joinpath(*parts_of(location))
    if any(p.is_symlink() for p in (path, *path.parents) if folder in p.parents):
        raise UnsafeModelError(f"the external data {location!r} is behind a link")
    return path


def _regular(descriptor: int, what: str, links: int | None = None) -> BinaryIO:
    """An open file as a binary one.

    Args:
        descriptor: the file.
        what: it is, for the message.
        links: how many names it must have.

    Raises:
        UnsafeModelError: it is a pipe, a device, a folder, or has another number of names.
    """
    info = os.fstat(descriptor)
    if stat.S_ISREG(info.st_mode) and links in (None, info.st_nlink):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISREG(info.st_mode):
        raise UnsafeModelError(f"{what} has several names (hard links): allow it with data_root=")
    raise UnsafeModelError(f"{what} is no plain file")


def _open_by_name(folder: Path, parts: Sequence[str]) -> int:
    """Open a file where there are no descriptors of folders; links are told by the real path."""
    real = os.path.realpath(folder)
    expected = os.path.join(real, *parts)
    descriptor = os.open(expected, _FILE)
    try:
        path = os.path.realpath(expected)
        moved = os.path.normcase(path) != os.path.normcase(expected)
        if moved or not os.path.samestat(os.fstat(descriptor), os.lstat(path)):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), expected)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor

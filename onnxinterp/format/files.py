"""Safe opening of files: the model that a user names, and the external data that the model names.

    open_model      a regular file; the user chooses where
    Folder          a model's folder, opened once, from which its external data are opened
    parts_of        the parts of a location, as the model spells it
    external_path   where external data are to be written

The locations in a model are untrusted. They must not lead out of the folder, by a name or by a
link. A check of a name is not enough: the file may be replaced between the check and the opening.
So each part of a location is opened relative to the folder before it, links are rejected by the
system call itself, and properties are read from the open file. A pipe or a device is opened without
blocking, and rejected.

The caches of model hubs are made of links to files named by their digest. With `data_root`, links
are resolved first; their target is then opened in the same way, from `data_root` downwards.
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
_LINK_ERRORS = (errno.ELOOP, errno.ENOTDIR, errno.EMLINK, errno.ENXIO)
"""The errors of opening a link where none is allowed, a part that is not a folder, a socket."""


class Folder:
    """The folder of a model, open for as long as this object lives.

    Attributes:
        path: its path, as the user gave it.
        data_root: the folder within which external data may be links; None: nowhere.
    """

    def __init__(self, path: Path, data_root: str | os.PathLike[str] | None = None) -> None:
        self.path = path
        self._model = ""
        self.data_root = None if data_root is None else Folder(Path(os.path.realpath(data_root)))
        if BY_DESCRIPTOR:
            self._descriptor = os.open(path, _FOLDER)
            weakref.finalize(self, os.close, self._descriptor)

    def open_model(self, name: str) -> BinaryIO:
        """Open the model, which the user names; it may be a link.

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
                raise UnsafeModelError(f"the model {str(path)!r} is not a regular file") from error
            error.filename = str(path)
            raise
        return _regular(descriptor, f"the model {str(path)!r}")

    def open(self, location: str) -> BinaryIO:
        """Open external data: a regular file below the folder, without links on the way.

        With `data_root`, links and hard links are allowed, but the file must be below that folder.

        Raises:
            InvalidModelError: the file is missing, or cannot be opened.
            UnsafeModelError: it is not such a file.
        """
        parts, what = parts_of(location), f"the external data {location!r}"
        try:
            if self.data_root is None:
                return _regular(self._descend(parts), what, links=1)
            path = self.path.joinpath(*parts)
            path.stat()  # the system rejects an endless chain of links
            real = Path(os.path.realpath(path))
            if not real.is_relative_to(self.data_root.path):
                root = str(self.data_root.path)
                raise UnsafeModelError(f"{what} leads out of data_root, {root!r}, to {str(real)!r}")
            inside = real.relative_to(self.data_root.path).parts
            if not inside:
                raise UnsafeModelError(f"{what} is not a regular file")
            return _regular(self.data_root._descend(inside), what)
        except FileNotFoundError as error:
            hint = self._model_link(parts)
            raise InvalidModelError(f"{what} is missing in {self.path}{hint}") from error
        except OSError as error:
            if error.errno in _LINK_ERRORS:
                hint = self._data_link(parts) or ", or is not a regular file"
                raise UnsafeModelError(f"{what} is behind a link{hint}") from error
            raise InvalidModelError(f"{what} cannot be opened: {error.strerror}") from error
        except UnicodeError as error:
            raise InvalidModelError(f"{what} is not a valid name in this file system") from error

    def _data_link(self, parts: Sequence[str]) -> str:
        """Where a link under external data leads, and what to do; "" where there is none."""
        if self.data_root is not None:
            return ""
        folder = _real_path(self.path)
        real = _real_path(folder.joinpath(*parts))
        if real == folder.joinpath(*parts):
            return ""
        shared = (p for p in real.parents if folder.is_relative_to(p) and p != p.parent)
        root = next((f"; to allow it, set data_root={str(p)!r}" for p in shared), "")
        return f", to {str(real)!r}{root}"

    def _model_link(self, parts: Sequence[str]) -> str:
        """Where the model is a link and its external data are beside the target: what to do."""
        real = _real_path(self.path / self._model)
        beside = self.path / self._model != real and os.path.exists(real.parent.joinpath(*parts))
        return f"; the model is a link to {str(real)!r}: load it from there" if beside else ""

    def has(self, location: str) -> bool:
        """Whether external data exist.

        Raises:
            UnsafeModelError: they are not a regular file, or behind a link.
        """
        try:
            self.open(location).close()
        except UnsafeModelError:
            raise
        except InvalidModelError:
            return False
        return True

    def _descend(self, parts: Sequence[str]) -> int:
        """Open a file below this folder, without links on the way; returns its descriptor."""
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


def _real_path(path: Path) -> Path:
    """The path behind links, for a hint; the path itself where links change meanwhile."""
    try:
        return Path(os.path.realpath(path))
    except OSError:  # a link was replaced between two looks at it
        return path


def open_model(
    path: Path, data_root: str | os.PathLike[str] | None = None
) -> tuple[BinaryIO, Folder]:
    """Open a model and its folder; raises what `Folder.open_model` does."""
    folder = Folder(path.parent, data_root)
    return folder.open_model(path.name), folder


@lru_cache(maxsize=64)
def parts_of(location: object) -> tuple[str, ...]:
    """The parts of a location: a POSIX path relative to the model's folder.

    Raises:
        UnsafeModelError: it is empty, absolute, a folder, a Windows path, or leads upwards.
    """
    if not isinstance(location, str):  # protobuf returns bytes that are not valid UTF-8
        raise UnsafeModelError(f"the name of external data must be a string, got {location!r}")
    path, windows = PurePosixPath(location), PureWindowsPath(location)
    if path.is_absolute() or windows.drive or "\\" in location or ".." in path.parts:
        raise UnsafeModelError(f"the external data {location!r} must be inside the model's folder")
    if not path.parts or "\0" in location or location.endswith(("/", "/.")):
        raise UnsafeModelError(f"the external data {location!r} must be the name of a file")
    return path.parts


def external_path(folder: Path, location: str) -> Path:
    """Where external data are to be written, at the location in the model.

    Raises:
        UnsafeModelError: it is outside the folder, or behind a link.
    """
    path = folder.joinpath(*parts_of(location))
    if any(p.is_symlink() for p in (path, *path.parents) if folder in p.parents):
        raise UnsafeModelError(f"the external data {location!r} is behind a link")
    return path


def _regular(descriptor: int, what: str, links: int | None = None) -> BinaryIO:
    """A binary file from a descriptor.

    Args:
        descriptor: the open file.
        what: its name, for the message.
        links: how many names (hard links) it must have.

    Raises:
        UnsafeModelError: it is a pipe, a device, a folder, or has another number of names.
    """
    info = os.fstat(descriptor)
    if stat.S_ISREG(info.st_mode) and links in (None, info.st_nlink):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISREG(info.st_mode):
        raise UnsafeModelError(f"{what} has several names (hard links): allow it with data_root=")
    raise UnsafeModelError(f"{what} is not a regular file")


def _open_by_name(folder: Path, parts: Sequence[str]) -> int:
    """Open a file on systems without descriptors of folders; the real path shows links."""
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

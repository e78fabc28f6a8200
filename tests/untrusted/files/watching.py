"""What a process touches of the system while a model is loaded and run: Python's audit events."""

from __future__ import annotations

import os
import re
import sys
import threading
import typing
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

LIBRARIES = tuple(
    {os.path.realpath(p) for p in (sys.prefix, sys.base_prefix, Path(__file__).parents[3])}
)
LIBRARIES += tuple(os.path.realpath(p) for p in sys.path if p.endswith("-packages"))
PROGRAM = "<onnxinterp program>"  # the file name of `programs.source`
OWN_CODE = ("<frozen importlib", typing.__file__)
HARMLESS = ("/dev/null", "/dev/urandom")
NEVER = (
    "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile",
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate",
    "os.chmod", "os.chown", "os.putenv", "os.unsetenv", "os.kill", "subprocess.Popen",
    "shutil.copyfile", "shutil.rmtree", "socket.connect", "socket.bind", "socket.getaddrinfo",
    "pickle.find_class", "ctypes.dlopen", "webbrowser.open", "urllib.Request", "builtins.input",
)  # fmt: skip
STRANGE_MODULES = ("antigravity", "this", "hostile_module")  # names that only files name


STATEMENTS = re.compile(r"[\w\s(),.=:\[\]!*+/-]*", re.ASCII)  # no quotes
FORBIDDEN_NAMES = frozenset(["import", "__import__", "eval", "exec", "compile", "open", "lambda"])


class Watch:
    """Notes what is touched between `begin` and `end`, by the thread that began."""

    def __init__(self) -> None:
        self.folder = ""
        self.touched: list[str] = []
        self._thread = 0
        sys.addaudithook(self._event)

    def begin(self, folder: Path) -> None:
        """Watch; files in the folder may be opened."""
        self.touched = []
        self._thread = threading.get_ident()
        self.folder = os.path.realpath(folder)

    def end(self) -> tuple[str, ...]:
        """Watch no longer."""
        self.folder = ""
        return tuple(dict.fromkeys(self.touched))

    def _event(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.folder or threading.get_ident() != self._thread:
            return
        if event in ("open", "os.listdir", "os.scandir"):
            self._path(event, *args)
        elif event in NEVER and not _importing():
            self._note(f"{event} {args[:2]!r:.200}")
        elif event in ("exec", "compile") and not _importing():
            what = args[0] if event == "exec" else args[1]
            name = what.co_filename if isinstance(what, CodeType) else what
            if name != PROGRAM or not _is_program(args[0]):
                self._note(f"{event} {name!r:.200}")
        elif event == "import" and str(args[0]).partition(".")[0] in STRANGE_MODULES:
            self._note(f"import {args[0]}")

    def _path(self, event: str, path: Any, *rest: Any) -> None:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return  # a descriptor that is open already
        text = os.fsdecode(path)
        flags = rest[1] if len(rest) > 1 and isinstance(rest[1], int) else 0
        written = event == "open" and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        absolute = os.path.join(self.folder, text)
        # the last part of the path is not followed where the kernel is told not to
        head, tail = os.path.split(absolute)
        followed = not flags & os.O_NOFOLLOW
        real = os.path.realpath(absolute if followed else head)
        real = real if followed else os.path.join(real, tail)
        if _below(real, (self.folder,)) and not written:
            return
        if text in HARMLESS or (_below(real, LIBRARIES) and not written) or _importing():
            return
        self._note(f"{event} {text!r:.200}")

    def _note(self, what: str) -> None:
        frame: FrameType | None = sys._getframe(1)
        callers: list[str] = []
        while frame is not None and len(callers) < 8:
            code = frame.f_code
            if code.co_filename != __file__:
                callers.append(f"{Path(code.co_filename).name}:{frame.f_lineno} {code.co_name}")
            frame = frame.f_back
        self.touched.append(f"{what}, by {' < '.join(callers)}")


def _is_program(code: Any) -> bool:
    """Whether code is a program of this library: calls of its own names, without a string."""
    if isinstance(code, CodeType):  # its source was seen when it was compiled
        return True
    source = code.decode() if isinstance(code, bytes) else code
    names = set(re.findall(r"[A-Za-z_]\w*", source, re.ASCII))
    return STATEMENTS.fullmatch(source) is not None and not names & FORBIDDEN_NAMES


def _below(path: str, folders: tuple[str, ...]) -> bool:
    return any(path == f or path.startswith(f.rstrip("/") + "/") for f in folders)


def _importing() -> bool:
    """Whether a library imports a part of itself, late, or reads the annotations of its code."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(OWN_CODE):
            return True
        frame = frame.f_back
    return False

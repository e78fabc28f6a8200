"""What can go wrong, by the moment it goes wrong. Nothing else leaves this library.

OnnxError
├── InvalidModelError     the file breaks the ONNX specification
│   └── UnsafeModelError  it asks for something a loader must not do
├── UnsupportedOpError    the file is fine, but operators are missing: all of them are listed
├── InputError            a call got the wrong inputs
├── SaveError             the weights do not fit into the file they are to be written to
├── ChangedFileError      a file that weights are mapped from was written to since
└── NodeError             a node failed while running; the cause is chained

Messages quote names and texts of the file, which may be anything. So every error of this library
escapes what cannot be printed, a line break that it did not make itself too, and ends a message
after 2,000 bytes: nothing in a file can forge lines of a log or command a terminal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MAX_MESSAGE_BYTES = 2000  # bytes of a message
LONGEST_LINE = (
    1500  # of one of its lines: what is wrong comes behind the name, however long that is
)


class OnnxError(Exception):
    """The base of every error this library raises.

    Args:
        lines: the lines of the message; in each, what cannot be printed is escaped.
    """

    def __init__(self, *lines: object) -> None:
        text = "\n".join(map(plain, lines))
        super().__init__(_cut(text, MAX_MESSAGE_BYTES, tail=0))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), tuple(str(self).split("\n")), self.__dict__


def plain(text: object, most: int = LONGEST_LINE) -> str:
    """A text of the file as one line to be shown: escaped, and of at most so many bytes."""
    return _cut(escaped(_cut(str(text), most)), most)


def escaped(text: str) -> str:
    r"""Text with everything that cannot be printed as `repr` writes it: `\n`, `\x1b`, `\ud800`."""
    if text.isprintable():
        return text
    return "".join([c if c.isprintable() else repr(c)[1:-1] for c in text])


def _cut(text: str, most: int, tail: int | None = None) -> str:
    """A text of so many bytes, the last of which, a third by default, are its end."""
    data = text.encode(errors="backslashreplace")
    if len(data) <= most:
        return text
    tail = most // 3 if tail is None else tail
    head, end = data[: most - tail - 5], data[len(data) - tail :]
    return f"{head.decode(errors='ignore')} ... {end.decode(errors='ignore')}".rstrip()


class InvalidModelError(OnnxError, ValueError):
    """The model breaks the ONNX specification; the message says where."""


class UnsafeModelError(InvalidModelError):
    """The model names a path or a size that is refused for safety, or a call goes over a limit."""


class InputError(OnnxError, TypeError):
    """A call of the module got inputs that do not fit the graph's inputs."""


class SaveError(OnnxError, ValueError):
    """The weights cannot be written back into the ONNX file; the message says which, and why."""


class ChangedFileError(OnnxError, RuntimeError):
    """External data were changed in place while a module has them mapped."""


class NodeError(OnnxError, RuntimeError):
    """A node failed at run time; `__cause__` holds what torch said."""


@dataclass(frozen=True)
class MissingOp:
    """One operator that no kernel serves, and a node that asks for it."""

    domain: str
    op_type: str
    opset: int
    node: str
    served: tuple[int, ...] = ()
    newest: int | None = None

    def __str__(self) -> str:
        name = f"{self.domain}::{self.op_type}" if self.domain else self.op_type
        where = f"asked for by node {self.node!r}"
        known = f"; kernels exist from opset {min(self.served)}" if self.served else ""
        known += f" to {self.newest}" if known and self.newest else ""
        return f"{name} at opset {self.opset}, {where}{known}"

    def registration(self) -> str:
        """The line that would register a kernel for it."""
        domain = f", domain={self.domain!r}" if self.domain else ""
        return f"@onnxinterp.op({self.op_type!r}, since={self.opset}{domain})"


class UnsupportedOpError(OnnxError, NotImplementedError):
    """The model uses operators without a kernel.

    Attributes:
        missing: every one of them, once each; the message lists as many as it has room for.
    """

    def __init__(self, missing: Iterable[MissingOp]) -> None:
        self.missing = tuple(missing)
        lines = [line for m in self.missing for line in (f"  - {m}", f"      {m.registration()}")]
        super().__init__(f"{len(self.missing)} operator(s) without a kernel:", *lines)

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.missing,)

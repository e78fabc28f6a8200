"""The errors of this library.

OnnxError
├── InvalidModelError     a file is not a valid ONNX model
│   └── UnsafeModelError  a model is rejected for safety, or exceeds a limit
├── UnsupportedOpError    operators have no kernel: all of them are listed
├── InputError            a call got the wrong inputs
├── SaveError             the weights do not fit into the file
├── ChangedFileError      a file that weights are mapped from was changed
├── NodeError             a node failed during a call; the cause is chained
├── EngineError           an engine of a snapshot cannot run a model
├── ChangedWeightsError   the weights changed after a snapshot of them was made
└── MissingExtraError     an optional package is not installed (in `extras`)

Messages quote names and strings of untrusted files. So every error escapes what cannot be printed,
including line breaks in what it quotes, and a message has at most 2,000 bytes: a file cannot forge
lines of a log or send commands to a terminal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MAX_MESSAGE_BYTES = 2000
MAX_LINE_BYTES = 1500  # of one line of a message: the cause must follow a name of any length


class OnnxError(Exception):
    """The base class of the errors of this library.

    Args:
        lines: the lines of the message; what cannot be printed in them is escaped.
    """

    def __init__(self, *lines: object) -> None:
        text = "\n".join(map(plain, lines))
        super().__init__(_shorten(text, MAX_MESSAGE_BYTES, tail=0))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), tuple(str(self).split("\n")), self.__dict__


def plain(text: object, most: int = MAX_LINE_BYTES) -> str:
    """A string as one printable line of at most `most` bytes."""
    return _shorten(escaped(_shorten(str(text), most)), most)


def escaped(text: str) -> str:
    r"""A string with everything that cannot be printed escaped as by `repr`: `\n`, `\x1b`."""
    if text.isprintable():
        return text
    return "".join([c if c.isprintable() else repr(c)[1:-1] for c in text])


def _shorten(text: str, most: int, tail: int | None = None) -> str:
    """A string of at most `most` bytes, `tail` of them its end (by default a third)."""
    data = text.encode(errors="backslashreplace")
    if len(data) <= most:
        return text
    tail = most // 3 if tail is None else tail
    head, end = data[: most - tail - 5], data[len(data) - tail :]
    return f"{head.decode(errors='ignore')} ... {end.decode(errors='ignore')}".rstrip()


class InvalidModelError(OnnxError, ValueError):
    """Raised when a file is not a valid ONNX model; the message says where."""


class UnsafeModelError(InvalidModelError):
    """Raised when a model is rejected for safety, or when loading or a call exceeds a limit."""


class InputError(OnnxError, TypeError):
    """Raised when the arguments of a call do not fit the inputs of the graph."""


class SaveError(OnnxError, ValueError):
    """Raised when weights cannot be written to a file; the message says which, and why."""


class ChangedFileError(OnnxError, RuntimeError):
    """Raised when external data were changed in place while a module has them mapped."""


class NodeError(OnnxError, RuntimeError):
    """Raised when a node fails during a call; `__cause__` is the original error."""


class SourceError(OnnxError, RuntimeError):
    """The module cannot be written as Python source."""


class EngineError(OnnxError, RuntimeError):
    """Raised when an engine of a snapshot cannot run a model, or these inputs; says why."""


class ChangedWeightsError(OnnxError, RuntimeError):
    """Raised when a snapshot is called after the weights of its module have changed."""


@dataclass(frozen=True)
class MissingOp:
    """An operator without a kernel.

    Attributes:
        domain: "" for ai.onnx.
        op_type: its name.
        opset: the version that the model imports.
        node: a node of this operator.
        served: the versions that have kernels.
        newest: the last opset that they support.
        advice: why it has none, and what to do instead; "" if nothing is known.
    """

    domain: str
    op_type: str
    opset: int
    node: str
    served: tuple[int, ...] = ()
    newest: int | None = None
    advice: str = ""

    def __str__(self) -> str:
        name = f"{self.domain}::{self.op_type}" if self.domain else self.op_type
        where = f"required by node {self.node!r}"
        known = f"; kernels exist from opset {min(self.served)}" if self.served else ""
        known += f" to {self.newest}" if known and self.newest else ""
        known += f"; {self.advice}" if self.advice else ""
        return f"{name} at opset {self.opset}, {where}{known}"

    def registration(self) -> str:
        """The line of code that registers a kernel for it."""
        domain = f", domain={self.domain!r}" if self.domain else ""
        return f"@onnxinterp.op({self.op_type!r}, since={self.opset}{domain})"


class UnsupportedOpError(OnnxError, NotImplementedError):
    """Raised when a model uses operators without a kernel.

    Attributes:
        missing: all of them, once each; the message lists as many as it has room for.
    """

    def __init__(self, missing: Iterable[MissingOp]) -> None:
        self.missing = tuple(missing)
        lines = [line for m in self.missing for line in (f"  - {m}", f"      {m.registration()}")]
        super().__init__(f"{len(self.missing)} operator(s) without a kernel:", *lines)

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.missing,)

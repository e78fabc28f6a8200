"""One hostile or odd file, what to feed it, and what must come of it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from onnxinterp import Limits

Must: TypeAlias = Literal["refused", "right", "either"]

CANARY = b"canary:the-file-outside-was-read"
"""What the file beside the model's folder holds, again and again: any part of 32 bytes shows it."""

CANARY_NAME = "canary.bin"

TIGHT = Limits(seconds=2.0, live_bytes=2**27, tensor_bytes=2**26, steps=100_000)
"""For bombs: small enough for a test, far beyond what any honest case needs."""


@dataclass(frozen=True)
class Case:
    """One file.

    Attributes:
        name: "class/what is odd about it"; unique, and how the case is asked for.
        content: the bytes of the model.
        must: "refused" by an OnnxError; "right": the expected answer; "either": refused, or the
            answer of onnxruntime where it has one.
        feeds: the inputs of the call, by name.
        expected: the outputs; None where onnxruntime is asked.
        limits: what the module is given; None is `Limits()` or `Limits.untrusted()` by chance.
        beside: makes what stands beside the model; gets the model's folder. The canary's is one up.
        as_bytes: the module gets the bytes, not the path.
        asked: whether onnxruntime's answer counts: not where it is unsafe, or known to differ.
        race: (link, file, outside) in the model's folder: while the model is loaded over and over,
            `link` is the file at one moment and a link to what is outside at the next.
        calls: how often the module is called.
        fake: what the child does instead; only the runner's own tests set it.
    """

    name: str
    content: bytes
    must: Must = "either"
    feeds: Mapping[str, Any] = field(default_factory=dict)
    expected: tuple[Any, ...] | None = None
    limits: Limits | None = None
    beside: Callable[[Path], None] | None = None
    as_bytes: bool = False
    asked: bool = True
    race: tuple[str, str, str] | None = None
    calls: int = 1
    fake: str = ""

    @property
    def group(self) -> str:
        """The class it belongs to."""
        return self.name.partition("/")[0]

    @property
    def held_to(self) -> Limits:
        """The limits that the module is given."""
        if self.limits is not None:
            return self.limits
        return Limits() if zlib.crc32(self.name.encode()) % 2 else Limits.untrusted()


@dataclass(frozen=True)
class Report:
    """What a child saw of a case.

    Attributes:
        stage: "load", "call" or "answered".
        kind: the class of the error; "" where there was none.
        text: its message, and those of its causes.
        known: whether it is an OnnxError.
        outputs: the answer, as numpy arrays, lists, dicts; None where it was too large to tell.
        touched: what of the system was touched that no model may touch.
        grown: bytes by which the process had grown at its peak.
        seconds: how long it took.
    """

    stage: str
    kind: str = ""
    text: str = ""
    known: bool = False
    outputs: tuple[Any, ...] | None = None
    touched: tuple[str, ...] = ()
    grown: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Lost:
    """A child that gave no report: `how` is "crashed" or "hung"."""

    how: Literal["crashed", "hung"]
    why: str = ""

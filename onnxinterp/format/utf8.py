"""Names and other texts of a model: UTF-8, as protobuf has it.

    check_utf8    all of a parsed model

Parsing does not see to it: a text that is no UTF-8 comes as `bytes`, where everybody expects `str`.
Only documentation may be in any encoding: nothing reads it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from onnxinterp.errors import InvalidModelError, UnsafeModelError
from onnxinterp.limits import Limits

MIN_NODE_ALLOWANCE = 10_000  # nodes, for which there is room in any case
PARTS = 64  # messages and texts for each node: attributes, names, shapes of values, metadata


class Texts(NamedTuple):
    """The fields of a message that are texts, or lead to some.

    Attributes:
        single: texts.
        repeated: lists of texts.
        inner: messages.
        inners: lists of messages.
    """

    single: tuple[str, ...]
    repeated: tuple[str, ...]
    inner: tuple[str, ...]
    inners: tuple[str, ...]


def check_utf8(model: onnx.ModelProto, limits: Limits) -> None:
    """Refuse a text that is no UTF-8, and more messages and texts than nodes could need.

    A message without anything in it is two bytes of a file, and a hundred times that in Python; so
    they are looked at one at a time, before anybody else does.

    Raises:
        InvalidModelError: there is such a text.
        UnsafeModelError: there are more than 64 messages and texts for each of `limits.nodes`.
    """
    most = math.inf if limits.nodes is None else PARTS * max(limits.nodes, MIN_NODE_ALLOWANCE)
    left = most
    waiting: list[Iterator[Message]] = [iter([model])]
    while waiting:
        message = next(waiting[-1], None)
        if message is None:
            waiting.pop()
            continue
        kind: Any = type(message)
        texts = _texts(kind)
        for name in texts.single:
            if type(getattr(message, name)) is bytes:
                _refuse(message, name)
        for name in texts.repeated:
            left -= len(several := getattr(message, name))
            if bytes in map(type, several):
                _refuse(message, name)
        waiting += [iter([getattr(message, n)]) for n in texts.inner if message.HasField(n)]
        waiting += [iter(inner) for n in texts.inners if (inner := getattr(message, n))]
        left -= 1
        if left < 0:
            what = f"the model has more than {most:,} messages and texts"
            raise UnsafeModelError(f"{what}; limits.nodes allows no more")


def _refuse(message: Message, field: str) -> None:
    kind, value = type(message).__name__, getattr(message, field)
    raise InvalidModelError(f"{field} of a {kind} is no UTF-8: {value!r}")


@cache
def _texts(kind: Any) -> Texts:
    empty = kind()
    fields = [f for f in kind.DESCRIPTOR.fields if f.name != "doc_string"]
    texts = [f.name for f in fields if f.type == FieldDescriptor.TYPE_STRING]
    inner = [f.name for f in fields if f.message_type]

    def split(names: list[str], method: str) -> list[tuple[str, ...]]:
        return [
            tuple(n for n in names if hasattr(getattr(empty, n), method) is many)
            for many in (False, True)
        ]

    return Texts(*split(texts, "append"), *split(inner, "add"))

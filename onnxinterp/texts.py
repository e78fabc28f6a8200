"""Names and other texts of a model: UTF-8, as protobuf has it.

    check_texts    all of a parsed model

Parsing does not see to it: a text that is no UTF-8 comes as `bytes`, where everybody expects `str`.
Only documentation may be in any encoding: nothing reads it.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from onnxinterp.errors import InvalidModelError


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


def check_texts(model: onnx.ModelProto) -> None:
    """Refuse a text that is no UTF-8.

    Raises:
        InvalidModelError: there is one.
    """
    waiting: list[Message] = [model]
    while waiting:
        message = waiting.pop()
        kind: Any = type(message)
        texts = _texts(kind)
        for name in texts.single:
            if type(getattr(message, name)) is bytes:
                _refuse(message, name)
        for name in texts.repeated:
            if bytes in map(type, getattr(message, name)):
                _refuse(message, name)
        waiting += [getattr(message, name) for name in texts.inner if message.HasField(name)]
        for name in texts.inners:
            waiting += getattr(message, name)


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

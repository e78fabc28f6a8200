"""Checks that the strings of a model are UTF-8, as protobuf requires.

    check_utf8    all strings of a parsed model

Parsing does not check this: protobuf returns a string that is not valid UTF-8 as `bytes`, where
every reader expects `str`. Only documentation may have any encoding, because nothing reads it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from operator import attrgetter
from typing import Any, NamedTuple

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from onnxinterp.errors import InvalidModelError, UnsafeModelError
from onnxinterp.limits import Limits

MIN_NODE_ALLOWANCE = 10_000  # nodes that are allowed whatever the limit
ITEMS_PER_NODE = 64  # messages and strings: attributes, names, shapes of values, metadata


class StringFields(NamedTuple):
    """The fields of a message that are strings, or contain some.

    Attributes:
        single: strings.
        read: returns these strings of a message.
        repeated: lists of strings.
        inner: messages.
        inners: lists of messages.
    """

    single: tuple[str, ...]
    read: Callable[[Message], Iterable[object]]
    repeated: tuple[str, ...]
    inner: tuple[str, ...]
    inners: tuple[str, ...]


def check_utf8(model: onnx.ModelProto, limits: Limits) -> None:
    """Check that all strings are valid UTF-8, and that the model has not too many parts.

    An empty message takes two bytes of a file, and a hundred times more in Python. So this check
    comes before all others, and holds one message at a time.

    Raises:
        InvalidModelError: a string is not valid UTF-8.
        UnsafeModelError: there are more than 64 messages and strings for each of `limits.nodes`.
    """
    nodes = math.inf if limits.nodes is None else max(limits.nodes, MIN_NODE_ALLOWANCE)
    left = most = ITEMS_PER_NODE * nodes
    waiting: list[Iterator[Message]] = [iter([model])]
    while waiting:
        for message in waiting[-1]:
            kind: Any = type(message)
            names = _string_fields(kind)
            if bytes in map(type, names.read(message)):
                raise _not_utf8(message, names.single)
            for name in names.repeated:
                if strings := getattr(message, name):
                    left -= len(strings)
                    if bytes in map(type, strings):
                        raise _not_utf8(message, (name,))
            left -= 1
            if left < 0:
                what = f"the model has more than {most:,} messages and strings"
                raise UnsafeModelError(f"{what}, which limits.nodes allows")
            found = [iter([getattr(message, n)]) for n in names.inner if message.HasField(n)]
            found += [iter(inner) for n in names.inners if (inner := getattr(message, n))]
            if found:
                waiting += found
                break
        else:
            waiting.pop()


def _not_utf8(message: Message, names: Sequence[str]) -> InvalidModelError:
    """The error for the first of some fields that is not valid, or has such a string."""
    field = next(n for n in names if len(names) == 1 or type(getattr(message, n)) is bytes)
    what = f"{field} of a {type(message).__name__}"
    return InvalidModelError(f"{what} must be valid UTF-8, got {getattr(message, field)!r}")


@cache
def _string_fields(kind: Any) -> StringFields:
    empty = kind()
    fields = [f for f in kind.DESCRIPTOR.fields if f.name != "doc_string"]
    strings = [f.name for f in fields if f.type == FieldDescriptor.TYPE_STRING]
    inner = [f.name for f in fields if f.message_type]

    def split(names: list[str], method: str) -> list[tuple[str, ...]]:
        return [
            tuple(n for n in names if hasattr(getattr(empty, n), method) is many)
            for many in (False, True)
        ]

    single, repeated = split(strings, "append")
    read: Any = attrgetter(*single, single[0]) if single else lambda _: ()  # of one name no tuple
    return StringFields(single, read, repeated, *split(inner, "add"))

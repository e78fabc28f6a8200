"""What may happen to the fields of any message: values, parts and their order."""

from __future__ import annotations

import math
from functools import cache
from random import Random
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from onnx import ModelProto

INTEGERS = (
    *(0, 1, -1, 2, 3, 4, 7, 8, 11, 16, 17, 64, 255, 256, 1000, 65536, 10**6, 10**9),
    *(2**31 - 1, -(2**31), 2**31, 2**32, 2**33 + 1, 2**40, 2**62, 2**63 - 1, -(2**63)),
)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e38, 1e300, math.inf, -math.inf, math.nan, 2.0**63)
TEXTS = (
    *(
        "",
        "x",
        "x0",
        "y0",
        "x1",
        "ai.onnx",
        "ai.onnx.ml",
        "com.microsoft",
        "fuzz",
        "NOTSET",
        "mean",
    ),
    *("../x", "/etc/passwd", "a/../../b", "C:\\x", "\0", "\n\x1b[31m", "%s%n{0.__class__}", "é"),
    *("__class__", "self", "forward", "weights", "a" * 70_000, "." * 50, "a.b.c", "axis", "axes"),
)
INVALID = (b"\xff\xfe", b"\xc3", b"a\x80b", b"\xed\xa0\x80")  # no UTF-8
WHOLE = frozenset(
    getattr(FieldDescriptor, f"CPPTYPE_{kind}") for kind in ("INT32", "INT64", "UINT32", "UINT64")
)


def within(message: Message, random: Random) -> Message:
    """Some message inside another, or the message itself."""
    while random.random() > 0.12:
        inner = [
            part
            for field, value in message.ListFields()
            if field.message_type is not None
            for part in (value if field.is_repeated else (value,))
        ]
        if not inner:
            break
        message = random.choice(inner)
    return message


def every(message: Message, kind: type[Any]) -> list[Any]:
    """The messages of one kind in another, wherever they stand."""
    found = [message] if isinstance(message, kind) else []
    for name, repeated in _towards(message.DESCRIPTOR, kind.DESCRIPTOR):
        if repeated:
            for part in getattr(message, name):
                found += every(part, kind)
        elif message.HasField(name):
            found += every(getattr(message, name), kind)
    return found


@cache
def _towards(start: Descriptor, end: Descriptor) -> list[tuple[str, bool]]:
    """The fields of one kind of message that may lead to another: names, and whether repeated."""
    return [
        (field.name, field.is_repeated)
        for field in start.fields
        if field.message_type is not None and end in _reached(field.message_type)
    ]


@cache
def _reached(start: Descriptor) -> set[Descriptor]:
    """The kinds of messages in one kind, itself included."""
    found, left = set(), [start]
    while left:
        kind = left.pop()
        if kind not in found:
            found.add(kind)
            left += [f.message_type for f in kind.fields if f.message_type is not None]
    return found


def scalar(field: FieldDescriptor, old: Any, random: Random) -> Any:
    """Another value for a field that is no message."""
    if field.cpp_type in WHOLE:
        near = isinstance(old, int) and random.random() < 0.4
        return old + random.choice((-2, -1, 1, 2)) if near else random.choice(INTEGERS)
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return random.choice(field.enum_type.values).number
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return not old
    if field.cpp_type != FieldDescriptor.CPPTYPE_STRING:
        return random.choice(FLOATS)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return cut(old, random) if old else random.randbytes(random.randrange(40))
    return random.choice(TEXTS)


def cut(data: bytes, random: Random) -> bytes:
    """Data with something gone, added or changed."""
    at = random.randrange(len(data) + 1)
    kind = random.randrange(4)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + data[at + random.randrange(1, 9) :]
    if kind == 2:
        return data[:at] + random.randbytes(random.randrange(1, 9)) + data[at:]
    return (
        data[:at] + random.randbytes(min(len(data) - at, random.randrange(1, 9))) + data[at + 8 :]
    )


def change_scalar(model: ModelProto, _donor: ModelProto, random: Random) -> None:
    message = within(model, random)
    held = [f for f, _ in message.ListFields() if f.message_type is None]
    if held:
        field = random.choice(held)
        value = getattr(message, field.name)
        if field.is_repeated:
            at = random.randrange(len(value))
            value[at] = scalar(field, value[at], random)
        else:
            setattr(message, field.name, scalar(field, value, random))


def set_unset(model: ModelProto, _donor: ModelProto, random: Random) -> None:
    message = within(model, random)
    field = random.choice(message.DESCRIPTOR.fields)
    if field.message_type is not None:
        part = getattr(message, field.name)
        part.add() if field.is_repeated else part.SetInParent()
    elif field.is_repeated:
        getattr(message, field.name).append(scalar(field, None, random))
    else:
        setattr(message, field.name, scalar(field, None, random))


def drop_field(model: ModelProto, _donor: ModelProto, random: Random) -> None:
    message = within(model, random)
    if held := message.ListFields():
        message.ClearField(random.choice(held)[0].name)


def rearrange(model: ModelProto, _donor: ModelProto, random: Random) -> None:
    """Drop, double, swap or move what a repeated field holds."""
    for _ in range(4):
        message = within(model, random)
        held = [(f, v) for f, v in message.ListFields() if f.is_repeated]
        if held:
            break
    else:
        return
    field, value = random.choice(held)
    at, to = random.randrange(len(value)), random.randrange(len(value))
    kept = [_copied(v) for v in value]
    kind = random.randrange(4)
    if kind == 0:
        del kept[at]
    elif kind == 1:
        kept.insert(to, _copied(kept[at]))
    elif kind == 2:
        kept[at], kept[to] = kept[to], kept[at]
    else:
        kept.insert(to, kept.pop(at))
    message.ClearField(field.name)
    getattr(message, field.name).extend(kept)


def _copied(value: Any) -> Any:
    if not isinstance(value, Message):
        return value
    copy = type(value)()
    copy.CopyFrom(value)
    return copy


def graft(model: ModelProto, donor: ModelProto, random: Random) -> None:
    """A part of another model in place of one of the same kind."""
    part = within(model, random)
    if part is not model and (donors := every(donor, type(part))):
        part.CopyFrom(random.choice(donors))

"""The bytes of an ONNX file, field by field: for changing a tensor and nothing else.

A protobuf message is a sequence of fields, each a tag (field number and wire type) and a payload. A
payload of the wire type LENGTH follows its size; it may be another message. When a payload is
replaced, only its bytes change and, if their number changes, the sizes of the messages around it.
The order of fields, unknown fields and unusual encodings stay as they are.

    Wire              the bytes, except for holes
    fields            the fields of one message
    walk              the messages that lead to tensors, and the tensors, with their places
    messages          the same of a parsed model
    has_split_tensors whether a tensor comes in several pieces
    Edit, write       the same bytes, with some replaced

Source: https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

import math
import mmap
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from operator import attrgetter, itemgetter
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import onnx
from google.protobuf.message import Message

from onnxinterp.errors import InvalidModelError, SaveError

Buffer: TypeAlias = "bytes | bytearray | memoryview | mmap.mmap"
Place: TypeAlias = "tuple[int, ...]"
"""Where a message is in a model: field number and index, from the model inwards."""

VARINT, FIXED64, LENGTH, GROUP, END_GROUP, FIXED32 = range(6)
MAX_PROTOBUF_BYTES = 2**31 - 1
MAX_NESTING = 100  # messages inside each other that protobuf reads
TENSOR_PATHS: dict[type[Message], tuple[str, ...]] = {
    onnx.ModelProto: ("graph", "functions", "training_info"),
    onnx.TrainingInfoProto: ("initialization", "algorithm"),
    onnx.FunctionProto: ("node", "attribute_proto"),
    onnx.GraphProto: ("initializer", "sparse_initializer", "node"),
    onnx.NodeProto: ("attribute",),
    onnx.AttributeProto: ("t", "g", "tensors", "graphs", "sparse_tensor", "sparse_tensors"),
    onnx.SparseTensorProto: ("values", "indices"),
}
"""The fields of each message that lead to tensors."""


def number_of(message: type[Message], field: str) -> int:
    """The number of a field."""
    number: int = message.DESCRIPTOR.fields_by_name[field].number
    return number


class Inner(NamedTuple):
    """A field of messages: its name, their type, and whether it is repeated."""

    name: str
    message: type[Message]
    repeated: bool


def _inner(message: type[Message], field: str) -> Inner:
    held = getattr(message(), field)
    repeated = hasattr(held, "add")
    return Inner(field, type(held.add() if repeated else held), repeated)


INNER_FIELDS = {
    message: {number_of(message, f): _inner(message, f) for f in names}
    for message, names in TENSOR_PATHS.items()
}
"""Message -> number of a field that leads to tensors -> the field."""


class Field(NamedTuple):
    """One field: the offsets of its tag, of the size of its payload, and of its payload."""

    number: int
    kind: int
    at: int
    size_at: int
    start: int
    stop: int


Chain: TypeAlias = "tuple[Field, ...]"
"""A field and those around it, outermost first."""


class Wire:
    """The bytes of a message; there may be holes between its pieces.

    Attributes:
        pieces: (offset, bytes), in order.
        size: the number of bytes, holes included.
        fields_left: how many more fields may be looked at.
    """

    def __init__(
        self, pieces: Sequence[tuple[int, Buffer]], size: int, fields_left: float = math.inf
    ) -> None:
        self.pieces = list(pieces)
        self.size = size
        self.fields_left = fields_left
        self._starts = [start for start, _ in self.pieces]
        self._piece: tuple[int, Buffer] = (0, b"")  # the one that was looked at last

    def varint(self, at: int) -> tuple[int, int]:
        """The number at an offset, and the offset after it."""
        start, data = self._piece
        first = at - start
        if not 0 <= first < len(data):
            self._piece = start, data = self.pieces[bisect_right(self._starts, at) - 1]
            first = at - start
        if first < len(data) and (byte := data[first]) < 128:  # most numbers have one byte
            return byte, at + 1
        value = shift = 0
        for index in range(first, min(first + 10, len(data))):
            byte = data[index]
            value |= (byte & 127) << shift
            if byte < 128:
                return value, start + index + 1
            shift += 7
        raise InvalidModelError(f"the bytes at offset {at} of the model are not protobuf")

    def parts(self, start: int, stop: int) -> Iterator[memoryview]:
        """The bytes between two offsets, without a copy.

        Raises:
            KeyError: some of them are in a hole.
        """
        while start < stop:
            index = bisect_right(self._starts, start) - 1
            at, data = self.pieces[index]
            if index < 0 or start >= at + len(data):
                raise KeyError(start)
            part = memoryview(data)[start - at : stop - at]
            yield part
            start += len(part)

    def read(self, start: int, stop: int) -> bytes:
        """A copy of the bytes between two offsets."""
        return b"".join(self.parts(start, stop))

    def has(self, start: int, stop: int) -> bool:
        """Whether the bytes from an offset are not in a hole; holes are whole payloads."""
        at, data = self.pieces[bisect_right(self._starts, start) - 1]
        return start == stop or start < at + len(data)

    @property
    def holes(self) -> list[tuple[int, int]]:
        """Where each hole starts and stops."""
        edges = [edge for start, data in self.pieces for edge in (start, start + len(data))]
        gaps = list(pairwise([0, *edges, self.size]))[::2]
        return [(start, stop) for start, stop in gaps if start < stop]

    @classmethod
    def whole(cls, data: Buffer, max_fields: float = math.inf) -> Wire:
        """Bytes without a hole."""
        return cls([(0, data)], len(data), max_fields)

    @classmethod
    def with_holes(cls, data: bytes, holes: Iterable[tuple[int, int]]) -> Wire:
        """The bytes around some holes, which are in order and do not overlap."""
        pieces: list[tuple[int, Buffer]] = []
        at = used = 0
        for start, stop in holes:
            pieces.append((at, data[used : used + start - at]))
            at, used = stop, used + start - at
        return cls([*pieces, (at, data[used:])], at + len(data) - used)

    def without(self, holes: Iterable[tuple[int, int]]) -> Wire:
        """A copy without these payloads, too."""
        edges = [0, *(edge for hole in sorted([*self.holes, *holes]) for edge in hole), self.size]
        spans = [span for span in list(pairwise(edges))[::2] if span[0] < span[1]]
        return Wire([(start, self.read(start, stop)) for start, stop in spans], self.size)

    def filled(self, parts: Iterable[tuple[int, bytes]]) -> Wire:
        """The same bytes with (offset, bytes) of some holes."""
        return Wire(sorted([*self.pieces, *parts], key=itemgetter(0)), self.size)


def fields(wire: Wire, start: int, stop: int) -> Iterator[Field]:
    """The fields of the message between two offsets, except groups, which ONNX does not use.

    Raises:
        InvalidModelError: the bytes are not protobuf, or have too many fields.
    """
    at, depth = start, 0
    while at < stop:
        wire.fields_left -= 1
        if wire.fields_left < 0:
            raise InvalidModelError("the model has too many fields")
        tag, after = wire.varint(at)
        number, kind, begin = tag >> 3, tag & 7, after
        if kind == VARINT:
            _, end = wire.varint(begin)
        elif kind == LENGTH:
            size, begin = wire.varint(after)
            end = begin + size
        elif kind in (FIXED64, FIXED32):
            end = begin + (8 if kind == FIXED64 else 4)
        elif kind in (GROUP, END_GROUP):
            depth, end = depth + (1 if kind == GROUP else -1), begin
        else:
            raise InvalidModelError(f"the bytes at offset {at} of the model are not protobuf")
        if end > stop or depth < 0:
            raise InvalidModelError(f"the field at offset {at} of the model is too long")
        if not depth and kind != END_GROUP:
            yield Field(number, kind, at, after, begin, end)
        at = end


def walk(wire: Wire, at_least: int = 0) -> Iterator[tuple[Place, type[Message], Chain]]:
    """The messages that lead to tensors, and the tensors, in the order of the bytes.

    Args:
        wire: a ModelProto.
        at_least: messages of fewer bytes are counted, but not returned.

    Raises:
        InvalidModelError: the bytes are not protobuf, or nested too deep.
    """
    return _inside(wire, at_least, Counter(), onnx.ModelProto, (), ())


def _inside(
    wire: Wire,
    at_least: int,
    counts: Counter[Place],
    message: type[Message],
    place: Place,
    chain: Chain,
) -> Iterator[tuple[Place, type[Message], Chain]]:
    """Not inside `walk`: a function in a cycle keeps the bytes until garbage collection."""
    start, stop = (chain[-1].start, chain[-1].stop) if chain else (0, wire.size)
    for field in fields(wire, start, stop):
        inner = INNER_FIELDS[message].get(field.number)
        if inner is None or field.kind != LENGTH:
            continue
        series = (*place, field.number)
        here = (*series, counts[series])
        counts[series] += inner.repeated  # the pieces of a single message are one message
        if len(chain) > MAX_NESTING:
            raise InvalidModelError(f"the model has more than {MAX_NESTING} nested messages")
        is_large = field.stop - field.start >= at_least
        if is_large:
            yield here, inner.message, (*chain, field)
        if inner.message in INNER_FIELDS and (is_large or not inner.repeated):  # or in pieces
            yield from _inside(wire, at_least, counts, inner.message, here, (*chain, field))


def has_split_tensors(wire: Wire) -> bool:
    """Whether a tensor comes in several pieces, which protobuf merges."""
    seen: set[Place] = set()
    for place, kind, _ in walk(wire):
        if kind in (onnx.TensorProto, onnx.SparseTensorProto):
            if place in seen:
                return True
            seen.add(place)
    return False


def messages(message: Message) -> Iterator[tuple[Place, Message]]:
    """The same messages as of `walk`, of a parsed model, in another order."""
    waiting = [_children((), message)]
    while waiting:
        for place, found in waiting[-1]:
            yield place, found
            if type(found) in INNER_FIELDS and _has_inner(found):
                waiting.append(_children(place, found))
                break
        else:
            waiting.pop()


def _has_inner(message: Message) -> bool:
    """Whether any message is in a message: most attributes and many nodes have none."""
    singles, repeated = _NAMES[type(message)]
    for name in singles:
        if message.HasField(name):
            return True
    return any(repeated(message))


def _names(message: type[Message]) -> tuple[Sequence[str], Callable[[Message], Iterable[object]]]:
    """The single fields that lead to tensors, and a function that returns the repeated ones."""
    fields = INNER_FIELDS[message].values()
    repeated = [f.name for f in fields if f.repeated]
    read: Any = attrgetter(*repeated, repeated[0]) if repeated else lambda _: ()  # one is no tuple
    return [f.name for f in fields if not f.repeated], read


_NAMES = {message: _names(message) for message in INNER_FIELDS}


def _children(place: Place, message: Message) -> Iterator[tuple[Place, Message]]:
    """The messages directly in a message, one at a time: none is kept."""
    for number, (name, _, repeated) in INNER_FIELDS[type(message)].items():
        if not repeated and not message.HasField(name):
            continue
        found = getattr(message, name)
        if not repeated:
            yield (*place, number, 0), found
        elif found:
            series = (*place, number)
            for index, inner in enumerate(found):
                yield (*series, index), inner


class Edit(NamedTuple):
    """A replacement of some bytes.

    Attributes:
        start: where they start.
        stop: where they end.
        size: the number of new bytes.
        parts: returns the new bytes in parts; called each time they are written.
        around: the LENGTH fields around them, outermost first.
    """

    start: int
    stop: int
    size: int
    parts: Callable[[], Iterable[Buffer]]
    around: Chain


def edit(start: int, stop: int, data: bytes, around: Chain) -> Edit:
    """An edit with its new bytes."""
    return Edit(start, stop, len(data), lambda: (data,), around)


def tagged(number: int, size: int) -> bytes:
    """The tag and the size before the payload of a LENGTH field."""
    return varint(number << 3 | LENGTH) + varint(size)


def varint(number: int) -> bytes:
    """The bytes of a number, which must not be negative."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _sizes(edits: Sequence[Edit]) -> list[Edit]:
    """The edits of the sizes of the messages around some edits, innermost first."""
    growth: defaultdict[Field, int] = defaultdict(int)
    around: dict[Field, Chain] = {}
    for change in edits:
        for depth, field in enumerate(change.around):
            around[field] = change.around[:depth]
            growth[field] += change.size - (change.stop - change.start)
    sizes = []
    for field in sorted(around, key=lambda f: -len(around[f])):
        if growth[field]:
            size = varint(field.stop - field.start + growth[field])
            for outer in around[field]:
                growth[outer] += len(size) - (field.start - field.size_at)
            sizes.append(edit(field.size_at, field.start, size, around[field]))
    return sizes


def write(wire: Wire, edits: Sequence[Edit], out: BinaryIO) -> None:
    """Write the bytes with some edits, which must cover all holes.

    Raises:
        SaveError: the model would be larger than protobuf allows.
    """
    # an edit at the end of a message comes before one after the message
    edits = sorted([*edits, *_sizes(edits)], key=lambda e: (e.start, e.stop, -len(e.around)))
    size = wire.size + sum(e.size - (e.stop - e.start) for e in edits)
    if size > MAX_PROTOBUF_BYTES:
        raise SaveError(f"the model would have {size} bytes, over 2 GiB: use external data")
    at = 0
    for change in edits:
        for part in wire.parts(at, change.start):
            out.write(part)
        for new in change.parts():
            out.write(new)
        at = change.stop
    for part in wire.parts(at, wire.size):
        out.write(part)

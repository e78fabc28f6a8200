"""Parsing a model without the data of its large tensors, which are read once, to where they stay.

    outline     the large tensors in the bytes of a model, and which payloads can be cut out
    Payloads    reads what was cut out, for the tensors of the parsed model

Protobuf would hold the weights a second time, and a third time while it returns them. A payload is
cut out only if it is the one field of raw data in its tensor, beside fields that say nothing about
data. Where anything is unusual, all bytes are parsed, and protobuf says what is wrong.

In the parsed model, each tensor whose data were cut out has a mark in their place. It is a random
number: a tensor that has it where it is expected is the right one.
"""

from __future__ import annotations

import io
import mmap
import os
import secrets
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO, NamedTuple

import onnx
from google.protobuf.message import Message
from onnx import TensorProto

from onnxinterp.errors import InvalidModelError
from onnxinterp.format.memory import Pages, own_memory
from onnxinterp.format.wire import (
    INNER_FIELDS,
    LENGTH,
    Buffer,
    Chain,
    Field,
    Place,
    Wire,
    edit,
    fields,
    has_split_tensors,
    number_of,
    walk,
    write,
)

MIN_PAYLOAD_BYTES = 1024  # of payloads that are cut out
MAX_FIELDS = 2**18  # that are looked at, in less than a second; with more, nothing is cut out
MAX_REST_BYTES = 2**20  # that are copied although less than half of the model is cut out
NONCE_BYTES = 12
RAW = number_of(TensorProto, "raw_data")
LOCATION = number_of(TensorProto, "data_location")
BESIDE_RAW = frozenset(
    number_of(TensorProto, name)
    for name in ("dims", "data_type", "name", "doc_string", "metadata_props")
)
"""The fields that a tensor may have beside a payload that is cut out."""
HOLDERS = (number_of(onnx.GraphProto, "initializer"), number_of(onnx.AttributeProto, "t"))
"""The fields that hold tensors whose payloads are cut out: others are no weights."""


class Located(NamedTuple):
    """A tensor in the bytes of a model.

    Attributes:
        place: its place in the model.
        chain: its field and those around it.
        fields: its own fields.
    """

    place: Place
    chain: Chain
    fields: Sequence[Field]


class CutTensor(NamedTuple):
    """A tensor of a parsed model whose payload was cut out.

    Attributes:
        message: the tensor.
        place: its place in the model.
        start: where in the bytes of the model the payload starts.
        stop: where it stops.
    """

    message: TensorProto
    place: Place
    start: int
    stop: int


class Outline(NamedTuple):
    """The bytes of a model, and the tensors in them.

    Attributes:
        wire: the bytes, with a hole for each payload that is cut out.
        tensors: those of `MIN_PAYLOAD_BYTES` and more, in the order of the bytes.
        cuts: place of each tensor whose payload is cut out -> its mark, and the payload.
    """

    wire: Wire
    tensors: Sequence[Located]
    cuts: Mapping[Place, tuple[bytes, Field]]

    def marked(self) -> bytes:
        """The bytes of the model with the marks."""
        cut = ((t.chain, *self.cuts[t.place]) for t in self.tensors if t.place in self.cuts)
        edits = [edit(p.start, p.stop, mark, (*chain, p)) for chain, mark, p in cut]
        out = io.BytesIO()
        write(self.wire, edits, out)
        return out.getvalue()

    def find(self, model: onnx.ModelProto) -> list[CutTensor] | None:
        """The tensors of the parsed model whose payloads were cut out; None if one is not there."""
        found = []
        for place, (mark, payload) in self.cuts.items():
            tensor = _at(model, place)
            if not isinstance(tensor, TensorProto) or tensor.raw_data != mark:
                return None
            found.append(CutTensor(tensor, place, payload.start, payload.stop))
        return found


def outline(data: Buffer) -> Outline | None:
    """The outline of a model; None if its bytes are unusual, are not a model, or have few payloads.

    Args:
        data: the bytes; they are not needed any more if anything is cut out.
    """
    wire, nonce = Wire.whole(data, MAX_FIELDS), secrets.token_bytes(NONCE_BYTES)
    tensors: dict[Place, Located] = {}
    cuts: dict[Place, tuple[bytes, Field]] = {}
    try:
        for place, kind, chain in walk(wire, MIN_PAYLOAD_BYTES):
            if kind is not TensorProto:
                continue
            own = list(fields(wire, chain[-1].start, chain[-1].stop))
            if place in tensors:
                return None  # in several pieces, which protobuf merges
            tensors[place] = Located(place, chain, own)
            payload = _payload(wire, own)
            if payload is None or place[-2] not in HOLDERS:
                continue
            if all(map(_has_short_size, (*chain, payload))):
                cuts[place] = nonce + len(cuts).to_bytes(4, "little"), payload
    except InvalidModelError:
        return None
    holes = [(payload.start, payload.stop) for _, payload in cuts.values()]
    cut_bytes = sum(stop - start for start, stop in holes)
    if len(data) - cut_bytes > max(cut_bytes, MAX_REST_BYTES):
        return None
    return Outline(wire.without(holes), [*tensors.values()], cuts)


def is_as_written(model: onnx.ModelProto, data: bytes, wire: Wire) -> bool:
    """Whether each tensor of a parsed model is in one piece of its bytes.

    If protobuf would write the same bytes, it is; that is quicker to test than to look.

    Args:
        model: the parsed model.
        data: the bytes that were parsed.
        wire: the same bytes, perhaps with holes.
    """
    if model.SerializeToString() == data:
        return True
    try:
        return not has_split_tensors(Wire(wire.pieces, wire.size, MAX_FIELDS))
    except InvalidModelError:
        return False


def _payload(wire: Wire, own: Sequence[Field]) -> Field | None:
    """The payload of a tensor, if nothing else in it says anything about its data."""
    payload = None
    for field in own:
        if field.number == RAW and payload is None:
            payload = field
        elif field.number == LOCATION and wire.read(field.start, field.stop) == b"\0":
            continue  # the default, spelled out
        elif field.number not in BESIDE_RAW:
            return None
    if payload is None or payload.kind != LENGTH:
        return None
    return payload if payload.stop - payload.start >= MIN_PAYLOAD_BYTES else None


def _has_short_size(field: Field) -> bool:
    """Whether the size of a field has no more bytes than it needs: as it would be written."""
    bits = (field.stop - field.start).bit_length()
    return field.start - field.size_at == (max(bits, 1) + 6) // 7


def _at(model: onnx.ModelProto, place: Place) -> Message | None:
    """The message at a place of a parsed model; None if there is none."""
    message: Message = model
    for number, index in zip(place[::2], place[1::2], strict=True):
        inner = INNER_FIELDS[type(message)][number]
        found = getattr(message, inner.name)
        if inner.repeated:
            if index >= len(found):
                return None
            found = found[index]
        message = found
    return message


class SourceFile:
    """The file of a model, open until its tensors are read.

    Args:
        file: the file; it may be closed afterwards.
        what: its name, for messages.
    """

    def __init__(self, file: BinaryIO, what: str) -> None:
        self._what = what
        self._file = io.FileIO(os.dup(file.fileno()), "rb")
        weakref.finalize(self, self._file.close)
        self._state = self._now()

    def _now(self) -> tuple[int, int]:
        info = os.fstat(self._file.fileno())
        return info.st_size, info.st_mtime_ns

    def read(self, start: int, target: memoryview) -> None:
        """Fill `target` with the bytes from an offset.

        Raises:
            InvalidModelError: the file has become shorter.
        """
        self._file.seek(start)
        while target:
            count = self._file.readinto(target)
            if not count:
                raise self._changed()
            target = target[count:]

    def close(self) -> None:
        """Close the file.

        Raises:
            InvalidModelError: it was changed since it was opened.
        """
        now = self._now()
        self._file.close()
        if now != self._state:
            raise self._changed()

    def _changed(self) -> InvalidModelError:
        return InvalidModelError(f"{self._what} was changed while it was read")


class Payloads:
    """The payloads that were cut out of a model.

    Args:
        tensors: those that they belong to.
        source: the bytes of the model.
        pages: the file of the model, mapped, if tensors are to stay in it.
    """

    def __init__(
        self,
        tensors: Sequence[CutTensor] = (),
        source: SourceFile | bytes = b"",
        pages: mmap.mmap | None = None,
    ) -> None:
        self._tensors = {id(t.message): t for t in tensors}  # alive: each id stays its own
        self._source = source
        self._pages = pages

    def __iter__(self) -> Iterator[CutTensor]:
        return iter(self._tensors.values())

    def size(self, tensor: TensorProto) -> int | None:
        """The number of bytes of the payload of a tensor; None if it was not cut out."""
        cut = self._tensors.get(id(tensor))
        return None if cut is None else cut.stop - cut.start

    def mapped(self, tensor: TensorProto, alignment: int) -> tuple[mmap.mmap, int] | None:
        """The mapped file and where the payload of a tensor starts in it; None: it must be read.

        Args:
            tensor: the tensor.
            alignment: what its start must be a multiple of.
        """
        cut = self._tensors.get(id(tensor))
        if cut is None or self._pages is None or cut.start % alignment:
            return None
        return self._pages, cut.start

    def read(self, tensor: TensorProto) -> Pages:
        """The payload of a tensor, which was cut out, in memory of its own."""
        cut = self._tensors[id(tensor)]
        pages = own_memory(cut.stop - cut.start)
        self._fill(cut, pages)
        return pages

    def inline(self, tensor: TensorProto) -> TensorProto:
        """A copy of a tensor with its payload; the tensor itself if that was not cut out."""
        cut = self._tensors.get(id(tensor))
        if cut is None:
            return tensor
        whole = TensorProto()
        whole.CopyFrom(tensor)
        whole.raw_data = self.bytes(cut)
        return whole

    def bytes(self, cut: CutTensor) -> bytes:
        """A copy of a payload."""
        data = bytearray(cut.stop - cut.start)
        self._fill(cut, data)
        return bytes(data)

    def _fill(self, cut: CutTensor, pages: Pages) -> None:
        with memoryview(pages) as target:
            if isinstance(self._source, SourceFile):
                self._source.read(cut.start, target)
            else:
                target[:] = memoryview(self._source)[cut.start : cut.stop]

    def close(self) -> None:
        """End reading.

        Raises:
            InvalidModelError: the file was changed since the model was parsed.
        """
        if isinstance(self._source, SourceFile):
            self._source.close()


NO_PAYLOADS = Payloads()

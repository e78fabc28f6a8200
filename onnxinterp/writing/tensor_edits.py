"""The edits of a model's bytes that change the value of a tensor.

    StoredTensor       a TensorProto in the bytes: its header, and where its data are
    attribute_edits    numbers of an attribute, such as `value_floats` of a Constant
    sparse_edits       a SparseTensorProto

The form of the data is preserved: raw bytes, a typed field, packed or not, numbers of an attribute.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Mapping

import torch
from google.protobuf.message import DecodeError
from onnx import AttributeProto, SparseTensorProto, StringStringEntryProto, TensorProto, helper
from torch import Tensor

from onnxinterp.dtypes import CARRIER, NATIVE
from onnxinterp.errors import InvalidModelError, SaveError
from onnxinterp.format.fields import TYPED_FIELDS, VALUE_FIELD
from onnxinterp.format.tensor_bytes import (
    PACKED_AS_RAW,
    check_weight,
    convert,
    raw_parts,
    raw_size,
    same_bits,
    typed_parts,
)
from onnxinterp.format.tensor_checks import external_of, raw_bytes
from onnxinterp.format.tensor_reader import TensorReader, flat_positions
from onnxinterp.format.wire import (
    FIXED32,
    LENGTH,
    VARINT,
    Buffer,
    Chain,
    Edit,
    Field,
    Wire,
    edit,
    fields,
    number_of,
    tagged,
    varint,
)

EXTERNAL = "external"
RAW = "raw_data"
FORMS = {f: number_of(TensorProto, f) for f in (RAW, *TYPED_FIELDS) if f != "string_data"}
NUMBER_TYPE: dict[int, int] = {
    AttributeProto.FLOAT: TensorProto.FLOAT,
    AttributeProto.FLOATS: TensorProto.FLOAT,
    AttributeProto.INT: TensorProto.INT64,
    AttributeProto.INTS: TensorProto.INT64,
}
"""Type of an attribute of numbers -> type of the tensor."""


class StoredTensor:
    """A TensorProto in the bytes of a model.

    Attributes:
        wire: the bytes.
        chain: the field of the TensorProto, and those around it.
        name: of the weight, by default the tensor's own.
        header: the TensorProto without its data.
        form: "external", "raw_data", "float_data", ...
        data: the fields with the data; none if they are external or empty.

    Args:
        wire: the bytes.
        chain: the field of the TensorProto, and those around it.
        name: of the weight, by default the tensor's own.
        own: the fields of the TensorProto, if they are known.
    """

    def __init__(self, wire: Wire, chain: Chain, name: str = "", own: Iterable[Field] = ()) -> None:
        self.wire = wire
        self.chain = chain
        self._fields = list(own or fields(wire, chain[-1].start, chain[-1].stop))
        numbers = FORMS.values()
        head = [wire.read(f.at, f.stop) for f in self._fields if f.number not in numbers]
        try:
            self.header = TensorProto.FromString(b"".join(head))
        except DecodeError as error:
            raise InvalidModelError(f"the model has a damaged tensor: {error}") from error
        self.name = name or self.header.name
        kind = self.header.data_type
        if self.header.data_location == TensorProto.EXTERNAL:
            self.form = EXTERNAL
        elif any(f.number == FORMS[RAW] for f in self._fields):
            self.form = RAW
        else:
            self.form = helper.tensor_dtype_to_field(kind) if kind in CARRIER else "string_data"
        self.data = [f for f in self._fields if f.number == FORMS.get(self.form)]

    @property
    def payload(self) -> Field | None:
        """The one field that has all data as bytes, as most writers do it."""
        return self.data[0] if len(self.data) == 1 and self.data[0].kind == LENGTH else None

    @property
    def is_here(self) -> bool:
        """Whether the data are in the bytes, neither external nor in a hole."""
        return self.form != EXTERNAL and all(self.wire.has(f.start, f.stop) for f in self.data)

    @property
    def location(self) -> str:
        """The file of external data, in one spelling."""
        return external_of(self.header).location

    @property
    def offset(self) -> int:
        """The first byte of the data in this file."""
        return external_of(self.header).offset

    def relocate(self, names: Mapping[str, str]) -> list[Edit]:
        """The edits for new locations of external data: location -> new location."""
        new = names.get(self.location, self.location)
        entries = (f for f in self._fields if f.number == number_of(TensorProto, "external_data"))
        for field, entry in zip(entries, self.header.external_data, strict=True):
            if entry.key == "location" and new != self.location:
                number = number_of(StringStringEntryProto, "value")
                parts = fields(self.wire, field.start, field.stop)
                value = [f for f in parts if f.number == number][-1]
                return [edit(value.start, value.stop, new.encode(), (*self.chain, field, value))]
        return []

    def value(self, reader: TensorReader) -> Tensor:
        """The value in the file."""
        data = self.wire.read(self.chain[-1].start, self.chain[-1].stop)
        value = reader(TensorProto.FromString(data))
        assert isinstance(value, Tensor), "strings are not weights"
        return value

    def parts(self, value: Tensor) -> Callable[[], Iterable[Buffer]]:
        """A function that returns the bytes of a value in this form."""
        kind, name = self.header.data_type, self.name
        encode = raw_parts if self.form in (RAW, EXTERNAL) else typed_parts
        return lambda: encode(value, kind, name)

    def size(self, value: Tensor) -> int:
        """The number of bytes of a value in this form."""
        kind = self.header.data_type
        if self.form in (RAW, EXTERNAL) or kind in PACKED_AS_RAW:
            return raw_size(value, kind, self.name)
        return sum(len(part) for part in self.parts(value)())

    def is_canonical(self, value: Callable[[], Tensor]) -> bool:
        """Whether the data are the bytes that `parts` would write.

        Args:
            value: returns the value that the data have.
        """
        field, kind = self.payload, self.header.data_type
        if field is None or not self.is_here:
            return False
        if kind in NATIVE and self.form == RAW:
            return field.stop - field.start == raw_bytes(kind, math.prod(self.header.dims))
        given = value()
        if self.size(given) != field.stop - field.start:
            return False
        return self.wire.read(field.start, field.stop) == b"".join(self.parts(given)())

    def edits(self, value: Tensor) -> list[Edit]:
        """The edits that write a value; none if the data have this value, in any encoding.

        Raises:
            SaveError: a number is beyond the range of the type.
        """
        if self.is_here and not (self.form == RAW and self.header.data_type in NATIVE):
            before = self.value(TensorReader(None))
            if same_bits(value, before, self.header.data_type, self.name):
                return []
        return self.rewrite(value)

    def rewrite(self, value: Tensor) -> list[Edit]:
        """The edits that write a value, also of another number of elements."""
        size, parts = self.size(value), self.parts(value)
        if self.payload is not None:
            around = (*self.chain, self.payload)
            return [Edit(self.payload.start, self.payload.stop, size, parts, around)]
        head = tagged(FORMS[self.form], size)
        return replace_fields(self.data, self.chain, len(head) + size, lambda: (head, *parts()))

    def reshape(self, shape: Iterable[int]) -> list[Edit]:
        """The edits that write another shape."""
        number = number_of(TensorProto, "dims")
        dims = [f for f in self._fields if f.number == number]
        sizes = b"".join(varint(number << 3 | VARINT) + varint(n) for n in shape)
        return replace_fields(dims, self.chain, len(sizes), lambda: (sizes,))


def replace_fields(
    old: list[Field], chain: Chain, size: int, parts: Callable[[], Iterable[Buffer]]
) -> list[Edit]:
    """The edits that replace some fields, or add to the end of the message if there are none."""
    at, stop = (old[0].at, old[0].stop) if old else (chain[-1].stop, chain[-1].stop)
    rest = [edit(f.at, f.stop, b"", chain) for f in old[1:]]
    return [Edit(at, stop, size, parts, chain), *rest]


def attribute_edits(wire: Wire, chain: Chain, value: Tensor, name: str) -> list[Edit]:
    """The edits that write a weight into the numbers of an AttributeProto.

    Raises:
        SaveError: the value has another shape or another class of type.
    """
    proto = AttributeProto.FromString(wire.read(chain[-1].start, chain[-1].stop))
    field, kind = VALUE_FIELD[proto.type], NUMBER_TYPE[proto.type]
    numbers = getattr(proto, field)
    before = torch.tensor(numbers if field in "fi" else list(numbers), dtype=CARRIER[kind])
    check_weight(value, kind, tuple(before.shape), name)
    if same_bits(value, before, kind, name):
        return []
    number = number_of(AttributeProto, field)
    old = [f for f in fields(wire, chain[-1].start, chain[-1].stop) if f.number == number]
    floating = kind == TensorProto.FLOAT
    elements = [
        struct.pack("<f", n) if floating else varint(n % 2**64)
        for n in convert(value.detach().reshape(-1), kind, name).tolist()
    ]
    if old and old[0].kind == LENGTH:
        packed = b"".join(elements)
        data = tagged(number, len(packed)) + packed
    else:
        tag = varint(number << 3 | (FIXED32 if floating else VARINT))
        data = b"".join(tag + element for element in elements)
    return replace_fields(old, chain, len(data), lambda: (data,))


def sparse_edits(
    wire: Wire, chain: Chain, value: Tensor, name: str, reader: TensorReader
) -> list[Edit]:
    """The edits that write a dense value into a SparseTensorProto.

    If all other elements are zero, only the values of the stored elements change. Otherwise the
    elements that are not zero are stored, in the order of their positions.

    Raises:
        SaveError: the value does not fit, or would change external data.
    """
    proto = SparseTensorProto.FromString(wire.read(chain[-1].start, chain[-1].stop))
    kind, shape = proto.values.data_type, tuple(proto.dims)
    check_weight(value, kind, shape, name)
    if same_bits(value, reader.sparse(proto), kind, name):
        return []
    inner = {f.number: f for f in fields(wire, chain[-1].start, chain[-1].stop)}
    values, indices = (
        StoredTensor(wire, (*chain, inner[number_of(SparseTensorProto, part)]))
        for part in ("values", "indices")
    )
    if EXTERNAL in (values.form, indices.form):
        raise SaveError(f"the sparse weight {name!r} has external data: it cannot be changed")
    flat = convert(value.detach().reshape(-1), kind, name)
    before = indices.value(reader)
    stored = flat_positions(before, shape)
    beside = flat.clone()
    beside[stored] = 0
    if not beside.count_nonzero():
        return values.rewrite(flat[stored])
    (positions,) = flat.nonzero(as_tuple=True)
    where = positions if before.ndim < 2 else torch.stack(torch.unravel_index(positions, shape), 1)
    return [
        *values.rewrite(flat[positions]),
        *values.reshape([len(positions)]),
        *indices.rewrite(where),
        *indices.reshape(where.shape),
    ]

"""Whether the bytes of a template are those of a graph: what is saved is what was loaded.

check_same_model      by the parsed messages, all of them but for the data of the weights
"""

from __future__ import annotations

import io
from collections.abc import Collection
from itertools import pairwise

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from onnxinterp.errors import InvalidModelError, UnsafeModelError
from onnxinterp.format.tensor_checks import external_of
from onnxinterp.format.wire import Place, Wire, edit, messages, walk, write
from onnxinterp.writing.tensor_edits import EXTERNAL, Stored

PAGE = 2**16  # bytes that writers leave between tensors of external data, at most
DATA_FIELDS = tuple(
    field.name
    for field in TensorProto.DESCRIPTOR.fields
    if field.name not in ("name", "dims", "data_type", "doc_string", "metadata_props")
)


def clear(tensor: TensorProto) -> None:
    """Drop the data, keep name, type and shape."""
    for field in DATA_FIELDS:
        tensor.ClearField(field)


def check_same_model(
    wire: Wire, graph: bytes, weights: Collection[Place], sizes: dict[str, int]
) -> None:
    """Refuse bytes of another model than the graph.

    Args:
        wire: the bytes, with holes where weights belong.
        graph: the model, whose weights may lack their data.
        weights: where in it the weights of the module are.
        sizes: location -> bytes that its external data are said to have.

    Raises:
        InvalidModelError: they differ, or a hole is none of a weight.
        UnsafeModelError: external data would have many more bytes than the tensors in them.
    """
    try:
        model = onnx.ModelProto.FromString(_filled(wire, weights))
        other = onnx.ModelProto.FromString(graph)
    except (DecodeError, KeyError) as error:
        raise InvalidModelError(f"the template is no model: {error}") from error
    external = {
        place: message
        for place, message in messages(model)
        if isinstance(message, TensorProto) and message.data_location == TensorProto.EXTERNAL
    }
    _refuse_spread([*external.values()], sizes)
    cleared = {*weights, *external}
    if _outline(model, cleared) != _outline(other, cleared):
        raise InvalidModelError("the template is another model than the graph")


def _filled(wire: Wire, weights: Collection[Place]) -> bytes:
    """The bytes, with no data where the holes are; each is the whole data of a weight."""
    edges = [edge for start, data in wire.pieces for edge in (start, start + len(data))]
    holes = {(a, b) for a, b in list(pairwise([*edges, wire.size]))[1::2] if a < b}
    cuts = []
    for place, kind, chain in walk(wire):
        if kind is not TensorProto or place not in weights:
            continue
        stored = Stored(wire, chain)
        hole = stored.payload if stored.form != EXTERNAL else None
        if hole is not None and (hole.start, hole.stop) in holes:
            holes.remove((hole.start, hole.stop))
            cuts.append(edit(hole.start, hole.stop, b"", (*chain, hole)))
    if holes:
        raise InvalidModelError("the template lacks bytes that are none of a weight")
    out = io.BytesIO()
    write(wire, cuts, out)
    return out.getvalue()


def _refuse_spread(tensors: Collection[TensorProto], sizes: dict[str, int]) -> None:
    """Refuse external data that are mostly empty: a few bytes must not become a huge file."""
    found = [external_of(tensor) for tensor in tensors]
    ends = [where.offset + where.length for where in found]
    most = 2 * sum(where.length for where in found) + PAGE * (len(found) + 1)
    if max([*ends, *sizes.values()], default=0) > most:
        raise UnsafeModelError(f"external data of the template go beyond {most} bytes")


def _outline(model: onnx.ModelProto, cleared: Collection[Place]) -> bytes:
    """The bytes of a model without the data of some tensors."""
    for place, message in messages(model):
        if place in cleared and isinstance(message, TensorProto):
            clear(message)
    data: bytes = model.SerializeToString(deterministic=True)
    return data

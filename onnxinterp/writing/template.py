"""The template of a module: the bytes of its model without the weights.

    Template        the bytes, and where in them each weight belongs
    make_template   from a source that was just read
    template_of     from another file of the same graph
    without_holes   bytes that can be parsed, from a template

With a template a module can be copied, pickled, and saved when its source is gone. The holes are
payloads of at least 1 KiB that are, bit for bit, what would be written for the weight. All other
bytes are kept, including tensors that the module does not use.
"""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import onnx
from google.protobuf.message import Message
from onnx import TensorProto
from torch import Tensor

from onnxinterp.dtypes import NATIVE
from onnxinterp.errors import InvalidModelError, SaveError
from onnxinterp.format.files import Folder
from onnxinterp.format.payloads import MIN_PAYLOAD_BYTES, Outline, Payloads
from onnxinterp.format.tensor_reader import TensorReader
from onnxinterp.format.wire import (
    Buffer,
    Place,
    Wire,
    edit,
    has_split_tensors,
    messages,
    walk,
    write,
)
from onnxinterp.graph.build import build
from onnxinterp.graph.ir import Graph, Model, Node
from onnxinterp.graph.ties import untie_weights
from onnxinterp.limits import Limits
from onnxinterp.reading import source as reading
from onnxinterp.registry import Kernel
from onnxinterp.weights.layouts import StoredWeights
from onnxinterp.writing.tensor_edits import NUMBER_TYPE, StoredTensor

LIKE_HINT = "name a file of the same graph: save_onnx(path, like=...)"


class TiedPlace(NamedTuple):
    """Where a weight that shares the tensor of another is in the file (`graph.ir.Tie`).

    Attributes:
        origin: the name of the tensor in the file.
        place: the place of the tensor.
        readers: the places of the nodes that read the weight, with the number of the input; None
            for the Identity that makes the weight. None in all if one is in a function.
        together: as in `Tie`.
        held: whether the module has the weight; `outputs=` may have cut it off.
    """

    origin: str
    place: Place
    readers: tuple[tuple[Place, int | None], ...] | None
    together: bool
    held: bool

    @property
    def places(self) -> set[Place]:
        """The places of the tensor and of the readers."""
        return {self.place, *(place for place, _ in self.readers or ())}


@dataclass
class Template:
    """A model without its weights.

    Attributes:
        wire: its bytes, with holes for the weights; None for a ModelProto of more than 2 GiB, which
            cannot be serialized.
        places: place in the model -> the names of its weights; a tensor in a function that is
            called twice may be two weights.
        ties: the weights that share a tensor with one of these.
        fixed: weights that are in no file, such as constants of an operator's definition, with
            their initial values.
        folder: the folder of external data; None if the model has no path.
        data_root: the folder within which external data may be links.
        sizes: location -> bytes of external data when they were opened.
        names_files: whether the model chooses the names of new files of external data; a model
            from a checkpoint must not.
    """

    wire: Wire | None
    places: dict[Place, tuple[str, ...]]
    ties: dict[str, TiedPlace]
    fixed: dict[str, Tensor]
    folder: Path | None
    sizes: dict[str, int] = field(default_factory=dict)
    data_root: Path | None = None
    names_files: bool = True

    def opened(self) -> Folder | None:
        """The opened folder of external data; None if it does not exist (any more)."""
        if self.folder is None:
            return None
        try:
            return Folder(self.folder, self.data_root)
        except OSError:
            return None

    def external(self, location: str, needed_by: str | None) -> Folder | None:
        """The folder of a file of external data; None if the file is gone and not needed.

        Args:
            location: the file.
            needed_by: a tensor in it that the module does not have.

        Raises:
            SaveError: the file is gone, but needed.
            UnsafeModelError: it is outside the folder, or behind a link.
        """
        folder = self.opened()
        if folder is not None and folder.has(location):
            return folder
        if needed_by is None:
            return None
        raise SaveError(
            f"the external data {location!r} of the source are gone, and the module does not have "
            f"all tensors in them ({needed_by!r}); {LIKE_HINT}"
        )


def make_template(
    content: reading.Content,
    proto: onnx.ModelProto,
    model: Model,
    weights: StoredWeights,
    reader: TensorReader,
) -> Template:
    """The template of a model that was just read.

    Args:
        content: the bytes of the model; None if it came parsed.
        proto: the parsed model.
        model: the model, decoded from `proto`.
        weights: the weights of the module.
        reader: the reader of the tensors.
    """
    places, ties = _places(proto, model, weights)
    homeless = weights.keys() - ties.keys() - {n for names in places.values() for n in names}
    fixed = {name: weights[name].detach().clone() for name in homeless}
    if isinstance(content, Wire):
        return Template(content, places, ties, fixed, None, reader.sizes, names_files=False)
    own = {p: names[0] for p, names in places.items()}
    for tie in ties.values():
        if not tie.held:
            own.pop(tie.place, None)  # it is read later
    try:
        content = reading.serialized(proto) if content is None else content
    except InvalidModelError:
        return Template(None, places, ties, fixed, None)
    wire = _without_weights(content, proto, own, weights, reader.payloads)
    folder = reader.folder
    path = _absolute(folder.path) if folder else None
    root = folder.data_root.path if folder and folder.data_root else None
    return Template(wire, places, ties, fixed, path, reader.sizes, root)


def _without_weights(
    content: Buffer | Outline,
    proto: onnx.ModelProto,
    own: Mapping[Place, str],
    weights: StoredWeights,
    payloads: Payloads,
) -> Wire:
    """The bytes of a model with holes for the weights that would be written as they are.

    Args:
        content: the bytes of the model.
        proto: the parsed model.
        own: place in the model -> a weight there.
        weights: the weights of the module.
        payloads: the data that were cut out of the model.
    """
    if isinstance(content, Outline):
        kept = {t.place for t in payloads if t.place in own and t.message.data_type in NATIVE}
        others = [(t.start, payloads.bytes(t)) for t in payloads if t.place not in kept]
        wire = content.wire.filled(others)
        located = [t for t in content.tensors if t.place not in kept]
        tensors = [(t.place, StoredTensor(wire, t.chain, own=t.fields)) for t in located]
    else:
        wire = Wire.whole(content)
        tensors = _tensors(wire)
        if _has_split_tensors(wire, tensors):
            wire = Wire.whole(reading.serialized(proto))  # a tensor in pieces has no single place
            tensors = _tensors(wire)
    holes = []
    for place, stored in tensors:
        payload = stored.payload if place in own else None
        if payload is None or payload.stop - payload.start < MIN_PAYLOAD_BYTES:
            continue
        if stored.is_canonical(partial(weights.__getitem__, own[place])):
            holes.append((payload.start, payload.stop))
    return wire.without(holes)


def _has_split_tensors(wire: Wire, tensors: Iterable[tuple[Place, StoredTensor]]) -> bool:
    """Whether a tensor comes in several pieces.

    Then protobuf would write other bytes, which is quicker to test, without the data, than a walk.
    """
    bare = _bare(wire, (stored for _, stored in tensors))
    canonical = onnx.ModelProto.FromString(bare).SerializeToString()
    return canonical != bare and has_split_tensors(wire)


def template_of(
    like: reading.Source,
    graph: Graph,
    kernels: Mapping[str, Kernel],
    untie: bool | list[str],
    weights: Iterable[str],
    fixed: dict[str, Tensor],
    limits: Limits,
) -> Template:
    """The template of another file of the same graph.

    Args:
        like: the file.
        graph: the module's graph.
        kernels: the module's own kernels.
        untie: the module's choice of ties.
        weights: the names of the module's weights.
        fixed: those of them that are in no file.
        limits: those of the module.

    Raises:
        SaveError: the file has another graph.
        InvalidModelError: it is not a model.
    """
    like = reading.reusable(like)
    wire = Wire.whole(reading.content_of(like))
    if has_split_tensors(wire):
        wire = Wire.whole(reading.serialized(reading.read(like, limits, kernels=kernels).proto))
    # parsed without the memory that its tensors would take
    bare = _bare(wire, (stored for _, stored in _tensors(wire)))
    proto = reading.read(bare, limits, kernels=kernels).proto
    model = untie_weights(build(proto, kernels, limits), untie)
    _check_same_graph(graph, model.graph.pruned(graph.outputs))
    places, ties = _places(proto, model, [name for name in weights if name in model.tensors])
    folder = _absolute(Path(like).parent) if isinstance(like, (str, os.PathLike)) else None
    return Template(wire, places, ties, fixed, folder)


def without_holes(wire: Wire) -> tuple[bytes, set[Place]]:
    """The bytes of a model whose tensors are empty where their data are in holes.

    Returns:
        The bytes, and the places of these tensors.

    Raises:
        InvalidModelError: other bytes are missing, too.
    """
    try:
        empty = {place: stored for place, stored in _tensors(wire) if not stored.is_here}
        return _bare(wire, empty.values()), set(empty)
    except KeyError as error:
        raise InvalidModelError(f"the template lacks byte {error}, not of a tensor") from error


def _bare(wire: Wire, tensors: Iterable[StoredTensor]) -> bytes:
    """The bytes of a model without the data of some tensors."""
    payloads = ((stored.chain, stored.payload) for stored in tensors)
    cuts = [edit(p.start, p.stop, b"", (*chain, p)) for chain, p in payloads if p]
    out = io.BytesIO()
    write(wire, cuts, out)
    return out.getvalue()


def _absolute(folder: Path) -> Path:
    return Path(os.path.abspath(folder))


def _tensors(wire: Wire) -> list[tuple[Place, StoredTensor]]:
    """The tensors that may have holes."""
    found = walk(wire, MIN_PAYLOAD_BYTES)
    return [
        (place, StoredTensor(wire, chain)) for place, kind, chain in found if kind is TensorProto
    ]


def _places(
    proto: onnx.ModelProto, model: Model, weights: Collection[str]
) -> tuple[dict[Place, tuple[str, ...]], dict[str, TiedPlace]]:
    """Where in a parsed model the weights are, by the messages that decoding has returned."""
    own = {n: m for n in weights if n not in model.ties and (m := _holder(model, n)) is not None}
    origins = {name: _holder(model, name) for name in model.ties}
    readers = {o: model.protos.get(o) for tie in model.ties.values() for o, _ in tie.readers}
    wanted = {id(m): m for m in (*own.values(), *origins.values(), *readers.values())}
    place_of = _places_of(proto, wanted)
    places: dict[Place, tuple[str, ...]] = {}
    for name, holder in own.items():
        if (place := place_of.get(id(holder))) is not None:
            places[place] = (*places.get(place, ()), name)
    ties = {}
    for name, tie in model.ties.items():
        nodes = [(place_of.get(id(readers[output])), i) for output, i in tie.readers]
        found = tuple((place, i) for place, i in nodes if place is not None)
        known = found if len(found) == len(nodes) else None
        place = place_of[id(origins[name])]
        ties[name] = TiedPlace(tie.origin, place, known, tie.together, name in weights)
    return places, ties


def _places_of(proto: onnx.ModelProto, wanted: Collection[int]) -> dict[int, Place]:
    """Where some messages of a parsed model are, by their ids."""
    found: dict[int, Place] = {}
    for place, message in messages(proto) if wanted else ():
        if id(message) in wanted:
            found[id(message)] = place
            if len(found) == len(wanted):
                break
    return found


def _holder(model: Model, name: str) -> Message | None:
    """The message with the data of a weight; None for numbers that a call passes to a function."""
    stored = model.tensors[name]
    if not isinstance(stored, Node):
        return stored
    tensors = (v for v in stored.attributes.values() if isinstance(v, Message))
    attributes = (a for a in model.protos[name].attribute if not a.ref_attr_name)
    return next(tensors, next((a for a in attributes if a.type in NUMBER_TYPE), None))


def _check_same_graph(graph: Graph, other: Graph) -> None:
    for ours, theirs in zip_longest(graph.walk(), other.walk()):
        if ours is None or theirs is None or _node_fields(ours) != _node_fields(theirs):
            label = next(node.name for node in (ours, theirs) if node is not None)
            raise SaveError(f"like= must be a file of the same graph, it differs at {label!r}")


def _node_fields(node: Node) -> tuple[object, ...]:
    """The fields of a node, except its tensors and subgraphs."""
    plain = (int, float, str)
    attributes = {
        name: repr(value)  # nan equals nan
        for name, value in node.attributes.items()
        if isinstance(value, plain)
        or (isinstance(value, list) and all(isinstance(v, plain) for v in value))
    }
    return (node.op_type, node.domain, node.inputs, node.outputs, attributes)

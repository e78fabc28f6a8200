"""What a module keeps of its source: the bytes of the model without its weights.

    Template       the bytes, and where in them each weight belongs
    template       of a source that was just read
    template_of    of another file of the same graph

A module that has this instead of its source can be copied, pickled, and saved when its file is
gone. What is cut out are payloads of 1 KB and more that are, bit for bit, what the weight would be
written as. Everything else stays as it is, also tensors that the module does not use.
"""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import onnx
from google.protobuf.message import Message
from onnx import TensorProto
from torch import Tensor

from onnxinterp.errors import InvalidModelError, SaveError
from onnxinterp.format.files import Folder
from onnxinterp.format.tensor_reader import TensorReader
from onnxinterp.format.wire import Chain, Place, Wire, edit, has_pieces, messages, walk, write
from onnxinterp.graph.build import build
from onnxinterp.graph.ir import Graph, Model, Node
from onnxinterp.graph.ties import untie_weights
from onnxinterp.limits import Limits
from onnxinterp.reading import source as reading
from onnxinterp.registry import Kernel
from onnxinterp.weights import Weights
from onnxinterp.writing.tensor_edits import NUMBERS, Stored

CUT = 1024  # bytes from which a payload is not kept
AGAIN = "name a file of the same graph: save_onnx(path, like=...)"


class Tied(NamedTuple):
    """Where the file has a weight that shares the tensor of another (`graph.Tie`).

    Attributes:
        origin: the name it is read under.
        place: of the tensor.
        readers: places of the nodes that read it, and which input; None for the Identity that
            makes it. None in all where one stands in a function.
        together: as in `Tie`.
        held: whether it is a weight of the module, not of a part that `outputs=` has cut off.
    """

    origin: str
    place: Place
    readers: tuple[tuple[Place, int | None], ...] | None
    together: bool
    held: bool

    @property
    def places(self) -> set[Place]:
        """Of the tensor and of the readers."""
        return {self.place, *(place for place, _ in self.readers or ())}


@dataclass
class Template:
    """A model but for its weights.

    Attributes:
        wire: its bytes, with holes where weights belong; None where there are none, because the
            source was a ModelProto of more than 2 GB.
        places: where in them -> the names of the weights that stand there; a tensor in a function
            that is called twice may be two weights.
        ties: the weights that share a tensor with one of these.
        fixed: weights that no file holds, as constants of an operator's meaning, as they were.
        folder: where external data lie; None where the model came without a path.
        data_root: within which they may be behind links.
        sizes: location -> bytes of external data when they were opened.
        names_files: whether new files of external data have the names that the bytes give them; a
            checkpoint, which is one file, does not choose names of others.
    """

    wire: Wire | None
    places: dict[Place, tuple[str, ...]]
    ties: dict[str, Tied]
    fixed: dict[str, Tensor]
    folder: Path | None
    sizes: dict[str, int] = field(default_factory=dict)
    data_root: Path | None = None
    names_files: bool = True

    def opened(self) -> Folder | None:
        """The folder of external data, opened; None where there is none any more."""
        if self.folder is None:
            return None
        try:
            return Folder(self.folder, self.data_root)
        except OSError:
            return None

    def external(self, location: str, needed_by: str | None) -> Folder | None:
        """The folder of a file of external data; None where it is gone and not needed.

        Args:
            location: its name.
            needed_by: a tensor in it that the module does not hold.

        Raises:
            SaveError: it is gone, but needed.
            UnsafeModelError: it is outside the folder, or behind a link.
        """
        folder = self.opened()
        if folder is not None and folder.has(location):
            return folder
        if needed_by is None:
            return None
        raise SaveError(
            f"the external data {location!r} of the source are gone, and the module does not hold "
            f"all that is in them ({needed_by!r}); {AGAIN}"
        )


def template(
    content: reading.Content,
    proto: onnx.ModelProto,
    model: Model,
    weights: Weights,
    reader: TensorReader,
) -> Template:
    """What a module keeps of its source.

    Args:
        content: the bytes of the model; None where it came parsed.
        proto: the model, parsed.
        model: the model, decoded from `proto`.
        weights: what was read of it.
        reader: what read it.
    """
    places, ties = _places(proto, model, weights)
    homeless = weights.keys() - ties.keys() - {n for names in places.values() for n in names}
    fixed = {name: weights[name].detach().clone() for name in homeless}
    if isinstance(content, Wire):
        return Template(content, places, ties, fixed, None, reader.sizes, names_files=False)
    try:
        data = reading.serialized(proto) if content is None else content
    except InvalidModelError:
        return Template(None, places, ties, fixed, None)
    wire = Wire([(0, data)], len(data))
    if content is not None and proto.ByteSize() != len(content) and has_pieces(wire):
        data = reading.serialized(proto)  # a tensor in pieces has no place to be written to
        wire = Wire([(0, data)], len(data))
    asked_later = {tie.place for tie in ties.values() if not tie.held}
    holes = []
    for place, chain in _tensors(wire, CUT):
        stored = Stored(wire, chain)
        payload = stored.payload if place in places and place not in asked_later else None
        if payload is None or payload.stop - payload.start < CUT:
            continue
        if stored.is_spelled(weights[places[place][0]]):
            holes.append((payload.start, payload.stop))
    bytes_kept, folder, root = wire.without(holes), reader.folder, None
    if folder is None:
        return Template(bytes_kept, places, ties, fixed, None, reader.sizes)
    if folder.data_root is not None:
        root = folder.data_root.path
    return Template(
        bytes_kept, places, ties, fixed, _absolute(folder.path), reader.sizes, _absolute(root)
    )


def template_of(
    like: reading.Source,
    graph: Graph,
    kernels: Mapping[str, Kernel],
    untie: bool | list[str],
    weights: Iterable[str],
    fixed: dict[str, Tensor],
    limits: Limits,
) -> Template:
    """A template of another file of the same graph.

    Args:
        like: the file.
        graph: the module's graph.
        kernels: those that take precedence in the module.
        untie: what was asked for by it.
        weights: the names of the module's weights.
        fixed: those of them that no file holds.
        limits: those of the module.

    Raises:
        SaveError: it is another graph.
        InvalidModelError: it is no model.
    """
    like = reading.reusable(like)
    data = reading.content_of(like)
    wire = Wire([(0, data)], len(data))
    if has_pieces(wire):
        data = reading.serialized(reading.read(like, limits, kernels=kernels).proto)
        wire = Wire([(0, data)], len(data))
    # parsed without the memory that its tensors would take
    bare = _bare(wire, (Stored(wire, chain) for _, chain in _tensors(wire, CUT)))
    proto = reading.read(bare, limits, kernels=kernels).proto
    model = untie_weights(build(proto, kernels, limits), untie)
    _refuse_another(graph, model.graph.pruned(graph.outputs))
    places, ties = _places(proto, model, [name for name in weights if name in model.tensors])
    folder = Path(like).parent if isinstance(like, (str, os.PathLike)) else None
    return Template(wire, places, ties, fixed, _absolute(folder))


def without_holes(wire: Wire) -> tuple[bytes, set[Place]]:
    """The bytes of a model whose tensors are empty where their data are in holes.

    Returns:
        The bytes, and the places of these tensors.

    Raises:
        InvalidModelError: other bytes are missing, too.
    """
    try:
        tensors = ((place, Stored(wire, chain)) for place, chain in _tensors(wire, CUT))
        empty = {place: stored for place, stored in tensors if not stored.is_here}
        return _bare(wire, empty.values()), set(empty)
    except KeyError as error:
        raise InvalidModelError(f"the template lacks byte {error}, not of a tensor") from error


def _bare(wire: Wire, tensors: Iterable[Stored]) -> bytes:
    """The bytes of a model without the data of some tensors."""
    payloads = ((stored.chain, stored.payload) for stored in tensors)
    cuts = [edit(p.start, p.stop, b"", (*chain, p)) for chain, p in payloads if p]
    out = io.BytesIO()
    write(wire, cuts, out)
    return out.getvalue()


def _absolute(folder: Path | None) -> Path | None:
    return None if folder is None else Path(os.path.abspath(folder))


def _tensors(wire: Wire, at_least: int) -> Iterator[tuple[Place, Chain]]:
    found = walk(wire, at_least)
    return ((place, chain) for place, kind, chain in found if kind is TensorProto)


def _places(
    proto: onnx.ModelProto, model: Model, weights: Collection[str]
) -> tuple[dict[Place, tuple[str, ...]], dict[str, Tied]]:
    """Where in a parsed model the weights stand, each in a message that decoding has handed on."""
    own = {n: m for n in weights if n not in model.ties and (m := _holder(model, n)) is not None}
    origins = {name: _holder(model, name) for name in model.ties}
    readers = {o: model.protos.get(o) for tie in model.ties.values() for o, _ in tie.readers}
    wanted = {id(m): m for m in (*own.values(), *origins.values(), *readers.values())}
    place_of = {id(message): place for place, message in messages(proto) if id(message) in wanted}
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
        ties[name] = Tied(tie.origin, place, known, tie.together, name in weights)
    return places, ties


def _holder(model: Model, name: str) -> Message | None:
    """The message that has the data of a weight; None where it is numbers handed to a function."""
    stored = model.tensors[name]
    if not isinstance(stored, Node):
        return stored
    held = (v for v in stored.attributes.values() if isinstance(v, Message))
    spelled = (a for a in model.protos[name].attribute if a.type in NUMBERS and not a.ref_attr_name)
    return next(held, next(spelled, None))


def _refuse_another(graph: Graph, other: Graph) -> None:
    for ours, theirs in zip_longest(graph.walk(), other.walk()):
        if ours is None or theirs is None or _said(ours) != _said(theirs):
            label = next(node.name for node in (ours, theirs) if node is not None)
            raise SaveError(f"the file given as like= is another graph: it differs at {label!r}")


def _said(node: Node) -> tuple[object, ...]:
    """What a node says, but for its tensors and subgraphs."""
    plain = (int, float, str)
    attributes = {
        name: repr(value)  # in which nan is like nan
        for name, value in node.attributes.items()
        if isinstance(value, plain)
        or (isinstance(value, list) and all(isinstance(v, plain) for v in value))
    }
    return (node.op_type, node.domain, node.inputs, node.outputs, attributes)

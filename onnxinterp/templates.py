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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import onnx
import torch
from google.protobuf.message import Message
from onnx import TensorProto
from torch import Tensor

from onnxinterp import loading
from onnxinterp.building import build
from onnxinterp.editing import NUMBERS, Stored
from onnxinterp.errors import InvalidModelError, SaveError
from onnxinterp.graph import Graph, Model, Node
from onnxinterp.loading import TensorReader
from onnxinterp.registry import Kernel
from onnxinterp.weights import Weights
from onnxinterp.wire import Chain, Place, Wire, edit, messages, walk, write

CUT = 1024  # bytes from which a payload is not kept


@dataclass
class Template:
    """A model but for its weights.

    Attributes:
        wire: its bytes, with holes where weights belong; None where there are none, because the
            source was a ModelProto of more than 2 GB.
        places: where in them -> the names of the weights that stand there; a tensor in a function
            that is called twice may be two weights.
        fixed: weights that no file holds, as constants of an operator's meaning, as they were.
        folder: where external data lie; None where the model came without a path.
        sizes: location -> bytes of external data when they were opened.
    """

    wire: Wire | None
    places: dict[Place, tuple[str, ...]]
    fixed: dict[str, Tensor]
    folder: Path | None
    sizes: dict[str, int] = field(default_factory=dict)

    def plain(self) -> dict[str, Any] | None:
        """The bytes and places as numbers, names and tensors; None where there are no bytes."""
        if self.wire is None:
            return None
        return {
            "starts": [start for start, _ in self.wire.pieces],
            "pieces": [
                torch.frombuffer(bytearray(piece), dtype=torch.uint8)
                for _, piece in self.wire.pieces
            ],
            "size": self.wire.size,
            "places": self.places,
            "sizes": self.sizes,
        }

    def filled(self, plain: dict[str, Any] | None) -> Template:
        """This template with the bytes and places that another gave as `plain`."""
        if plain is None:
            return self
        pieces = [piece.numpy().tobytes() for piece in plain["pieces"]]
        wire = Wire(list(zip(plain["starts"], pieces, strict=True)), plain["size"])
        return Template(wire, plain["places"], self.fixed, None, plain["sizes"])


def template(
    content: loading.Content,
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
    places = _places(proto, model, weights)
    homeless = weights.keys() - {name for names in places.values() for name in names}
    fixed = {name: weights[name].detach().clone() for name in homeless}
    try:
        data = loading.serialized(proto) if content is None else content
    except InvalidModelError:
        return Template(None, places, fixed, None)
    wire = Wire([(0, data)], len(data))
    holes = []
    for place, chain in _tensors(wire, CUT):
        stored = Stored(wire, chain)
        payload = stored.payload if place in places else None
        if payload is None or payload.stop - payload.start < CUT:
            continue
        if stored.is_spelled(weights[places[place][0]]):
            holes.append((payload.start, payload.stop))
    return Template(wire.without(holes), places, fixed, _absolute(reader.folder), reader.sizes)


def template_of(
    like: loading.Source,
    graph: Graph,
    kernels: Mapping[str, Kernel],
    weights: Iterable[str],
    fixed: dict[str, Tensor],
) -> Template:
    """A template of another file of the same graph.

    Args:
        like: the file.
        graph: the module's graph.
        kernels: those that take precedence in the module.
        weights: the names of the module's weights.
        fixed: those of them that no file holds.

    Raises:
        SaveError: it is another graph.
        InvalidModelError: it is no model.
    """
    like = loading.reusable(like)
    data = loading.content_of(like)
    wire = Wire([(0, data)], len(data))
    proto = loading.read(_bare(wire))[0]
    model = build(proto, kernels)
    _refuse_another(graph, model.graph.pruned(graph.outputs))
    places = _places(proto, model, [name for name in weights if name in model.tensors])
    folder = Path(like).parent if isinstance(like, (str, os.PathLike)) else None
    return Template(wire, places, fixed, _absolute(folder))


def _bare(wire: Wire) -> bytes:
    """A model that can be parsed without the memory its tensors would take."""
    cuts = [
        edit(payload.start, payload.stop, b"", (*chain, payload))
        for _, chain in _tensors(wire, CUT)
        if (payload := Stored(wire, chain).payload)
    ]
    out = io.BytesIO()
    write(wire, cuts, out)
    return out.getvalue()


def _absolute(folder: Path | None) -> Path | None:
    return None if folder is None else Path(os.path.abspath(folder))


def _tensors(wire: Wire, at_least: int) -> Iterator[tuple[Place, Chain]]:
    found = walk(wire, at_least)
    return ((place, chain) for place, kind, chain in found if kind is TensorProto)


def _places(
    proto: onnx.ModelProto, model: Model, names: Iterable[str]
) -> dict[Place, tuple[str, ...]]:
    """Where in a parsed model the weights stand, each in a message that decoding has handed on."""
    holders: dict[int, tuple[Message, list[str]]] = {}
    for name in names:
        if (holder := _holder(model, name)) is not None:
            holders.setdefault(id(holder), (holder, []))[1].append(name)
    places: dict[Place, tuple[str, ...]] = {}
    for place, message in messages(proto):
        if len(places) == len(holders):
            break
        if id(message) in holders:
            places[place] = tuple(holders[id(message)][1])
    return places


def _holder(model: Model, name: str) -> Message | None:
    """The message that has the data of a weight; None where it is numbers handed to a function."""
    stored = model.tensors[name]
    if not isinstance(stored, Node):
        return stored
    held = (v for v in stored.attributes.values() if isinstance(v, Message))
    spelled = (
        a for a in model.constants[name].attribute if a.type in NUMBERS and not a.ref_attr_name
    )
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

"""The layers of a graph: a tree of the torch modules that were called, with nodes between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

import onnx

from onnxinterp.errors import InvalidModelError
from onnxinterp.graph.ir import ValueInfo, value_info
from onnxinterp.graph.scopes import classes_of
from onnxinterp.planning.scoping import Chain
from onnxinterp.writing.template import Template, without_holes

Shape: TypeAlias = "tuple[int | str | None, ...]"
N = TypeVar("N")


@dataclass
class Layer(Generic[N]):
    """One call of a torch module.

    Attributes:
        path: of the module; a second call has `@` and a number.
        nodes: all nodes (or steps) in it, those of inner layers among them.
        parts: inner layers, and the nodes outside of them, in order.
        inner: path -> layer, of the inner layers.
    """

    path: str
    nodes: list[N] = field(default_factory=list)
    parts: list[Layer[N] | N] = field(default_factory=list)
    inner: dict[str, Layer[N]] = field(default_factory=dict)

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Layer[N] | N]]:
        """Depth, and layer or node; a layer without inner ones stands for its nodes."""
        for part in self.parts:
            yield depth, part
            if isinstance(part, Layer) and part.inner:
                yield from part.walk(depth + 1)


def layers_of(nodes: Iterable[tuple[N, Chain]]) -> Layer[N]:
    """The tree of nodes, each with the paths of the modules around it; its root is the model."""
    root = Layer[N]("")
    for node, chain in nodes:
        layer = root
        layer.nodes.append(node)
        for path in chain:
            if path not in layer.inner:
                layer.inner[path] = Layer[N](path)
                layer.parts.append(layer.inner[path])
            layer = layer.inner[path]
            layer.nodes.append(node)
        layer.parts.append(node)
    return root


@dataclass
class Notes:
    """What a file says besides its graph.

    Attributes:
        classes: path of a torch module -> name of its class; "" is the model.
        values: name -> declared type and shape.
    """

    classes: dict[str, str] = field(default_factory=dict)
    values: dict[str, ValueInfo] = field(default_factory=dict)

    def shape_of(self, name: str) -> Shape | None:
        """The declared shape of a value; None where the file declares none."""
        return self.values[name].shape if name in self.values else None


def notes_of(template: Template) -> Notes:
    """Read what the file says, from the bytes that a module keeps of it."""
    notes = Notes()
    if template.wire is None:  # a ModelProto of more than 2 GiB
        return notes
    try:
        proto = onnx.ModelProto.FromString(without_holes(template.wire)[0])
    except InvalidModelError:  # a template from a checkpoint that lacks bytes
        return notes
    for node in (*proto.graph.node, *(n for f in proto.functions for n in f.node)):
        notes.classes |= classes_of(node)
    graph = proto.graph
    for info in (*graph.value_info, *graph.input, *graph.output):
        notes.values[info.name] = value_info(info)
    return notes

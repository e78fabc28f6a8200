"""The modules that are written: which layers, weights and modules each of them has.

A weight stands where the tree of the module has it. A body can use what lies inside of its module;
a weight of another module, which an exporter has tied, is named again where it is used, and the
root makes both one parameter.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from onnxinterp.programs.calls import Call, Value
from onnxinterp.python_source.bodies import Body, Layer, Recorded, reads_of

MAX_NAME_CHARS = 32
FEW = 8  # numbers of a constant that stand in the source


@dataclass(eq=False)
class Node:
    """A module that is written.

    Attributes:
        path: the attributes that lead to it.
        kind: the name of its class in the model it comes from.
        children: attribute -> module inside.
        layer: what it is, where it is one layer of torch.
        weights: attribute -> its own parameters and buffers.
        constants: attribute -> tensors that are the same in each call.
        bodies: what it computes; several where the model calls it in several parts.
    """

    path: tuple[str, ...]
    kind: str = ""
    children: dict[str, Node] = field(default_factory=dict)
    layer: nn.Module | None = None
    weights: dict[str, Tensor] = field(default_factory=dict)
    constants: dict[str, Tensor] = field(default_factory=dict)
    bodies: list[Body] = field(default_factory=list)

    def walk(self) -> Iterator[Node]:
        """This module and all inside, those inside first."""
        for child in self.children.values():
            yield from child.walk()
        yield self

    def height(self) -> int:
        """How many modules are inside each other."""
        return 1 + max([child.height() for child in self.children.values()], default=0)

    def at(self, path: tuple[str, ...]) -> Node:
        """The module at a path below this one; it is made where there is none."""
        node = self
        for depth, name in enumerate(path):
            if name not in node.children:
                node.children[name] = Node((*node.path, *path[depth : depth + 1]))
            node = node.children[name]
        return node

    def free_name(self, name: str) -> str:
        """A name that no attribute has yet."""
        taken = {*self.children, *self.weights, *self.constants}
        found, number = name, 1
        while found in taken:
            number += 1
            found = f"{name}_{number}"
        return found


def identifier(name: str) -> str:
    """A name as an attribute of a module; a number stays one."""
    if name.isdigit():
        return name
    name = re.sub(r"\W+", "_", name, flags=re.ASCII)[-MAX_NAME_CHARS:].strip("_") or "weight"
    if name[0].isdigit():
        name = f"weight_{name}"
    is_taken = keyword.iskeyword(name) or hasattr(nn.Module(), name)
    return f"{name}_" if is_taken else name


class Tree:
    """All modules that are written.

    Attributes:
        root: the outermost.
        ties: path of a weight -> path of the one that it is.
        stored: path of a weight or constant in the file -> tensor.
    """

    def __init__(self, recorded: Recorded, kinds: Mapping[str, str]) -> None:
        self.root = Node(())
        self.ties: dict[str, str] = {}
        self._recorded = recorded
        self._layers: dict[Layer, tuple[str, ...]] = {}
        self._paths = {v: _weight_path(path) for v, (path, _) in recorded.weights.items()}
        self._places: dict[Value, tuple[str, ...]] = {}
        self._held: dict[tuple[str, ...], Value] = {}  # of layers
        self._aliases: dict[tuple[tuple[str, ...], Value], str] = {}
        self.calls: dict[Body, list[Call]] = {}
        bodies = list(recorded.body.from_outside())
        for body in bodies:
            node = self._node(body)
            if body.is_subgraph:
                continue
            node.bodies.append(body)
            node.kind = kinds.get(body.path, "")
        bodies_of_layers = [b for b in bodies if _is_layer(b) and not b.is_subgraph]
        for body in (*bodies_of_layers, *[b for b in bodies if b not in bodies_of_layers]):
            self._place_layers(body)
        self._collapse()
        for body in bodies:
            self._place_tensors(body)

    def _node(self, body: Body) -> Node:
        return self.root.at(_path(body.path))

    def _place_layers(self, body: Body) -> None:
        """Find the places of the layers of a body; those without one become what they call."""
        self.calls[body] = []
        for call in body.calls:
            layer = call.function
            if isinstance(layer, Layer) and not self._find_place(body, layer):
                self.calls[body] += layer.calls
            else:
                self.calls[body].append(call)

    def _find_place(self, body: Body, layer: Layer) -> bool:
        around = _path(body.path)
        if not layer.weights:
            self._node(body).layer = layer.module
            self._layers[layer] = around
            return True
        places = {self._paths[v][:-1] for v in layer.weights.values()}
        fits = all(self._paths[v][-1] == name for name, v in layer.weights.items())
        place = next(iter(places)) if len(places) == 1 and fits else around
        is_itself = (
            bool(around) and not body.is_subgraph and self._is_layer(self._node(body), layer)
        )
        if is_itself and place[: len(around)] != around:
            place = around
        if place == around and not is_itself:
            if any(v in self._places for v in layer.weights.values()):
                return False
            name = type(layer.module).__name__.lower()
            place = (*around, self._node(body).free_name(f"{name}_1"))
        if place[: len(around)] != around:
            return False
        node = self.root.at(place)
        if node.layer is not None and repr(node.layer) != repr(layer.module):
            return False
        wanted: dict[tuple[str, ...], Value] = {
            (*place, name): v for name, v in layer.weights.items()
        }
        if any(self._places.get(v, at) != at for at, v in wanted.items()):
            return False
        if any(self._held.get(at, v) is not v for at, v in wanted.items()):
            return False
        if node.children or not self._is_layer(node, layer):
            return False
        node.layer = layer.module
        self._layers[layer] = place
        self._places.update((v, at) for at, v in wanted.items())
        self._held.update(wanted)
        return True

    def _is_layer(self, node: Node, layer: Layer) -> bool:
        """Whether a module does nothing else than to call one layer, with the same weights."""
        return all(
            _is_layer(body) and getattr(body.calls[0].function, "weights", None) == layer.weights
            for body in node.bodies
        )

    def _collapse(self) -> None:
        """Make modules that do nothing else than to call one layer that layer."""
        for node in self.root.walk():
            if node.layer is not None:
                node.bodies = []

    def _place_tensors(self, body: Body) -> None:
        """Find the places of weights and constants that calls read themselves."""
        if self._node(body).layer is not None:
            return
        read = [v for call in self.calls[body] for v in reads_of(call)]
        read += [v for v in body.outputs if isinstance(v, Value)]
        for value in dict.fromkeys(read):
            if value in self._recorded.constants:
                self._place_constant(body, value)
            elif value in self._paths:
                self._place_weight(body, value)

    def _place_constant(self, body: Body, value: Value) -> None:
        node, tensor = self._node(body), self._recorded.constants[value]
        if (node.path, value) not in self._aliases:
            same = [name for name, other in node.constants.items() if _is_same(tensor, other)]
            name = same[0] if same else node.free_name("constant")
            node.constants[name] = tensor
            self._aliases[node.path, value] = name

    def _place_weight(self, body: Body, value: Value) -> None:
        node, around = self._node(body), _path(body.path)
        place = self._places.get(value, self._paths[value])
        if place[: len(around)] == around and value not in self._places:
            holder = self.root.at(place[:-1])
            if holder.layer is None:
                name = holder.free_name(place[-1])
                holder.weights[name] = self._recorded.weights[value][1]
                self._places[value] = (*place[:-1], name)
                return
        elif place[: len(around)] == around:
            return
        if (around, value) not in self._aliases:
            name = node.free_name(place[-1])
            node.weights[name] = self._recorded.weights[value][1]
            self._aliases[around, value] = name
            if value in self._places:
                self.ties[".".join((*around, name))] = ".".join(self._places[value])
            else:
                self._places[value] = (*around, name)

    def module(self, body: Body, function: Any) -> str:
        """The expression of a module inside a body's, or of a layer."""
        around = _path(body.path)
        place = self._layers[function] if isinstance(function, Layer) else _path(function.path)
        method = ""
        if isinstance(function, Body):
            bodies = self.root.at(place).bodies
            number = bodies.index(function) if function in bodies else 0
            method = f".part_{number + 1}" if number else ""
        return "self" + self._access(around, place) + method

    def tensor(self, body: Body, value: Value) -> str | None:
        """The expression of a weight or a constant."""
        around = _path(body.path)
        if (around, value) in self._aliases:
            return f"self.{self._aliases[around, value]}"
        place = self._places.get(value)
        return None if place is None else "self" + self._access(around, place)

    def _access(self, around: tuple[str, ...], place: tuple[str, ...]) -> str:
        text, node = "", self.root.at(around)
        for name in place[len(around) :]:
            text += f"[{name}]" if name.isdigit() else f".{name}"
            node = node.children.get(name, node)
        return text

    def stored(self) -> dict[str, Tensor]:
        """Path of each weight and constant -> tensor, as the file of weights has them.

        A tied weight is there under each of its paths, as in the state of the network.
        """
        found: dict[str, Tensor] = {}
        for value, place in self._places.items():
            if value in self._recorded.weights:
                found[".".join(place)] = self._recorded.weights[value][1]
        for node in self.root.walk():
            for name, tensor in node.constants.items():
                if tensor.numel() > FEW and not is_uniform(tensor):
                    found[".".join((*node.path, name))] = tensor
        return found | {alias: found[path] for alias, path in self.ties.items()}


def is_uniform(tensor: Tensor) -> bool:
    """Whether a constant is one number, many times."""
    is_plain = tensor.dtype in (torch.float32, torch.float64, torch.int64, torch.bool)
    return tensor.numel() > FEW and is_plain and _is_all(tensor, tensor.flatten()[0])


def _is_all(tensor: Tensor, number: Tensor) -> bool:
    """Whether all elements are a number; 0 is not -0."""
    return bool((tensor == number).all() and (tensor.signbit() == number.signbit()).all())


def _is_same(tensor: Tensor, other: Tensor) -> bool:
    """Whether constants are the same, bit by bit."""
    if (tensor.shape, tensor.dtype, tensor.device) != (other.shape, other.dtype, other.device):
        return False
    if tensor.numel() and 0 in tensor.stride() + other.stride() and is_uniform(tensor):
        return is_uniform(other) and _is_all(tensor.flatten()[0], other.flatten()[0])
    pair = [t.clone(memory_format=torch.contiguous_format) for t in (tensor, other)]
    return torch.equal(*[t.view(-1).view(torch.uint8) for t in pair])


def _is_layer(body: Body) -> bool:
    """Whether a body calls one layer, and nothing else."""
    call = body.layer_call()
    return call is not None and call.args == tuple(body.inputs)


def _weight_path(path: str) -> tuple[str, ...]:
    """The attributes of the path of a weight, whose own name is no number."""
    *around, name = _path(path)
    return (*around, f"weight_{name}" if name.isdigit() else name)


def _path(path: str) -> tuple[str, ...]:
    """The attributes of a path."""
    return tuple(map(identifier, path.split("."))) if path else ()

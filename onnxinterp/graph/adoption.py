"""Weights under the names and in the layouts of the torch module that was exported.

torch's exporters rename the weights that they transpose, pack or merge: "val_13", "onnx::LSTM_396".
Which torch module a node came from is known (`scopes`), and kernel files say which of its weights
an input is (`torch_weights`). An `Adoption` says how the tensors of the file are made of weights:

    file                            weights                           layout
    val_13 [in, out]                enc.fc.weight [out, in]           transposed
    onnx::LSTM_396 [1, 4 h, in]     lstm.weight_ih_l0 [4 h, in]       weights_4_1
    head.weight, read by `emb`      head.weight, emb.weight           as it is: one parameter
    val_99 = head.weight.t()        head.weight                       transposed: tied again

`adopt` finds it, `rewrite` makes the graph read the weights, through a node where the layout
differs. A name that torch gave is kept; what is not known to be a weight of a module keeps its own.
"""

from __future__ import annotations

import glob
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor

from onnxinterp.format.memory import Reuse
from onnxinterp.graph.equality import Equals
from onnxinterp.graph.ir import Graph, Model, Node
from onnxinterp.graph.scopes import are_separate, differ_in_numbers, is_torch_name
from onnxinterp.graph.uses import Use, uses_of
from onnxinterp.torch_weights import LAYOUTS

TRANSPOSED = "transposed"  # the layout of tensors that are tied to their transpose
MAX_TESTED_ELEMENTS = 4096  # of a tensor without a name; a larger one is no constant
MAX_COPIED_NAME_CHARS = 256  # characters of a name that names of read values keep
Place: TypeAlias = "tuple[str, int]"
"""An input of a node: its first output, and the index."""


class Choices(NamedTuple):
    """What a user, or a checkpoint, decides about the weights.

    Attributes:
        tie: whether large tensors of equal data become one parameter.
        untied: escaped names of tensors that are never tied by their data, or a bool.
        known: names of tensors that are weights even if they repeat one number.
        shared: the only tensors that may be tied by their data; None for all.
    """

    tie: bool = True
    untied: bool | Collection[str] = True
    known: Collection[str] = ()
    shared: Collection[str] | None = None


class Stored(NamedTuple):
    """What a tensor of the file is made of.

    Attributes:
        layout: the name of a `torch_weights.Layout`; "" for a tensor that is a weight as it is.
        names: of the weights.
    """

    layout: str
    names: tuple[str, ...]


NO_CHOICES = Choices()


@dataclass(frozen=True)
class Adoption:
    """How the tensors of a file are made of the weights of a module.

    Attributes:
        stored: tensor of the file -> what it is made of; in the order of the file.
        tied: further name of a weight -> its first name.
        reads: the inputs that read a tensor by other names than those in `stored`.
    """

    stored: dict[str, Stored] = field(default_factory=dict)
    tied: dict[str, str] = field(default_factory=dict)
    reads: dict[Place, Stored] = field(default_factory=dict)

    def weights(
        self, tensors: dict[str, Tensor], reusable: Collection[str] = ()
    ) -> dict[str, Tensor]:
        """The weights under all their names, made of the tensors of the file, which are used up.

        Args:
            tensors: those of the file.
            reusable: names of those whose memory may be written to.
        """
        found: dict[str, Tensor] = {}
        split = [n for n, (layout, _) in self.stored.items() if layout and n in reusable]
        reuse = Reuse(max((tensors[name].nbytes for name in split), default=0))
        for origin, (layout, names) in self.stored.items():
            tensor = tensors.pop(origin)
            if all(name in found or name in self.tied for name in names):
                continue
            if not layout:
                parts: tuple[Tensor, ...] = (tensor,)
            elif origin in reusable:
                parts = reuse.split(tensor, LAYOUTS[layout].split)
            else:
                parts = tuple(part.contiguous() for part in LAYOUTS[layout].split(tensor))
            found.update(zip(names, parts, strict=True))
        return found | {name: found[first] for name, first in self.tied.items()}

    def shared(self) -> list[str]:
        """The tensors that are made of a weight of which another one is made, too."""
        readers = defaultdict[str, list[str]](list)
        for origin, stored in self.stored.items():
            for name in stored.names:
                readers[self.tied.get(name, name)].append(origin)
        return [origin for origins in readers.values() if len(origins) > 1 for origin in origins]

    def origins(self) -> dict[str, str]:
        """Name of a weight -> a tensor of the file that has its elements."""
        found: dict[str, str] = {}
        for origin, stored in self.stored.items():
            for name in stored.names:
                found.setdefault(name, origin)
        return found | {name: found[first] for name, first in self.tied.items()}


def adopt(
    model: Model,
    graph: Graph,
    tensors: Mapping[str, Tensor],
    read: Callable[[str], Tensor | None],
    choices: Choices = NO_CHOICES,
) -> Adoption:
    """Find the weights of the torch module in the tensors of a file.

    Args:
        model: the decoded model.
        graph: its main graph, pruned.
        tensors: those that the graph reads; their data are not used.
        read: returns the data of one of them; None where they cannot be read.
        choices: what is decided already.
    """
    finder = _Finder(graph, tensors, read, choices.known)
    finder.find(guess=False)
    if choices.tie:
        apart = _apart(model, tensors, choices.untied)
        others = () if choices.shared is None else tensors.keys() - set(choices.shared)
        finder.tie(apart.union(others))
    finder.find(guess=True)
    stored = {name: finder.stored.get(name, Stored("", (name,))) for name in tensors}
    tied = {name: finder.first(name) for name in finder.tied}
    return Adoption(stored, tied, finder.reads)


def _apart(model: Model, tensors: Iterable[str], untied: bool | Collection[str]) -> set[str]:
    """The tensors that are not tied by their data: the user has untied them, or their names tell.

    The older exporter also writes an Identity for a weight that it has transposed twice.
    """
    asked = frozenset(() if isinstance(untied, bool) else untied)
    apart = set(filter(is_torch_name, model.ties))
    if asked:
        origins = {name: tie.origin for name, tie in model.ties.items()}
        apart |= {
            n for n in tensors if not asked.isdisjoint(map(glob.escape, (n, origins.get(n, n))))
        }
    return apart


def torch_names(names: Any, stored: Mapping[str, Stored]) -> Any:
    """Patterns, with the weights in place of a name that a tensor has in the file."""
    if callable(names):
        return names
    given = (names,) if isinstance(names, str) else tuple(names)
    if stored.keys().isdisjoint(given):
        return names
    return [
        pattern
        for name in given
        for pattern in (map(glob.escape, stored[name].names) if name in stored else (name,))
    ]


class _Finder:
    """Collects how tensors are made of weights, tensor by tensor."""

    def __init__(
        self,
        graph: Graph,
        tensors: Mapping[str, Tensor],
        read: Callable[[str], Tensor | None],
        known: Collection[str],
    ) -> None:
        nodes = list(graph.walk())
        graphs = [graph, *(g for node in nodes for g in node.subgraphs.values())]
        fixed = {i.name for g in graphs for i in (*g.inputs, *g.outputs)}
        self.tensors = {
            n: t for n, t in tensors.items() if t.ndim and t.is_floating_point() and n not in fixed
        }
        self.named = set(filter(is_torch_name, self.tensors))
        self.read = read
        self.known = known
        self.taken = {o for node in nodes for o in node.outputs}.union(fixed, tensors)
        self.uses = defaultdict[str, list[Use]](list)
        for use in uses_of(nodes, self.tensors, self.named):
            self.uses[use.tensor].append(use)
        self.stored: dict[str, Stored] = {}
        self.tied: dict[str, str] = {}
        self.reads: dict[Place, Stored] = {}

    def first(self, name: str) -> str:
        """The first name of a weight."""
        while name in self.tied:
            name = self.tied[name]
        return name

    def find(self, guess: bool) -> None:
        """Give names of torch to tensors that have none, and further names to those that have.

        Args:
            guess: whether the names are guessed; the others come first.
        """
        for origin, every in self.uses.items():
            uses = [use for use in every if use.is_guess == guess]
            is_named = origin in self.named
            if (is_named and not guess) or (not is_named and self._adopt(origin, uses)):
                self._share(origin, uses)

    def _adopt(self, origin: str, uses: list[Use]) -> bool:
        """Give a tensor the names of the first use whose names are free."""
        free = (use for use in uses if self._are_free(use.names))
        use = None if origin in self.stored else next(free, None)
        if use is None or self._is_constant(origin):
            return False
        self.taken.update(use.names)
        self.stored[origin] = Stored(use.layout, use.names)
        return True

    def _are_free(self, names: tuple[str, ...]) -> bool:
        return self.taken.isdisjoint(names) and len(set(names)) == len(names)

    def _is_constant(self, origin: str) -> bool:
        """Whether a tensor repeats one number, as exporters write it for a module without one."""
        if origin in self.known or self.tensors[origin].numel() > MAX_TESTED_ELEMENTS:
            return False
        if (value := self.read(origin)) is None:
            return True
        flat = value.reshape(-1) if value.itemsize > 1 else value.reshape(-1).float()
        return bool(flat[:1].equal(flat[-1:]) and (flat == flat[:1]).all())

    def _share(self, origin: str, uses: list[Use]) -> None:
        """Let each module that reads a parameter have it under a name of its own."""
        layout, names = self.stored.get(origin, Stored("", (origin,)))
        home = names[0].rpartition(".")[0]
        for use in uses:
            if use.layout != layout:
                continue
            is_others = self.tensors[origin].ndim == 2 and are_separate(use.node.scope, home)
            if self._are_free(use.names) and (is_others or origin in self.stored):
                self.taken.update(use.names)
                self.tied.update(zip(use.names, names, strict=True))
            same = use.names == names
            if not same and [*map(self.first, use.names)] == [*map(self.first, names)]:
                self.reads[use.place] = Stored(layout, use.names)

    def tie(self, apart: Collection[str]) -> None:
        """Make one parameter of large tensors with equal data."""
        equals = Equals()
        named = [n for n in self.tensors if n in self.stored or n in self.named]
        for origin in dict.fromkeys([*named, *self.tensors]):
            layout, names = self.stored.get(origin, Stored("", (origin,)))
            if origin in apart or layout not in ("", TRANSPOSED) or len(names) > 1:
                continue
            if (value := self.read(origin)) is None:
                continue
            value = value.t() if layout else value
            is_unnamed = origin not in self.stored and origin not in self.named
            other = None
            if is_unnamed and value.ndim == 2 and (other := equals.find(value.t())):
                layout = TRANSPOSED
            other = other or equals.find(value, origin)
            if other is not None and self._are_one(origin, other):
                self._tie(origin, other, layout)

    def _are_one(self, origin: str, other: str) -> bool:
        """Whether two tensors of equal data are one parameter.

        Layers that were copied before training differ in their numbers only.
        """
        scopes = [{use.node.scope for use in self.uses.get(n, ())} for n in (origin, other)]
        names = [self.stored.get(n, Stored("", (n,))).names[0] for n in (origin, other)]
        return not differ_in_numbers(*names) or not scopes[0].isdisjoint(scopes[1])

    def _tie(self, origin: str, other: str, layout: str) -> None:
        name = self.stored.get(other, Stored("", (other,))).names[0]
        if origin in self.named or origin in self.stored:
            own = self.stored.get(origin, Stored("", (origin,))).names[0]
            self.tied[self.first(own)] = self.first(name)
            return
        self.stored[origin] = Stored(layout, (name,))
        for use in self.uses.get(origin, ()):  # under the name that its module has for it
            if use.layout == layout and self.first(use.names[0]) == self.first(name):
                self.reads[use.place] = Stored(layout, use.names)


def rewrite(graph: Graph, adoption: Adoption) -> Graph:
    """The graph that reads the weights of an adoption in place of the tensors of the file."""
    renamed = {o: s for o, s in adoption.stored.items() if s != Stored("", (o,))}
    if not renamed and not adoption.reads:
        return graph
    taken = {o for node in graph.walk() for o in node.outputs}
    taken |= {i.name for g in graph.graphs() for i in g.inputs}
    taken.update(*(stored.names for stored in adoption.stored.values()))
    return _Rewriter(renamed, adoption.reads, taken.union(adoption.tied)).graph(graph)


class _Rewriter:
    """Rewrites a graph and its subgraphs.

    Args:
        renamed: tensor of the file -> what it is made of.
        reads: the same for single inputs.
        taken: names of values.
    """

    def __init__(
        self, renamed: Mapping[str, Stored], reads: Mapping[Place, Stored], taken: set[str]
    ) -> None:
        self.renamed = renamed
        self.reads = reads
        self.readers = {output for output, _ in reads}
        self.taken = taken
        self.copies = Counter[str]()

    def graph(self, graph: Graph) -> Graph:
        """The graph with other inputs of its nodes, and with nodes before these."""
        return replace(graph, nodes=tuple(new for node in graph.nodes for new in self._node(node)))

    def _node(self, node: Node) -> Iterator[Node]:
        reads = node.outputs[0] in self.readers or not self.renamed.keys().isdisjoint(node.inputs)
        if not reads and not node.subgraphs:
            yield node
            return
        inputs = list(node.inputs)
        for index, name in enumerate(node.inputs):
            stored = self.reads.get((node.outputs[0], index)) or self.renamed.get(name)
            if stored is None:
                continue
            if not stored.layout:
                inputs[index] = stored.names[0]
                continue
            inputs[index] = self._fresh(name)
            yield _joining(node, stored, inputs[index])
        attributes = {k: self.graph(g) for k, g in node.subgraphs.items()}
        if attributes or tuple(inputs) != node.inputs:
            node = replace(node, inputs=tuple(inputs), attributes={**node.attributes, **attributes})
        yield node

    def _fresh(self, name: str) -> str:
        """The name of the tensor, or one with a number behind it for its further readers."""
        unique = name
        while unique in self.taken:
            self.copies[name] += 1
            unique = f"{name[:MAX_COPIED_NAME_CHARS]}.{self.copies[name]}"
        self.taken.add(unique)
        return unique


def _joining(node: Node, stored: Stored, output: str) -> Node:
    """The node that computes the tensor of the file for one reader."""
    layout = LAYOUTS[stored.layout]
    kernel = layout.kernel
    return Node(
        op_type=kernel.op_type,
        domain=kernel.domain,
        name=output,
        opset=kernel.since,
        inputs=stored.names,
        outputs=(output,),
        attributes=dict(layout.attributes),
        kernel=kernel,
        scopes=node.scopes,
    )

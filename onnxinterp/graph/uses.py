"""Which tensors of a file the nodes of a graph read as weights of their torch modules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from typing import NamedTuple

from torch import Tensor

from onnxinterp.graph.ir import Node
from onnxinterp.graph.scopes import is_torch_name, is_within, path_of
from onnxinterp.torch_weights import TorchWeight, roles_of

WEIGHT, BIAS = "weight", "bias"


class Use(NamedTuple):
    """One reading of a tensor as a weight, or as several, of a torch module.

    Attributes:
        node: the node that reads it.
        input: index of the input.
        layout: of the tensor in the file.
        names: of the weights, with the path of the module.
        is_guess: whether it is not certain that the weight is of this module: other modules are in
            it, so it is no layer of torch, and may compute with the weight of another module.
    """

    node: Node
    input: int
    layout: str
    names: tuple[str, ...]
    is_guess: bool = False

    @property
    def tensor(self) -> str:
        """The name of the tensor in the file."""
        return self.node.inputs[self.input]

    @property
    def place(self) -> tuple[str, int]:
        """The first output of the node, and the index of the input."""
        return self.node.outputs[0], self.input


def uses_of(
    nodes: Sequence[Node], tensors: Mapping[str, Tensor], named: Collection[str] = ()
) -> Iterator[Use]:
    """The uses of tensors as weights of torch modules, in the order of the graph.

    Args:
        nodes: of a graph, also of subgraphs.
        tensors: those that may be weights.
        named: tensors that have their names: only matrices among them may have further ones.
    """
    has_scopes = any(node.scope for node in nodes)
    is_root = not has_scopes and any(node.scopes for node in nodes)
    finder = _Finder(nodes, tensors, frozenset(named), is_root)
    for node in nodes:
        yield from finder.uses(node)


class _Finder:
    """Follows the values of each module from its weights.

    Args:
        nodes: in order.
        tensors: those that may be weights.
        named: those that have their names.
        is_root: whether all nodes are of the root module itself.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        tensors: Mapping[str, Tensor],
        named: Set[str],
        is_root: bool,
    ) -> None:
        self.tensors = tensors
        self.named = named
        self.is_root = is_root
        around = {node.scopes for node in nodes}
        self.containers = {path_of(scope) for scopes in around for scope in scopes[:-1]}
        self.roles = {node.outputs[0]: found for node in nodes if (found := _roles(node, tensors))}
        self.weighted: dict[str, str] = {}  # value -> the module with weights that computes it
        self.layers: dict[str, dict[tuple[str, ...], int]] = defaultdict(dict)
        self.biases: dict[str, str] = {}  # value -> the bias that is added to it
        for node in nodes:
            for index, roles in self.roles.get(node.outputs[0], ()):
                name = node.inputs[index]
                if roles[0].names == (BIAS,) and roles[0].follows:
                    self.biases[node.inputs[1 - index]] = name

    def uses(self, node: Node) -> Iterator[Use]:
        """The uses of one node, the next one in order."""
        scope, found = node.scope, False
        for index, roles in self.roles.get(node.outputs[0], ()):
            name = node.inputs[index]
            shape = self.tensors[name].shape
            role = next((r for r in roles if r.fits(shape)), None)
            if role is None or (role.follows and not self._follows(node, index)):
                continue
            found = True
            if name in self.named and len(shape) != 2:
                continue
            sibling = self._sibling(node, index, role)
            if names := (sibling,) if sibling else self._names(node, role):
                is_guess = names[0].rpartition(".")[0] in self.containers
                yield Use(node, index, role.layout, names, is_guess)
        if found or self._passes(node):
            self.weighted[node.outputs[0]] = scope

    def _follows(self, node: Node, index: int) -> bool:
        """Whether the other input of a node was computed with weights of the same module."""
        others = [name for i, name in enumerate(node.inputs) if i != index]
        return len(others) == 1 and self.weighted.get(others[0]) == node.scope

    def _passes(self, node: Node) -> bool:
        """Whether a node works on one value that was computed with weights of its module."""
        values = [name for name in node.inputs if name in self.weighted]
        return len(values) == 1 and self.weighted[values[0]] == node.scope

    def _names(self, node: Node, role: TorchWeight) -> tuple[str, ...]:
        """The names of the weights; () where their module is not known."""
        if not node.scope and not self.is_root:
            return ()
        prefix = f"{node.scope}." if node.scope else ""
        number = self._layer(node) if "{k}" in role.names[0] else 0
        return tuple([prefix + name.format(k=number) for name in role.names])

    def _sibling(self, node: Node, index: int, role: TorchWeight) -> str:
        """The name of a weight beside a bias whose name is known, or the other way round."""
        own = role.names[0]
        if role.names not in ((WEIGHT,), (BIAS,)):
            return ""
        other = BIAS if own == WEIGHT else WEIGHT
        known = [
            node.inputs[i] for i, roles in self._others(node, index) if roles[0].names == (other,)
        ]
        if own == WEIGHT:
            known.append(self.biases.get(node.outputs[0], ""))
        for name in filter(is_torch_name, known):
            home, _, leaf = name.rpartition(".")
            if other in leaf and _is_inside(home, node.scope):
                before, _, behind = name.rpartition(other)
                return before + own + behind
        return ""

    def _others(self, node: Node, index: int) -> list[tuple[int, Sequence[TorchWeight]]]:
        return [pair for pair in self.roles[node.outputs[0]] if pair[0] != index]

    def _layer(self, node: Node) -> int:
        """The number of a layer of its module; calls of one layer read the same weights."""
        numbers = self.layers[node.scopes[-1] if node.scopes else ""]
        key = tuple(node.inputs[index] for index, _ in self.roles[node.outputs[0]])
        return numbers.setdefault(key, len(numbers))


def _is_inside(home: str, scope: str) -> bool:
    """Whether a module is another or in it; the older exporter leaves out modules of no call."""
    return not scope or is_within(home, scope) or home.endswith(f".{scope}")


def _roles(node: Node, tensors: Mapping[str, Tensor]) -> list[tuple[int, Sequence[TorchWeight]]]:
    """(index of an input that is a tensor, what it may be), of one node."""
    read = [i for i, name in enumerate(node.inputs) if name in tensors]
    if not read or node.kernel is None:
        return []
    rules = roles_of(node.domain, node.op_type, node.attributes)
    parameters = [(i, node.kernel.parameter(i)) for i in read] if rules else []
    return [(i, rules[p.name]) for i, p in parameters if p is not None and p.name in rules]

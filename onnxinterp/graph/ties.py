"""Ties between weights: those of the model are kept, an exporter's merges of equal values undone.

A weight that several nodes read is one parameter: that is how a model ties an embedding to its
head. But torch's exporters also merge tensors that only have equal values, as two LayerNorms have
before training, and then both would train as one. Three traces in the file show such a merge:

    Identity    The older exporter keeps one initializer, and an Identity of it has the name of the
                other. A weight that a model ties itself is read under one name, without Identity.
    scope       The newer exporter keeps one initializer and records the torch module of each node.
                A vector (rank 0 or 1) has the name of a parameter of one module, and another
                module, neither around nor inside the first, reads it: it was that module's own.
    state       A running variance of ones may be merged with the weight of ones beside it: a state
                that training updates is never a parameter.

    copies      Layers that were copied before training have equal matrices, too. Their modules
                differ in their numbers only: "layers.0.fc", "layers.1.fc".

Each merged tensor becomes a weight of its own, under its torch name where the file has it. Other
matrices that two modules read stay tied: they are hardly ever equal by chance.
"""

from __future__ import annotations

import glob
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import torch
from onnx import TensorProto
from torch import Tensor

from onnxinterp.dtypes import CARRIER
from onnxinterp.graph.ir import Graph, Model, Node, Tie
from onnxinterp.graph.scopes import are_separate, differ_in_numbers, is_torch_name, is_within
from onnxinterp.graph.uses import uses_of
from onnxinterp.patterns import select
from onnxinterp.torch_weights import roles_of

Untie: TypeAlias = "bool | str | Iterable[str] | Callable[[str], bool]"

MAX_UNNUMBERED_COPIES = 4  # weights of one name before they are numbered
MAX_NAME_CHARS = 512  # characters of a name that other names are derived from


class Use(NamedTuple):
    """One reading of an initializer: which input of which node, and the state it is there."""

    node: Node
    input: int
    state: str


def resolve_untie(untie: Untie, model: Model) -> bool | list[str]:
    """The argument `untie` as plain data, which files can store: names in place of a predicate.

    Raises:
        ValueError: a pattern matches no tensor of the model.
    """
    if isinstance(untie, bool):
        return untie
    aliases = (n.outputs[0] for n in model.graph.nodes if n.kernel and n.kernel.alias)
    names = {name: name for name in (*model.tensors, *aliases)}
    for use in uses_of(list(model.graph.walk()), _shells(model)):
        names.update((name, use.tensor) for name in use.names if name not in names)
    chosen = select(untie, names, "untie must match a tensor of the model")
    return [glob.escape(name) for name in dict.fromkeys(names[n] for n in chosen)]


def _shells(model: Model) -> dict[str, Tensor]:
    """The floating initializers, without their data."""
    return {
        name: torch.empty(tuple(stored.dims), device="meta")
        for name, stored in model.tensors.items()
        if isinstance(stored, TensorProto) and _trains(stored)
    }


def untie_weights(model: Model, untied: bool | Collection[str]) -> Model:
    """The model with a weight of its own for each tensor that an exporter merged into another.

    Args:
        model: a decoded model; not changed.
        untied: True for the merges that the file shows, False for none; or escaped names: these are
            untied wherever several nodes read them, also where the file shows nothing.
    """
    merged = _merged(model)
    if untied is False or not merged:
        return model
    asked = None if untied is True else frozenset(untied)
    if found := _identities(model, merged, asked):
        nodes = tuple(n for n in model.graph.nodes if n.outputs[0] not in found)
        reads = _reads(model)
        reads.subtract(found.values())
        ties = {new: Tie(name, ((new, None),), not reads[name]) for new, name in found.items()}
        model = _with(model, replace(model.graph, nodes=nodes), ties)
        merged = _merged(model)
    taken = model.tensors.keys() | {o for n in model.graph.walk() for o in n.outputs}
    taken |= {i.name for g in model.graph.graphs() for i in g.inputs}
    ties = {}
    copies = Counter[str]()  # how often a name was wanted again
    for name, uses in _uses(model, merged).items():
        whole = asked is not None and glob.escape(name) in asked
        own = _own_names(model, name, uses, whole) if asked is None or whole else {}
        for new, its_uses in own.items():
            unique = new
            while unique in taken:
                copies[new] += 1
                unique = new + _suffix(copies[new])
            taken.add(unique)
            ties[unique] = Tie(name, tuple((u.node.outputs[0], u.input) for u in its_uses), whole)
    renamed = {reader: new for new, tie in ties.items() for reader in tie.readers}
    return _with(model, _reading(model.graph, renamed), ties) if ties else model


def _suffix(copies: int) -> str:
    """What goes behind a name that others have: a number where they are many."""
    return ".untied" * copies if copies < MAX_UNNUMBERED_COPIES else f".untied.{copies}"


def _with(model: Model, graph: Graph, ties: dict[str, Tie]) -> Model:
    """The model with another graph, which reads these weights too."""
    tensors = dict(model.tensors)
    for new, tie in ties.items():  # an origin may be a tie itself, that comes before
        tensors[new] = tensors[tie.origin]
    return replace(model, graph=graph, tensors=tensors, ties={**model.ties, **ties})


def _merged(model: Model) -> set[str]:
    """The initializers that may stand for several tensors: floating, and read more than once.

    Not those that a call may give instead: all their readers are to see what it gives.
    """
    count, given = _reads(model), {i.name for i in model.graph.inputs}
    return {n for n, t in model.tensors.items() if count[n] > 1 and n not in given and _trains(t)}


def _reads(model: Model) -> Counter[str]:
    """How often each value is read."""
    count = Counter(name for node in model.graph.walk() for name in node.inputs)
    count.update(o.name for graph in model.graph.graphs() for o in graph.outputs)
    return count


def _identities(model: Model, merged: set[str], asked: Collection[str] | None) -> dict[str, str]:
    """Output of a node of the main graph that only returns a merged initializer -> its name.

    Such an output may be merged itself, and the next node may return it.
    """
    merged, count, found = set(merged), _reads(model), dict[str, str]()
    for node in model.graph.nodes:
        if node.kernel is None or not node.kernel.alias or node.inputs[0] not in merged:
            continue
        if asked is None or glob.escape(node.inputs[0]) in asked:
            found[node.outputs[0]] = node.inputs[0]
            if count[node.outputs[0]] > 1:
                merged.add(node.outputs[0])
    return found


def _uses(model: Model, merged: Collection[str]) -> dict[str, list[Use]]:
    """Merged initializer -> its readers, in subgraphs too."""
    uses = defaultdict[str, list[Use]](list)
    for node in model.graph.walk():
        for index, name in enumerate(node.inputs):
            if name in merged:
                uses[name].append(Use(node, index, _state(node, index)))
    return uses


def _reading(graph: Graph, renamed: Mapping[tuple[str, int | None], str]) -> Graph:
    """The graph with other names at some inputs (first output of the node, index)."""
    nodes = [
        replace(
            node,
            inputs=tuple(
                renamed.get((node.outputs[0], i), name) for i, name in enumerate(node.inputs)
            ),
            attributes={
                key: _reading(value, renamed) if isinstance(value, Graph) else value
                for key, value in node.attributes.items()
            },
        )
        for node in graph.nodes
    ]
    return replace(graph, nodes=tuple(nodes))


def _own_names(model: Model, name: str, uses: list[Use], whole: bool) -> dict[str, list[Use]]:
    """The weights to make of an initializer besides itself, and who reads them."""
    home, _, leaf = name.rpartition(".")
    computed = [use for use in uses if not use.state] or uses
    owner = next((use for use in computed if use.node.scope == home), None)
    first = owner or computed[0]
    stored = model.tensors[name]
    vector = isinstance(stored, TensorProto) and len(stored.dims) < 2
    named = vector and bool(home) and len(name) <= MAX_NAME_CHARS
    own: dict[str, list[Use]] = {}
    for number, use in enumerate(uses):
        scope = use.node.scope if len(use.node.scope) <= MAX_NAME_CHARS else ""
        apart = named and owner is not None and are_separate(scope, home)
        may_be_twin = isinstance(stored, TensorProto) and (not vector or (named and not owner))
        twin = _of_twin(name, first, use, scope) if may_be_twin else ""
        if use.state and not first.state:  # the name that torch gives to an input (input_)mean
            around = (scope or home or name)[:MAX_NAME_CHARS]
            new = f"{around}.running_{use.state.removeprefix('input_')}"
        elif apart:
            new = f"{scope}.{leaf}"
        elif twin:
            new = twin
        elif whole and use is not first:
            new = f"{name[:MAX_NAME_CHARS]}.{number}"
        else:
            continue
        own.setdefault(new, []).append(use)
    return own


def _of_twin(name: str, first: Use, use: Use, other: str) -> str:
    """The name that a weight has in a copy of its module; "" where the other module is none."""
    scope = first.node.scope
    if scope == other or not _is_role(use) or not differ_in_numbers(scope, other):
        return ""
    if is_within(name, scope):
        return other + name[len(scope) :]
    return "" if is_torch_name(name) else f"{name[:MAX_NAME_CHARS]}.untied.{other}"


def _is_role(use: Use) -> bool:
    """Whether a node reads a tensor as a weight of its module."""
    node = use.node
    parameter = node.kernel.parameter(use.input) if node.kernel else None
    roles = roles_of(node.domain, node.op_type, node.attributes)
    return parameter is not None and parameter.name in roles


def _state(node: Node, index: int) -> str:
    """The name of the state that an input of a node is; "" where it is none."""
    parameter = node.kernel.parameter(index) if node.kernel else None
    return (
        parameter.name if parameter and node.kernel and parameter.name in node.kernel.state else ""
    )


def _trains(stored: object) -> bool:
    """Whether a stored tensor is one that may train; one in the form of a node stays as it is."""
    dtype = CARRIER.get(stored.data_type) if isinstance(stored, TensorProto) else None
    return dtype is not None and dtype.is_floating_point

"""Topological sort of nodes: every value is computed before it is read."""

from __future__ import annotations

from collections.abc import Iterable

from onnx import AttributeProto, NodeProto

from onnxinterp.errors import InvalidModelError
from onnxinterp.reading.validation.operators import GRAPH_TYPES, label_of
from onnxinterp.registry import value_name_attributes


def _free_names(node: NodeProto) -> list[str]:
    """Names that a node reads around it: its inputs, what its attributes name, its subgraphs."""
    names = list(node.input)
    for attribute in node.attribute:
        kind = attribute.type
        if kind == AttributeProto.STRING:
            if attribute.name in value_name_attributes(node.op_type, node.domain):
                names.append(attribute.s.decode("utf-8", "surrogateescape"))
        elif kind in GRAPH_TYPES:
            for graph in (attribute.g, *attribute.graphs):
                own = {i.name for i in graph.input}.union(o for n in graph.node for o in n.output)
                names += [r for n in graph.node for r in _free_names(n) if r not in own]
                names += [o.name for o in graph.output if o.name not in own]
    return names


def toposort(nodes: Iterable[NodeProto]) -> list[NodeProto]:
    """The nodes in an order in which every value is computed before it is read.

    A list that is already sorted, as the specification asks for, keeps its order.

    Raises:
        InvalidModelError: the nodes depend on each other in a cycle.
    """
    nodes = list(nodes)
    producer = {o: i for i, n in enumerate(nodes) for o in n.output if o}
    needs = [[producer[r] for r in _free_names(n) if r in producer] for n in nodes]
    if all(not need or max(need) < i for i, need in enumerate(needs)):
        return nodes
    users: list[list[int]] = [[] for _ in nodes]
    for i, need in enumerate(needs):
        for j in need:  # as often as it reads it
            users[j].append(i)
    waiting = [len(need) for need in needs]
    ready = [i for i, count in enumerate(waiting) if not count]
    for i in ready:  # grows during the loop
        for user in users[i]:
            waiting[user] -= 1
            if not waiting[user]:
                ready.append(user)
    if len(ready) < len(nodes):
        stuck = next(n for n, count in zip(nodes, waiting, strict=True) if count)
        raise InvalidModelError(f"the graph has a cycle through node {label_of(stuck)!r}")
    return [nodes[i] for i in ready]

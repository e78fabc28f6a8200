"""Topological sort: every value is made before it is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from onnx import NodeProto

from onnxinterp.errors import InvalidModelError
from onnxinterp.reading.validation.operators import GRAPH_TYPES, label_of
from onnxinterp.registry import value_name_attributes


def _free_names(node: NodeProto) -> Iterable[str]:
    """The outer names that a node reads: its inputs, names in attributes, those of subgraphs."""
    yield from node.input
    names_values = value_name_attributes(node.op_type, node.domain)
    for attribute in node.attribute:
        if attribute.name in names_values:
            yield attribute.s.decode("utf-8", "surrogateescape")
        for graph in (attribute.g, *attribute.graphs) if attribute.type in GRAPH_TYPES else ():
            own = {i.name for i in graph.input}.union(o for n in graph.node for o in n.output)
            reads = [name for inner in graph.node for name in _free_names(inner)]
            yield from (r for r in (*reads, *(o.name for o in graph.output)) if r not in own)


def toposort(nodes: Sequence[NodeProto]) -> list[NodeProto]:
    """The nodes in topological order; a sorted list, as the specification requires, is unchanged.

    Raises:
        InvalidModelError: the graph has a cycle.
    """
    maker = {o: i for i, n in enumerate(nodes) for o in n.output if o}
    needs = [{maker[r] for r in _free_names(n) if r in maker} for n in nodes]
    if all(max(need, default=-1) < i for i, need in enumerate(needs)):
        return list(nodes)
    users: list[list[int]] = [[] for _ in nodes]
    for i, need in enumerate(needs):
        for j in need:
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

"""Which values nodes read, and the same nodes with other names; subgraphs included."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from onnx import GraphProto, NodeProto


def _graphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def made(nodes: Iterable[NodeProto]) -> list[str]:
    """Names that nodes define, in order."""
    return [name for node in nodes for name in node.output if name]


def reads(nodes: Iterable[NodeProto], defined: Iterable[str] = ()) -> list[str]:
    """Names that nodes read and do not define, in order, once each."""
    known, found = set(defined), {}
    for node in nodes:
        inner = [
            name
            for graph in _graphs(node)
            for name in (
                *reads(
                    graph.node,
                    [*(i.name for i in graph.input), *(t.name for t in graph.initializer)],
                ),
                *(o.name for o in graph.output if o.name not in _defined(graph)),
            )
        ]
        found.update(dict.fromkeys(n for n in (*node.input, *inner) if n and n not in known))
        known.update(node.output)
    return list(found)


def _defined(graph: GraphProto) -> set[str]:
    given = (*graph.input, *graph.initializer)
    return {*(g.name for g in given), *made(graph.node)}


def relabelled(
    nodes: Iterable[NodeProto], names: Mapping[str, str], inside: str = ""
) -> list[NodeProto]:
    """Copies of nodes.

    Args:
        nodes: what is copied.
        names: old name -> new name; others stay.
        inside: what the names that subgraphs define get before them.
    """
    copies = []
    for node in nodes:
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [names.get(n, n) for n in node.input]
        copy.output[:] = [names.get(n, n) for n in node.output]
        for graph in _graphs(copy):
            _relabel(graph, names, inside)
        copies.append(copy)
    return copies


def _relabel(graph: GraphProto, names: Mapping[str, str], inside: str) -> None:
    own = {n: inside + n if inside else n for n in _defined(graph)}
    scope = {**names, **own}
    for listed in (graph.input, graph.output, graph.initializer, graph.value_info):
        for entry in listed:
            entry.name = scope.get(entry.name, entry.name)
    nodes = relabelled(graph.node, scope, inside)
    del graph.node[:]
    graph.node.extend(nodes)

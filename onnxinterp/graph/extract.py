"""A part of a graph as a subgraph: what lies between some values and one that depends on them.

An operator may speak of the graph around it by the names of its values (Gradient does). What it
speaks of is copied under new names, so that it can run with other values than those of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from onnxinterp.graph.ir import Graph, Node, ValueInfo


def extract(
    nodes: Iterable[Node], inputs: Sequence[str], output: str, fresh: Callable[[str], str]
) -> Graph:
    """The nodes by which `output` depends on `inputs`, as a subgraph.

    What does not depend on the inputs is captured, weights among it. An input that depends on
    another one is an input all the same.

    Args:
        nodes: all nodes of the graph in order; it may be more.
        inputs: names of values.
        output: name of a value.
        fresh: makes a name that the model does not have yet.
    """
    depends, between = set(inputs), []
    for node in nodes:
        if not depends.isdisjoint(node.reads):
            depends.update(node.outputs)
            between.append(node)
    infos = tuple(ValueInfo(name) for name in inputs)
    part = Graph(output, infos, (), tuple(between)).pruned((ValueInfo(output),))
    return _renamed(part, {}, fresh)


def _renamed(graph: Graph, around: Mapping[str, str], fresh: Callable[[str], str]) -> Graph:
    """A copy in which all that is made has a new name; `around` has those of what it captures."""
    names = {**around, **{i.name: fresh(i.name) for i in graph.inputs}}

    def info(value: ValueInfo) -> ValueInfo:
        return replace(value, name=names.get(value.name, value.name))

    nodes = []
    for node in graph.nodes:
        reads = tuple(names.get(i, i) for i in node.inputs)
        attributes = {
            k: _renamed(v, names, fresh) if isinstance(v, Graph) else v
            for k, v in node.attributes.items()
        }
        makes = tuple(fresh(o) for o in node.outputs)
        nodes.append(
            replace(node, inputs=reads, outputs=makes, attributes=attributes, is_copy=True)
        )
        for old, new in zip(node.outputs, makes, strict=True):
            names.setdefault(old, new)  # an input keeps its own
    inputs, outputs = tuple(map(info, graph.inputs)), tuple(map(info, graph.outputs))
    return Graph(graph.name, inputs, outputs, tuple(nodes))

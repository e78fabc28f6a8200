"""Copies a part of a graph into a subgraph: the nodes between some values and a dependent one.

An operator may refer to the graph around it by the names of its values (Gradient does). That part
is copied under new names, so that it can run with other values than those of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from onnxinterp.graph.ir import Graph, Node, ValueInfo


def extract(
    nodes: Iterable[Node], inputs: Sequence[str], output: str, fresh: Callable[[str], str]
) -> Graph:
    """The nodes by which `output` depends on `inputs`, as a subgraph.

    It captures values that do not depend on the inputs, weights among them. An input that depends
    on another input is an input nevertheless.

    Args:
        nodes: the nodes of the graph in order; there may be others among them.
        inputs: names of values.
        output: name of a value.
        fresh: returns a name that is not in the model yet.
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
    """A copy in which all values have new names; `around`: new names of captured values."""
    names = {**around, **{i.name: fresh(i.name) for i in graph.inputs}}

    def info(value: ValueInfo) -> ValueInfo:
        return replace(value, name=names.get(value.name, value.name))

    nodes = []
    for node in graph.nodes:
        inputs = tuple(names.get(i, i) for i in node.inputs)
        subgraphs = {k: _renamed(g, names, fresh) for k, g in node.subgraphs.items()}
        outputs = tuple(fresh(o) for o in node.outputs)
        copied = replace(node, inputs=inputs, outputs=outputs, is_copy=True)
        nodes.append(replace(copied, attributes={**node.attributes, **subgraphs}))
        for old, new in zip(node.outputs, outputs, strict=True):
            names.setdefault(old, new)  # an input keeps its new name
    ends = tuple(map(info, graph.inputs)), tuple(map(info, graph.outputs))
    return Graph(graph.name, *ends, tuple(nodes))

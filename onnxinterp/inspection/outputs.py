"""The outputs of the torch modules in whose calls a graph was recorded."""

from __future__ import annotations

from collections.abc import Set

from onnxinterp.graph.ir import Graph


def module_outputs(
    graph: Graph, sizes: Set[str], parameters: Set[str]
) -> dict[str, tuple[str, ...]]:
    """Path of each called module -> its values that nodes outside of it read.

    Exporters record what several modules need in the first of them: sizes, and masks. So a value
    that is shape arithmetic, or is computed without any parameter, counts only where a module has
    no others. A module that is called again has `@` and a number behind its path, where the file
    tells the calls apart; otherwise the outputs of all calls are in one tuple, in order.

    Args:
        graph: a main graph; its outputs are read outside of all modules.
        sizes: the values that are shape arithmetic.
        parameters: names of the weights that are parameters.
    """
    around = _scopes_of_all_readers(graph, parameters)
    computed = _computed_from(graph, parameters) - sizes
    found: dict[str, list[str]] = {}
    for node in graph.nodes:
        for path in dict.fromkeys(node.scopes):
            read = [name for name in node.outputs if path not in around.get(name, (path,))]
            found.setdefault(path, []).extend(read)
    return {
        path: tuple(
            [n for n in names if n in computed] or [n for n in names if n not in sizes] or names
        )
        for path, names in found.items()
        if names
    }


def _scopes_of_all_readers(graph: Graph, parameters: Set[str]) -> dict[str, frozenset[str]]:
    """Name of each value that is read -> the paths that are around all nodes that read it.

    A node that an exporter's optimizer has added has no path. It is in each module that has
    parameters and all readers of its results.
    """
    own = (node for node in graph.nodes if not parameters.isdisjoint(node.reads))
    with_parameters = frozenset(path for node in own for path in node.scopes)
    around: dict[str, frozenset[str]] = {output.name: frozenset() for output in graph.outputs}
    for node in reversed(graph.nodes):
        scopes = frozenset(node.scopes)
        if not scopes:
            scopes = with_parameters.intersection(*[around[n] for n in node.outputs if n in around])
        for name in node.reads:
            around[name] = around.get(name, scopes) & scopes
    return around


def _computed_from(graph: Graph, names: Set[str]) -> set[str]:
    """The values that depend on some of the names."""
    found = set(names)
    for node in graph.nodes:
        if not found.isdisjoint(node.reads):
            found.update(node.outputs)
    return found

"""The outputs of the torch modules in whose calls a graph was recorded."""

from __future__ import annotations

from collections.abc import Set

from onnxinterp.graph.ir import Graph


def module_outputs(graph: Graph, numbers: Set[str] = frozenset()) -> dict[str, tuple[str, ...]]:
    """Path of each called module -> its values that nodes outside of it read.

    A module that is called again has `@` and a number behind its path, where the file tells the
    calls apart; otherwise the outputs of all calls are in one tuple, in order.

    Args:
        graph: a main graph; outputs of the graph are read outside of all modules.
        numbers: values that are shape arithmetic; they count only where a module has no others,
            because exporters compute a size once for all modules that need it.
    """
    around = _scopes_of_all_readers(graph)
    found: dict[str, list[str]] = {}
    for node in graph.nodes:
        for path in dict.fromkeys(node.scopes):
            read = [name for name in node.outputs if path not in around.get(name, (path,))]
            found.setdefault(path, []).extend(read)
    return {
        path: tuple([n for n in names if n not in numbers] or names)
        for path, names in found.items()
        if names
    }


def _scopes_of_all_readers(graph: Graph) -> dict[str, frozenset[str]]:
    """Name of each value that is read -> the paths that are around all nodes that read it."""
    around: dict[str, frozenset[str]] = {}
    for node in graph.nodes:
        scopes = frozenset(node.scopes)
        for name in node.reads:
            around[name] = around.get(name, scopes) & scopes
    return around | {output.name: frozenset() for output in graph.outputs}

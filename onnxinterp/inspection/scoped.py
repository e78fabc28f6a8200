"""The nodes of a module by the torch modules they come from, and what these return."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from onnxinterp.graph.ir import Node
from onnxinterp.inspection.calls import calls_of
from onnxinterp.inspection.runnable import Runnable, parameters_of
from onnxinterp.lazy import lazy
from onnxinterp.planning.plans import Plans
from onnxinterp.planning.scoping import Chain, chains
from onnxinterp.runtime.plan import onnx_name_of
from onnxinterp.weights import MAX_NESTED_NAME_CHARS


@dataclass(frozen=True)
class ScopedGraph:
    """The nodes that run in a call, one by one.

    Attributes:
        nodes: each with the paths of the modules around it, outermost first. A module that is
            called again has `@` and a number behind its path, where the file tells the calls apart.
        results: names of the graph's outputs.
        sizes: the values that follow from the shapes of the inputs alone.
    """

    nodes: Sequence[tuple[Node, Chain]]
    results: frozenset[str]
    sizes: frozenset[str]

    @lazy
    def outputs(self) -> dict[str, tuple[str, ...]]:
        """Path of each module -> its values that nodes outside of it read, in order.

        Where the file does not tell the calls of a module apart, those of all calls. Sizes count
        only where there is nothing else: an exporter computes them once for all who read them.
        """
        around = self._scopes_of_all_readers()
        found: dict[str, list[str]] = {}
        for node, chain in self.nodes:
            for path in dict.fromkeys(chain):
                read = [name for name in node.outputs if path not in around.get(name, (path,))]
                found.setdefault(path, []).extend(read)
        return {
            path: tuple([n for n in names if n not in self.sizes] or names)
            for path, names in found.items()
            if names
        }

    def calls(self) -> dict[str, tuple[str, ...]]:
        """As `outputs`, with an entry for each call of a module: "relu", "relu@1"."""
        nodes, places = [node for node, _ in self.nodes], defaultdict[str, list[int]](list)
        for place, (_, chain) in enumerate(self.nodes):
            for path in dict.fromkeys(chain):
                places[path].append(place)
        found: dict[str, tuple[str, ...]] = {}
        for path, names in self.outputs.items():
            parts = calls_of(nodes, places[path]) if len(names) > 1 and "@" not in path else []
            calls = {path if not n else f"{path}@{n}": part for n, part in enumerate(parts)}
            if len(calls) < 2 or not self.outputs.keys().isdisjoint(list(calls)[1:]):
                found[path] = names
                continue
            for call, part in calls.items():
                made = {name for place in part for name in nodes[place].outputs}
                found[call] = tuple([name for name in names if name in made])
        return {path: names for path, names in found.items() if names}

    def _scopes_of_all_readers(self) -> dict[str, frozenset[str]]:
        """Name of each value that is read -> the paths that are around all nodes that read it."""
        around: dict[str, frozenset[str]] = {}
        for node, chain in self.nodes:
            scopes = frozenset(chain)
            for name in node.reads:
                around[name] = around.get(name, scopes) & scopes
        return around | dict.fromkeys(self.results, frozenset())


def scoped_graph(module: Runnable, plans: Plans) -> ScopedGraph:
    """The nodes of a module; `plans` are its own ones, unfused."""
    plan = plans.get(training=False).plan
    # a name of a megabyte may have half a million dots
    parameters = {name for name in parameters_of(module) if len(name) <= MAX_NESTED_NAME_CHARS}
    found = chains(plan.steps, parameters)
    steps = list(zip([step.node for step in plan.steps], found, strict=True))
    own = (node for node, _ in steps if not parameters.isdisjoint(node.reads))
    weighted = {path for node in own for path in node.scopes}
    nodes = [  # what moves out of a module with weights is still in the ones without
        (node, (*chain, *[p for p in node.scopes if p and p not in {*weighted, *chain}]))
        for node, chain in steps
    ]
    return ScopedGraph(nodes, frozenset(map(onnx_name_of, plan.outputs)), frozenset(plan.sized))

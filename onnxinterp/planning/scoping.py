"""Which modules each step of a plan is called in: its chain of paths, outermost first.

noted       the nodes carry scopes (see `graph.scopes`): those of a step are its chain. A step
            without any, which an optimizer has inserted, is where its neighbours meet
prefixes    no node does: the prefixes of the parameters that a step reads. A step without
            parameters is where its inputs and the next weighted step meet
moved       what a module computes of nothing of its own, and others read as well (the mask that
            an exporter put into the first layer), moves out to where all see it
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from itertools import takewhile
from typing import TypeAlias

from onnxinterp.graph.scopes import MAX_PATH_CHARS, ROOT
from onnxinterp.runtime.plan import Step

Chain: TypeAlias = "tuple[str, ...]"
MAX_MOVED_STEPS = 64  # of one part that moves out of a module


def chains(steps: Sequence[Step], parameters: Set[str]) -> list[Chain]:
    """The chain of each step.

    Args:
        steps: of a plan, in order.
        parameters: names of the weights that train.
    """
    noted = [step.node.scopes for step in steps]
    graph = _Neighbours(steps)
    is_noted = any(chain not in ((), ROOT) for chain in noted)
    found = _filled(noted, graph) if is_noted else _by_prefix(steps, parameters, graph)
    return _moved(steps, [() if c == ROOT else c for c in found], parameters, graph)


class _Neighbours:
    """The steps before and after each step.

    Attributes:
        sources: for each step, the places of the steps whose results it reads.
        readers: for each step, the places of the steps that read its results.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        made = {name: place for place, step in enumerate(steps) for name in step.outputs}
        self.sources = [
            [made[key] for key in step.reads if isinstance(key, str) and key in made]
            for step in steps
        ]
        self.readers: list[list[int]] = [[] for _ in steps]
        for place, sources in enumerate(self.sources):
            for source in sources:
                self.readers[source].append(place)


def common(chains: Iterable[Chain]) -> Chain:
    """The modules that all chains are in: what they start with."""
    equal = takewhile(lambda parts: len(set(parts)) == 1, zip(*chains, strict=False))
    return tuple([parts[0] for parts in equal])


def _filled(noted: Sequence[Chain], graph: _Neighbours) -> list[Chain]:
    """Chains for the steps that have none: a step between two of a module is inside of it."""
    found = list(noted)
    for place, chain in enumerate(noted):
        if not chain:
            before = [found[p] for p in graph.sources[place] if found[p]]
            after = [noted[p] for p in graph.readers[place] if noted[p]]
            found[place] = common(before + after) if before and after else ()
    return found


def _by_prefix(steps: Sequence[Step], parameters: Set[str], graph: _Neighbours) -> list[Chain]:
    own = [_prefixes([k for k in s.reads if k in parameters]) for s in steps]
    after: list[Chain] = []  # for each step, from the last: the chain of the next weighted one
    following: Chain = ()
    for chain in reversed(own):
        following = chain or following
        after.append(following)
    for place, following in enumerate(reversed(after)):
        if not own[place]:
            inputs = [own[p] for p in graph.sources[place]]
            own[place] = max((common([c, following]) for c in inputs), key=len, default=())
    return own


def _prefixes(names: Iterable[object]) -> Chain:
    """The modules above weights, without lists: a module whose child is a number."""
    short = (name for name in map(str, names) if len(name) <= MAX_PATH_CHARS)
    parts = common(tuple(name.split(".")[:-1]) for name in short)
    ends = range(1, len(parts) + 1)
    return tuple(
        ".".join(parts[:end]) for end in ends if end == len(parts) or not parts[end].isdigit()
    )


def _moved(
    steps: Sequence[Step], chains: Sequence[Chain], parameters: Set[str], graph: _Neighbours
) -> list[Chain]:
    """Chains in which weightless parts with readers outside of a weighted module are outside."""
    found = list(chains)
    weighted = {
        chain[:depth]
        for step, chain in zip(steps, chains, strict=True)
        if not parameters.isdisjoint(step.reads)
        for depth in range(1, len(chain) + 1)
    }
    for place in range(len(steps) - 1, -1, -1):
        readers = [found[p] for p in graph.readers[place]]
        depth = len(common([found[place], *readers])) if readers else len(found[place])
        around = found[place][: depth + 1]
        if depth == len(found[place]) or around not in weighted:
            continue
        for p in _weightless(place, around, steps, found, parameters, graph):
            found[p] = found[p][:depth]
    return found


def _weightless(
    last: int,
    around: Chain,
    steps: Sequence[Step],
    chains: Sequence[Chain],
    parameters: Set[str],
    graph: _Neighbours,
) -> Set[int]:
    """All that a step is computed from inside of a module; nothing where weights are among it."""
    part, pending = {last}, [last]
    while pending:
        place = pending.pop()
        if not parameters.isdisjoint(steps[place].reads) or len(part) > MAX_MOVED_STEPS:
            return frozenset()
        for source in graph.sources[place]:
            if source not in part and chains[source][: len(around)] == around:
                part.add(source)
                pending.append(source)
    return part

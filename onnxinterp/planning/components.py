"""The parts of a graph that hang together: by any value, or in a cycle."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeAlias

Followers: TypeAlias = dict[Hashable, dict[Hashable, None]]
"""Key of each vertex -> keys of those behind it, in order."""


def connected(nodes: Sequence[tuple[Iterable[Hashable], Iterable[Hashable]]]) -> list[list[int]]:
    """The places of nodes, in parts between which no value passes directly.

    Args:
        nodes: the values that each reads, and those that it makes; in order.
    """
    parent = list(range(len(nodes)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = place = parent[parent[place]]
        return place

    made: dict[Hashable, int] = {}
    for place, (reads, outputs) in enumerate(nodes):
        for source in {made[key] for key in reads if key in made}:
            parent[root(source)] = root(place)
        made.update(dict.fromkeys(outputs, place))
    parts: dict[int, list[int]] = {}
    for place in range(len(nodes)):
        parts.setdefault(root(place), []).append(place)
    return list(parts.values())


def components(followers: Followers) -> list[list[Hashable]]:
    """The strongly connected components of a graph, by Tarjan's algorithm without recursion."""
    index: dict[Hashable, int] = {}
    lowest: dict[Hashable, int] = {}
    open_keys: dict[Hashable, None] = {}
    found = []
    for root in followers:
        pending = [] if root in index else [(root, iter(followers[root]))]
        while pending:
            key, after = pending[-1]
            if key not in index:
                index[key] = lowest[key] = len(index)
                open_keys[key] = None
            following = next((k for k in after if k not in index or k in open_keys), None)
            if following is not None and following not in index:
                pending.append((following, iter(followers[following])))
                continue
            if following is not None:
                lowest[key] = min(lowest[key], index[following])
                continue
            pending.pop()
            if pending:
                around = pending[-1][0]
                lowest[around] = min(lowest[around], lowest[key])
            if lowest[key] == index[key]:
                part = list[Hashable]()
                while not part or part[-1] != key:
                    part.append(open_keys.popitem()[0])
                found.append(part)
    return found

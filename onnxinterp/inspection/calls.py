"""The calls of one module, where the file has noted them under one path.

A call cannot depend on its own results through nodes outside of the module. So equal parts of its
nodes, each of which depends on the one before it through others only, are calls one after another.
Equal parts that are independent may be one call with several outputs: they are left together.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from onnxinterp.graph.ir import Node
from onnxinterp.planning.components import connected

MAX_NODES_BETWEEN = 1000  # of two calls: all are searched


def calls_of(nodes: Sequence[Node], places: Sequence[int]) -> list[list[int]]:
    """The places of each call, in order; all in one list where calls cannot be told apart.

    Args:
        nodes: of the graph, in order.
        places: where those of the module are among them, in order.
    """
    found = connected([(nodes[place].reads, nodes[place].outputs) for place in places])
    parts = [[places[index] for index in part] for part in found]
    outlines = {tuple([nodes[place].op_type for place in part]) for part in parts}
    successive = len(outlines) == 1 and all(_follows(nodes, *two) for two in pairwise(parts))
    return parts if successive else [list(places)]


def _follows(nodes: Sequence[Node], part: Sequence[int], other: Sequence[int]) -> bool:
    """Whether `other` depends on `part`."""
    if other[-1] - part[0] > MAX_NODES_BETWEEN:
        return False
    reached = {name for place in part for name in nodes[place].outputs}
    for place in range(part[0], other[-1] + 1):
        if not reached.isdisjoint(nodes[place].reads):
            reached.update(nodes[place].outputs)
    return any(not reached.isdisjoint(nodes[place].reads) for place in other)

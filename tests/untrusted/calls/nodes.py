"""All hostile nodes, as cases of a child process.

A file holds groups: functions that yield nodes. `GROUPS`, at its end, says in which order; a node's
number among all of them begins its name.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

from tests.untrusted.calls import (
    contrib_packed,
    edges,
    indices,
    integers,
    learning,
    shapes,
    types,
    windows,
)
from tests.untrusted.calls.one_node import Node, outcome

FILES = (integers, indices, windows, shapes, types, learning, edges, contrib_packed)


def nodes() -> dict[str, Node]:
    """Every node by what it is."""
    every = [node for file in FILES for group in file.GROUPS for node in group()]
    return {f"{n:03d} {_described(node)}": node for n, node in enumerate(every)}


def _described(node: Node) -> str:
    given = [x if x is None or isinstance(x, str) else x.tolist() for x in node.inputs]
    return f"{node.op_type}-{node.opset} {given} {node.attributes}".replace("\n", " ")[:150]


def cases() -> dict[str, Callable[[], str]]:
    """What comes of each, its inputs given at the call and as constants of the file."""
    warnings.simplefilter("ignore")
    return {
        f"{name} [{'constant' if constant else 'given'}]": lambda n=node, c=constant: outcome(n, c)
        for name, node in nodes().items()
        for constant in (False, True)
        if node.inputs or not constant
    }

"""What a snapshot has prepared, by the inputs that it is for."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch

from onnxinterp.planning.bound import PLAIN
from onnxinterp.snapshots.competition import Entry, Lane
from onnxinterp.snapshots.engines import FAITHFUL
from onnxinterp.snapshots.engines.faithful import Faithful
from onnxinterp.snapshots.staleness import WeightWatch
from onnxinterp.snapshots.subject import Subject

MAX_LANES = 8  # runners for particular sizes that are kept
MAX_SEEN = 1024  # sizes that are remembered without a runner
Signature: TypeAlias = "tuple[tuple[torch.Size, torch.dtype, torch.device], ...]"
"""Shape, dtype and device of each input."""


class State:
    """What a snapshot has prepared: replaced as a whole, so that threads find it consistent.

    Attributes:
        module: what was prepared; a private copy where changes are to be ignored.
        watch: tells whether its weights have changed; None where changes are ignored.
        faithful: runs the module itself.
        slowest: the lane of it, for what no engine takes.
        chosen: the engine for sizes that are prepared when they come; None for none.
        any_lane: runs sizes that are not prepared.
        lanes: the runners of particular sizes.
        accepted: what inputs were found right.
        seen: sizes that came once.
        without: sizes that the chosen engine could not run -> what runs them.
        entries: what became of each engine, by inputs.
    """

    def __init__(self, module: Subject, watch: WeightWatch | None) -> None:
        self.module = module
        self.watch = watch
        self.names = module.input_names
        self.faithful = Faithful(module)
        self.slowest = Lane(FAITHFUL, self.faithful, any_sizes=True)
        self.chosen: str | None = None
        self.any_lane = self.slowest
        self.lanes: dict[Signature, Lane] = {}
        self.accepted: dict[Signature, None] = {}
        self.seen: dict[Signature, None] = {}
        self.without: dict[Signature, Lane] = {}
        self.entries: dict[str, list[Entry]] = {}

    def note(self, line: str, found: list[Entry]) -> None:
        """Store entries; those of the example, which were the first, stay."""
        self.entries[line] = found
        if len(self.entries) > MAX_LANES:
            del self.entries[list(self.entries)[1]]


def signature_of(inputs: tuple[Any, ...]) -> Signature | None:
    """What runners are prepared for; None where an input is not a plain tensor."""
    if not all(type(x) in PLAIN for x in inputs):
        return None
    return tuple([(x.shape, x.dtype, x.device) for x in inputs])


def remember(table: dict[Signature, Any], signature: Signature, value: Any) -> None:
    """Store an entry; a table that grows too long starts again."""
    if len(table) >= MAX_SEEN:
        table.clear()
    table[signature] = value

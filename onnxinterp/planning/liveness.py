"""Which steps are needed, and which values die after each: liveness analysis, backwards."""

from __future__ import annotations

from collections.abc import Sequence, Set

from onnxinterp.runtime.plan import Key, Step


def live_steps(
    steps: Sequence[Step], kept: Set[Key], computed: Set[str]
) -> tuple[list[Step], list[tuple[Key, ...]]]:
    """Drop the steps that nothing needs; find for the others the values that no later step reads.

    Args:
        steps: in order.
        kept: keys that are needed at the end.
        computed: names of the values that inputs and steps put into the frame.

    Returns:
        The steps, and for each the names of the values that can be freed after it.
    """
    alive, live, dead = set(kept), [], []
    for step in reversed(steps):
        if alive.isdisjoint(step.outputs) and not step.updates:
            continue
        used = dict.fromkeys((*step.reads, *step.outputs))
        last = tuple([n for n in used if n not in alive and n in computed])
        alive.update(last)
        live.append(step)
        dead.append(last)
    return live[::-1], dead[::-1]

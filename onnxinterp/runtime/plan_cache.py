"""The plans of a module, and those for sizes of the inputs that came more than once.

Threads may share a module: a table of plans is replaced, never changed, so that whoever reads one
finds it whole. Two threads may make the same plan at once; either is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from onnxinterp.runtime.interpreter import Plan
from onnxinterp.values import Host, is_traced

Sizes: TypeAlias = "tuple[torch.Size, ...]"
SIZES_KEPT = 16  # plans for particular sizes, each mode
PLAIN = (Tensor, nn.Parameter)


@dataclass
class BoundPlan:
    """A plan, where the weights it reads stand, and plans for sizes that came more than once.

    Attributes:
        plan: what runs whatever the sizes of the inputs are.
        reads: name, holder and attribute of each weight.
        training: the mode it is for.
        kept: places of the outputs that are constants of the plan, or weights.
        by_sizes: shapes of the inputs -> the plan made for them; None where they came once.
    """

    plan: Plan
    reads: list[tuple[str, nn.Module, str]]
    training: bool
    by_sizes: dict[Sizes, BoundPlan | None] = field(default_factory=dict)
    kept: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        own = {*self.plan.constants, *(name for name, _, _ in self.reads)}
        self.kept = frozenset(i for i, name in enumerate(self.plan.outputs) if name in own)

    def specialize(
        self, sizes: Sizes, values: Mapping[str, Any], make: Callable[[dict[str, Host]], BoundPlan]
    ) -> None:
        """Shapes that come a second time get a plan of their own: their arithmetic is done.

        Args:
            sizes: shapes of the inputs of a call.
            values: what its frame holds at the end.
            make: makes a plan with the host values that depend on sizes alone.
        """
        known, made = self.by_sizes, None
        if sizes in known:
            found = {n: v for n in self.plan.sized if isinstance(v := values.get(n), Host)}
            made = make(found)
        elif len(known) >= SIZES_KEPT:
            known = dict(list(known.items())[1:])
        self.by_sizes = {**known, sizes: made}


def sizes_of(names: Iterable[str], given: Mapping[str, Any]) -> Sizes | None:
    """The shapes of the inputs, where all are plain tensors of plain sizes; None while capturing.

    A plan made of what is no plain tensor, as torch's fakes, would not serve others. In a graph
    that `torch.jit.trace` records the sizes would be constants.
    """
    if torch.compiler.is_compiling() or is_traced():
        return None
    values = [given[name] for name in names if name in given]
    if not all(type(v) in PLAIN and all(type(n) is int for n in v.shape) for v in values):
        return None
    return tuple([v.shape for v in values])

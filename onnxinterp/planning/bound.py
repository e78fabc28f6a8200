"""A plan with what belongs to it: its mode, its weights, the plans for certain sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from onnxinterp.programs import Programs, WeightSizes
from onnxinterp.runtime.plan import Key, Plan, WeightPlace
from onnxinterp.values import is_traced

Sizes: TypeAlias = "tuple[tuple[torch.Size, torch.dtype, torch.device], ...]"
PLAIN = (Tensor, nn.Parameter)


class Mode(NamedTuple):
    """What a plan of one module is made for.

    Attributes:
        training: whether the module is in training mode, and some of its nodes know modes.
        apart: paths of the torch modules that are in the other mode.
        overridden: the initializers that a call gives.
        nested: whether blocks run inside of the modules that their nodes come from.
    """

    training: bool
    apart: frozenset[str]
    overridden: frozenset[str]
    nested: bool


EVAL = Mode(training=False, apart=frozenset(), overridden=frozenset(), nested=False)


@dataclass
class BoundPlan:
    """A plan, where the weights it reads are, and plans for sizes that came more than once.

    Attributes:
        plan: runs whatever the sizes of the inputs are.
        reads: where the weights are.
        mode: what it is made for.
        own: places of the outputs that are constants of the plan, or weights.
        called: the modules that blocks of a nested plan run in.
        by_sizes: shapes of the inputs -> the plan made for them; None where they came once.
        programs: the plan as straight-line code, if it is made for certain sizes.
        weight_sizes: those that its weights must have then.
    """

    plan: Plan
    reads: list[WeightPlace]
    mode: Mode
    by_sizes: dict[Sizes, BoundPlan | None] = field(default_factory=dict)
    own: frozenset[int] = field(init=False)
    called: frozenset[nn.Module] = field(init=False)
    programs: Programs = field(init=False)
    weight_sizes: WeightSizes | None = None

    def __post_init__(self) -> None:
        kept = {*self.plan.constants, *(name for name, _, _ in self.reads)}
        self.own = frozenset(i for i, key in enumerate(self.plan.outputs) if key in kept)
        self.called = frozenset(block.level for block in self.plan.blocks())
        self.programs = Programs(self.plan, self.reads)

    def fits(self, weights: Mapping[Key, Tensor]) -> bool:
        """Whether weights have the sizes that a plan for certain sizes was made with."""
        return self.weight_sizes is None or self.weight_sizes.hold([*weights.values()])


def sizes_of(names: Iterable[str], given: Mapping[str, Any]) -> Sizes | None:
    """Shape, dtype and device of the inputs, where all are plain tensors of plain sizes.

    None while a graph is being captured: a plan made with torch's fake tensors would be wrong for
    other calls, and in a graph that `torch.jit.trace` records, sizes would be constants.
    """
    if torch.compiler.is_compiling() or is_traced():
        return None
    values = [given[name] for name in names if name in given]
    if not all(type(v) in PLAIN and all(type(n) is int for n in v.shape) for v in values):
        return None
    return tuple([(v.shape, v.dtype, v.device) for v in values])

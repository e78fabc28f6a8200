"""Which shapes are known before a call: an empty scan output has the shape of its body's output.

A plan runs on meta tensors several times, each time with other sizes wherever the file declares
none. A size that is the same in all runs is known. A step that fails is skipped: some sizes do
not fit together, and the values of meta tensors cannot be read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from onnxinterp.graph.ir import Graph, ValueInfo
from onnxinterp.runtime.guard import Guard, reserve
from onnxinterp.runtime.interpreter import Frame, Interpreter, by_name
from onnxinterp.runtime.plan import Key, Plan, onnx_name_of
from onnxinterp.values import Host, Shape

Found: TypeAlias = "dict[str, Shape]"
META = torch.device("meta")
LOOP_TRIPS = 4  # in one run; a loop that needs more is skipped
MAX_STEPS = 100_000  # in the bodies of nested loops, in all runs


class Unknown(NamedTuple):
    """What replaces the unknown in one run: a size, a rank, a number (also a condition)."""

    size: int
    rank: int
    number: int


# size 1 broadcasts; the others are multiples of most numbers
RUNS = (Unknown(1, 1, 0), Unknown(1, 5, 1), Unknown(12, 2, 0), Unknown(24, 3, 1))


def static_shapes(
    graph: Graph,
    plan: Plan,
    weights: Mapping[str, Tensor],
    types: Mapping[str, int],
    guard: Guard,
    found: Found,
) -> None:
    """Add to `found` the shapes of the outputs of all subgraphs.

    Args:
        graph: the main graph.
        plan: its plan.
        weights: what the plan reads.
        types: name -> inferred ONNX type, for inputs of subgraphs without a declared one.
        guard: watches the runs.
        found: name -> shape, with None for unknown sizes; kernels may read it during the runs.
    """
    infos = _infos(graph, types)
    for unknown in RUNS:
        _run(plan, _known(plan, weights), infos, unknown, guard, found)


def ranks(
    graph: Graph,
    plan: Plan,
    weights: Mapping[str, Tensor],
    types: Mapping[str, int],
    guard: Guard,
) -> dict[str, int]:
    """The ranks of the values of a plan that are the same in all runs; arguments as above."""
    infos, found = _infos(graph, types), defaultdict[str, set[int]](set)
    for unknown in RUNS:
        values = _known(plan, weights)
        _run(plan, values, infos, unknown, guard, {})
        for key, value in values.items():
            if (shape := _shape(value)) is not None:
                found[onnx_name_of(key)].add(len(shape))
    return {name: ranks.pop() for name, ranks in found.items() if len(ranks) == 1}


def _infos(graph: Graph, types: Mapping[str, int]) -> dict[str, ValueInfo]:
    """The inputs of a graph and of its subgraphs."""
    declared = {info.name: info for g in graph.graphs() for info in g.inputs}
    return {n: i if i.elem_type else ValueInfo(n, types.get(n, 0)) for n, i in declared.items()}


def _known(plan: Plan, weights: Mapping[str, Tensor]) -> dict[Key, Any]:
    """What is in the frame of a plan before a run."""
    given = (*weights.items(), *plan.constants.items())
    return {"": None, **{key: _on_meta(value) for key, value in given}}


def _run(
    plan: Plan,
    values: dict[Key, Any],
    infos: Mapping[str, ValueInfo],
    unknown: Unknown,
    guard: Guard,
    found: Found,
) -> None:
    """Run a plan and, before the steps they belong to, the plans of its subgraphs."""
    values |= {name: _input(infos[name], unknown) for name in plan.inputs if name not in values}
    for step in plan.steps:
        for body in step.subgraphs.values():
            inner = {"": None, **{key: values[key] for key in body.captures if key in values}}
            _run(body, inner, infos, unknown, guard, found)
            for key in body.outputs:
                if (shape := _shape(inner.get(key))) is not None:
                    name = onnx_name_of(key)
                    found[name] = agreed(found[name], shape) if name in found else shape
        try:
            result = Interpreter().run_step(step, Frame(values, META, guard, LOOP_TRIPS))
            values.update(by_name(step, result))
        except Exception:  # assumed sizes need not fit together: the results stay unknown
            reserve(0)  # raises where the time of the call is over


def agreed(a: Shape, b: Shape) -> Shape:
    """What two shapes of one value have in common."""
    if a is None or b is None or len(a) != len(b):
        return None
    return tuple(n if n == m else None for n, m in zip(a, b, strict=True))


def _input(info: ValueInfo, unknown: Unknown) -> Any:
    """A tensor of the declared type; a single integer or condition is a number that is known."""
    if info.dtype is None or info.kind not in ("tensor", "unknown"):
        return None
    if info.shape == () and not info.dtype.is_floating_point:
        return torch.tensor(unknown.number, dtype=info.dtype)
    declared: Sequence[Any] = (None,) * unknown.rank if info.shape is None else info.shape
    sizes = [n if isinstance(n, int) else unknown.size for n in declared]
    return torch.empty(sizes, dtype=info.dtype, device=META)


def _on_meta(value: Any) -> Any:
    """A tensor without its elements; a single integer or condition keeps its own."""
    if not isinstance(value, Tensor) or not (value.ndim or value.is_floating_point()):
        return value
    return torch.empty(value.shape, dtype=value.dtype, device=META)


def _shape(value: Any) -> Shape:
    return tuple(value.shape) if isinstance(value, (Tensor, Host, np.ndarray)) else None
